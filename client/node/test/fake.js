// A sidecar that holds its secrets itself, for the tests.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import * as api from '../dist/esm/gen/secretsidecar/v1/secret_service_pb.js';

/** Makes a path for a socket, short enough for the kernel. */
export function socketDir(t) {
  const dir = mkdtempSync(join(tmpdir(), 'sc-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

export class FakeSidecar {
  secrets = new Map(); // by path: {value, version} or {code, reason, retry}
  asked = []; // every request
  batches = []; // the sizes of batches
  invalidated = [];
  onWatch = (call) => call.end(); // what a stream of watch does
  tested = [];
  silent = false; // takes requests and answers none
  #server;

  set(path, value, more = {}) {
    this.secrets.set(path, { value, version: (this.secrets.get(path)?.version ?? 0) + 1, ...more });
  }

  fail(path, code, reason, retry) {
    this.secrets.set(path, { version: this.secrets.get(path)?.version ?? 0, code, reason, retry });
  }

  countOf(path) {
    return this.asked.filter((one) => one.path === path).length;
  }

  async listen(socket) {
    this.#server = new Server();
    const methods = api.SecretService.method;
    const definition = Object.fromEntries(Object.entries(methods).map(([name, method]) => [name, {
      path: `/${api.SecretService.typeName}/${method.name}`, requestStream: false, responseStream: name === 'watch',
      requestSerialize: (m) => Buffer.from(toBinary(method.input, m)), requestDeserialize: (b) => fromBinary(method.input, b),
      responseSerialize: (m) => Buffer.from(toBinary(method.output, m)), responseDeserialize: (b) => fromBinary(method.output, b),
    }]));
    this.#server.addService(definition, {
      resolve: (call, answer) => this.#resolve(call.request, answer),
      batchResolve: (call, answer) => {
        this.batches.push(call.request.requests.length);
        const results = call.request.requests.map((one) => ({ outcome: this.#outcome(one) }));
        answer(null, create(api.BatchResolveResponseSchema, { results }));
      },
      watch: (call) => this.onWatch(call),
      invalidate: (call, answer) => {
        this.invalidated.push(call.request);
        answer(null, create(api.InvalidateResponseSchema, { entries: 3 }));
      },
      listConnections: (_, answer) => answer(null, create(api.ListConnectionsResponseSchema, { connections: [{ name: 'prod' }] })),
      testConnection: (call, answer) => {
        this.tested.push(call.request);
        answer(null, create(api.TestConnectionResponseSchema, {
          ok: call.request.target.value === 'prod' || call.request.target.value?.name === 'prod',
        }));
      },
    });
    await new Promise((resolve, reject) => this.#server.bindAsync(
      `unix:${socket}`, ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve())));
  }

  stop() {
    this.#server.forceShutdown();
  }

  #resolve(request, answer) {
    const outcome = this.#outcome(request);
    if (this.silent) return;
    if (outcome.case === 'secret') return answer(null, create(api.ResolveResponseSchema, outcome.value));
    const { code, reason, message, retryDelay, violations } = outcome.value;
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', Buffer.from(statusOf(code, reason, retryDelay, violations)));
    answer({ code, details: message, metadata });
  }

  #outcome(request) {
    this.asked.push(request);
    const one = this.secrets.get(request.key === '' ? request.path : `${request.path}/${request.key}`);
    if (one === undefined) return failure(status.NOT_FOUND, 'SECRET_NOT_FOUND');
    if (one.reason !== undefined) return failure(one.code, one.reason, one.retry, one.violations);
    const now = Date.now();
    return { case: 'secret', value: {
      value: one.value, version: one.version, valueType: api.ValueType.STRING, source: one.source ?? api.Source.VAULT,
      fetchedAt: timestampFromDate(new Date(now)), expiresAt: timestampFromDate(new Date(now + 3_600_000)),
    } };
  }
}

function failure(code, reason, retry, violations) {
  const retryDelay = retry === undefined ? undefined : { seconds: BigInt(Math.floor(retry / 1000)), nanos: (retry % 1000) * 1e6 };
  return { case: 'error', value: { code, reason, message: 'the test has made it fail', retryDelay, violations } };
}

// A google.rpc.Status as the sidecar sends it.
function statusOf(code, reason, retryDelay, violations = []) {
  const writer = new BinaryWriter().tag(1, 0).int32(code);
  const detail = (type, body) => writer.tag(3, 2).bytes(new BinaryWriter()
    .tag(1, 2).string(`type.googleapis.com/google.rpc.${type}`).tag(2, 2).bytes(body).finish());
  detail('ErrorInfo', new BinaryWriter().tag(1, 2).string(reason).tag(2, 2).string('secretsidecar').finish());
  if (retryDelay) {
    detail('RetryInfo', new BinaryWriter().tag(1, 2).bytes(new BinaryWriter()
      .tag(1, 0).int64(retryDelay.seconds).tag(2, 0).int32(retryDelay.nanos).finish()).finish());
  }
  if (violations.length > 0) {
    const body = new BinaryWriter();
    for (const [field, description] of violations) {
      body.tag(1, 2).bytes(new BinaryWriter().tag(1, 2).string(field).tag(2, 2).string(description).finish());
    }
    detail('BadRequest', body.finish());
  }
  return writer.finish();
}
