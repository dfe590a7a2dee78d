// The Node client's part of `make bench-clients`: what bench starts, and what it reads of. Each
// command prints lines of JSON.
//
//   calls ECHO ROUNDS EACH           bare calls of grpc-js on the echo, and the client's calls of it
//   away SIDECAR                     ten loops, until a line comes in: when answers come after a pause
//   paced SIDECAR SECONDS            1,000 calls a second
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { open } from '../../client/node/dist/esm/index.js';
import * as api from '../../client/node/dist/esm/gen/secretsidecar/v1/secret_service_pb.js';

const require = createRequire(new URL('../../client/node/package.json', import.meta.url));
const { Client, credentials } = require('@grpc/grpc-js');
const { create, fromBinary, toBinary } = await import('../../client/node/node_modules/@bufbuild/protobuf/dist/esm/index.js');

const connection = 'quick';
const reference = (i) => `secret/data/size-256-${String(i).padStart(7, '0')}/key`;
const say = (line) => console.log(JSON.stringify(line));
const seconds = (n) => new Promise((resolve) => setTimeout(resolve, n * 1000));

/**
 * Makes the calls in turn for so many milliseconds each, so that what slows the machine down slows
 * all of them down. It returns how long each call took, in µs.
 */
async function loop(subjects, each) {
  const took = Object.fromEntries(Object.keys(subjects).map((name) => [name, []]));
  const all = Object.entries(subjects);
  for (const end = performance.now() + each * all.length; performance.now() < end;) {
    for (const [name, call] of all) {
      const began = performance.now();
      await call();
      took[name].push((performance.now() - began) * 1000);
    }
  }
  return took;
}

function measured(took) {
  took.sort((a, b) => a - b);
  const total = took.reduce((sum, one) => sum + one, 0);
  return { p50: took[Math.floor(took.length / 2)], p99: took[Math.floor(took.length * 0.99)], perSecond: (took.length * 1e6) / total };
}

/** A call of grpc-js with the generated types and a deadline: what a worker without the library makes. */
function bare(client, { name, input, output }, request) {
  const encode = (message) => Buffer.from(toBinary(input, message));
  const decode = (bytes) => fromBinary(output, bytes);
  const path = `/secretsidecar.v1.SecretService/${name}`;
  return () => new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, encode, decode, create(input, request), { deadline: Date.now() + 15_000 },
      (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function calls(echo, rounds, each) {
  const client = await open(echo);
  const near = await open({ socket: echo, nearCache: true, nearMaxAge: 3_600_000 });
  const grpc = new Client(`unix:${echo}`, credentials.createInsecure(), { 'grpc.default_authority': 'localhost' });
  const { resolve, batchResolve } = api.SecretService.method;
  const fields = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`field${i}`, reference(i)]));
  const requests = Object.values(fields).map((path) => ({ connection, path }));
  const subjects = {
    echo: bare(grpc, resolve, requests[0]),
    get: () => client.get(reference(0), { connection }),
    echoOf10: bare(grpc, batchResolve, { requests }),
    getAll: () => client.getAll(fields, { connection }),
  };
  const hits = { near: () => near.get(reference(0), { connection }) };
  await loop(subjects, Math.min(each, 1000)); // warm up
  for (let round = 0; round < rounds; round++) {
    for (const [name, took] of Object.entries({ ...await loop(subjects, each), ...await loop(hits, each / 10) })) {
      say({ name, ...measured(took) });
    }
  }
  await client.close();
  await near.close();
  grpc.close();
}

async function away(sidecar) {
  const client = await open(sidecar);
  const count = { calls: 0, failed: 0 };
  let stopped = false;
  let last = Date.now();
  const worker = async () => {
    while (!stopped) {
      try {
        await client.get(reference(0), { connection, timeout: 600_000 });
      } catch (error) {
        if (count.failed++ === 0) console.error(error);
      }
      count.calls++;
      const now = Date.now();
      if (now - last > 500) say({ back: now });
      last = now;
    }
  };
  const workers = Array.from({ length: 10 }, worker);
  say({ back: 0 });
  for await (const _ of createInterface({ input: process.stdin })) break;
  stopped = true;
  await Promise.all(workers);
  say(count);
  await client.close();
  process.stdin.destroy();
}

async function paced(sidecar, length) {
  const client = await open(sidecar);
  const count = { calls: 0, failed: 0 };
  const took = [];
  const began = performance.now();
  const under = [];
  while (count.calls < length * 1000) {
    const due = Math.min(length * 1000, Math.floor(performance.now() - began));
    for (; count.calls < due; count.calls++) {
      const asked = performance.now();
      under.push(client.get(reference(count.calls % 100), { connection }).then(
        () => { took.push((performance.now() - asked) * 1000); },
        (error) => { if (count.failed++ === 0) console.error(error); }));
    }
    await seconds(0.001);
  }
  await Promise.all(under);
  say({ ...count, seconds: (performance.now() - began) / 1000, ...measured(took) });
  await client.close();
}

const [command, ...args] = process.argv.slice(2);
await { calls: (e, r, m) => calls(e, Number(r), Number(m)), away, paced: (s, n) => paced(s, Number(n)) }[command](...args);
