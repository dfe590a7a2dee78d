import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { open } from '../dist/esm/index.js';
import * as api from '../dist/esm/gen/secretsidecar/v1/secret_service_pb.js';
import { FakeSidecar, socketDir } from './fake.js';

const state = (index, outcome) => create(api.WatchResponseSchema, { index, outcome });
const secret = (value) => ({ case: 'secret', value: { value, version: 1 } });

async function openWatched(t, onWatch) {
  const socket = join(socketDir(t), 's');
  const sidecar = new FakeSidecar();
  sidecar.onWatch = onWatch;
  await sidecar.listen(socket);
  t.after(() => sidecar.stop());
  const client = await open({ socket });
  t.after(() => client.close());
  return client;
}

test('a watch yields each state and goes on when its stream breaks', async (t) => {
  let streams = 0;
  const client = await openWatched(t, (call) => {
    streams += 1;
    if (streams > 1) return call.write(state(0, secret('two')));
    call.write(state(0, secret('one')));
    call.write(state(1, { case: 'error', value: { code: status.NOT_FOUND, reason: 'SECRET_NOT_FOUND' } }));
    return call.emit('error', { code: status.UNAVAILABLE, details: 'restarts' });
  });
  const seen = [];
  for await (const change of client.watch(['secret/data/a/k', 'secret/data/b/k'])) {
    seen.push(`${change.reference} ${change.secret?.value ?? change.error?.reason}`);
    if (change.secret?.value === 'two') break;
  }
  assert.deepEqual(seen, ['secret/data/a/k one', 'secret/data/b/k SECRET_NOT_FOUND', 'secret/data/a/k two']);
});

test('a watch ends with its signal', async (t) => {
  const client = await openWatched(t, (call) => call.write(state(0, secret('one'))));
  const stop = new AbortController();
  await assert.rejects(async () => {
    for await (const change of client.watch(['secret/data/a/k'], { signal: stop.signal })) {
      assert.equal(change.secret.value, 'one');
      stop.abort(new Error('enough'));
    }
  }, /enough/);
});

test('a watch that the sidecar refuses rejects', async (t) => {
  const client = await openWatched(t, (call) => call.emit('error', { code: status.INVALID_ARGUMENT, details: 'too many' }));
  await assert.rejects(async () => {
    for await (const change of client.watch([])) assert.fail(change);
  }, /too many/);
});
