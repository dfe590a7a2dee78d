import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import vm from 'node:vm';
import { status } from '@grpc/grpc-js';
import { BatchError, open, Secret, SecretSidecarError, storedReference } from '../dist/esm/index.js';
import { FakeSidecar, socketDir } from './fake.js';

const reference = 'secret/data/mysec/api_key';
const value = 'correct horse battery staple';
const stored = (path) => `{{prod|ap_sep_v1|${path}}}`;

async function opened(t, options = {}) {
  const socket = join(socketDir(t), 's.sock');
  const sidecar = new FakeSidecar();
  sidecar.set(reference, value);
  await sidecar.listen(socket);
  const client = await open({ socket, ...options });
  t.after(async () => {
    await client.close();
    sidecar.stop();
  });
  return { client, sidecar, socket };
}

test('a stored reference is taken apart as the vectors say', () => {
  const vectors = JSON.parse(readFileSync(new URL('../../testdata/stored_references.json', import.meta.url), 'utf8'));
  for (const { text, stored: isStored = true, connection, path } of vectors) {
    assert.deepEqual(storedReference(text), isStored ? { connection, path } : undefined, JSON.stringify(text));
  }
});

test('get returns the value of a reference and of a stored one', async (t) => {
  const { client, sidecar } = await opened(t);
  assert.equal(await client.get(reference), value);
  assert.equal(await client.get(` ${stored(reference)}\n`), value);
  assert.equal(await client.get('secret/data/mysec', { key: 'api_key', connection: 'c', project: 'p', version: 2, fresh: true, maxStale: 1500 }), value);
  const asked = sidecar.asked.at(-1);
  assert.equal(sidecar.asked[1].connection, 'prod');
  assert.deepEqual([asked.connection, asked.projectId, asked.version, asked.maxAge.seconds, asked.maxAge.nanos], ['c', 'p', 2, 0n, 0]);
  assert.deepEqual([asked.maxStale.seconds, asked.maxStale.nanos], [1n, 500_000_000]);
  assert.equal(sidecar.asked[0].maxAge, undefined);
});

test('an empty secret is a value', async (t) => {
  const { client, sidecar } = await opened(t);
  sidecar.set('secret/data/mysec/empty', '');
  assert.equal(await client.get('secret/data/mysec/empty'), '');
  assert.deepEqual(await client.getAll({ one: 'secret/data/mysec/empty' }), { one: '' });
});

test('an error tells reason, message, reference and violations', async (t) => {
  const { client, sidecar } = await opened(t);
  sidecar.fail('bad', status.INVALID_ARGUMENT, 'INVALID_PATH');
  sidecar.secrets.get('bad').violations = [['path', 'it has one segment']];
  await assert.rejects(client.get('bad'), (error) => {
    assert.ok(error instanceof SecretSidecarError);
    assert.equal(error.reason, 'INVALID_PATH');
    assert.equal(error.reference, 'bad');
    assert.equal(error.message, 'resolve bad: INVALID_PATH: the test has made it fail');
    assert.deepEqual(error.violations, [{ field: 'path', description: 'it has one segment' }]);
    assert.equal(error.retryAfter, undefined);
    return true;
  });
  await assert.rejects(client.get(`{{|ap_sep_v1|${reference}}}`), { reason: 'CONNECTION_REQUIRED' });
  await assert.rejects(client.get(stored(reference), { connection: 'other' }), { reason: 'INVALID_REQUEST' });
});

test('getAll asks for each distinct reference once, 256 at a time', async (t) => {
  const { client, sidecar } = await opened(t);
  const references = {}, want = {};
  for (let i = 0; i < 600; i++) {
    sidecar.set(`secret/data/app/${i}`, `value ${i}`);
    for (const name of [`a${i}`, `b${i}`]) {
      references[name] = `secret/data/app/${i}`;
      want[name] = `value ${i}`;
    }
  }
  assert.deepEqual(await client.getAll(references), want);
  assert.deepEqual(sidecar.batches, [256, 256, 88]);
});

test('getAll names each reference that failed', async (t) => {
  const { client, sidecar } = await opened(t);
  sidecar.fail('denied', status.PERMISSION_DENIED, 'VAULT_PERMISSION_DENIED');
  await assert.rejects(client.getAll({ good: reference, denied: 'denied', missing: 'missing' }), (error) => {
    assert.ok(error instanceof BatchError);
    assert.deepEqual([...error.failed.keys()], ['denied', 'missing']);
    assert.equal(error.failed.get('denied').reason, 'VAULT_PERMISSION_DENIED');
    assert.equal(error.failed.get('denied').reference, 'denied');
    assert.match(error.message, /denied: .*missing: /);
    return true;
  });
  assert.deepEqual(await client.getAll({}), {});
  assert.deepEqual(await client.getAll(JSON.parse(`{"__proto__": "${reference}"}`)), JSON.parse(`{"__proto__": "${value}"}`));
});

test('what passes by itself is tried again, alone and in a batch', async (t) => {
  const { client, sidecar } = await opened(t);
  for (const ask of [() => client.get('later'), async () => (await client.getAll({ a: 'later', b: reference })).a]) {
    sidecar.asked.length = 0;
    sidecar.fail('later', status.UNAVAILABLE, 'VAULT_UNREACHABLE', 5);
    const answer = ask();
    while (sidecar.countOf('later') < 3) await new Promise(setImmediate);
    sidecar.set('later', 'now');
    assert.equal(await answer, 'now');
    assert.equal(sidecar.countOf(reference) <= 1, true);
  }
  sidecar.fail('never', status.UNAVAILABLE, 'VAULT_SEALED', 3_600_000);
  await assert.rejects(client.get('never'), { reason: 'VAULT_SEALED', retryAfter: 3_600_000 });
  assert.equal(sidecar.countOf('never'), 1);
  await assert.rejects(client.get('never', { signal: AbortSignal.abort(new Error('enough')) }), { message: 'enough' });
});

test('a call waits for a sidecar that comes back', async (t) => {
  const { client, sidecar, socket } = await opened(t);
  for (let i = 0; i < 3; i++) {
    sidecar.stop();
    const answers = Promise.all(Array.from({ length: 10 }, () => client.get(reference, { timeout: 60_000 })));
    await sidecar.listen(socket);
    assert.deepEqual(await answers, Array(10).fill(value));
  }
  sidecar.stop();
  await assert.rejects(client.get(reference, { timeout: 200 }), (error) => {
    assert.equal(error.reason, 'SIDECAR_UNREACHABLE');
    assert.ok(error.message.includes(socket));
    return true;
  });
  const signal = new AbortController();
  const waiting = client.get(reference, { timeout: 60_000, signal: signal.signal });
  signal.abort(new Error('enough'));
  await assert.rejects(waiting, { message: 'enough' });
});

test('as many calls as one likes may share a signal, or have none', async (t) => {
  const { client } = await opened(t);
  const warnings = [];
  const warned = (warning) => warnings.push(warning.message);
  process.on('warning', warned);
  t.after(() => process.off('warning', warned));
  const { signal } = new AbortController();
  for (const options of [{}, { signal }]) {
    assert.deepEqual(await Promise.all(Array.from({ length: 50 }, () => client.get(reference, options))), Array(50).fill(value));
  }
  await new Promise(setImmediate);
  assert.deepEqual(warnings, []);
});

test('a sidecar that does not answer in time is none that is away', async (t) => {
  const { client, sidecar } = await opened(t);
  sidecar.silent = true;
  await assert.rejects(client.get(reference, { timeout: 200 }), { reason: 'DEADLINE_EXCEEDED' });
});

test('a client that is closed says so, to calls that are under way too', async (t) => {
  const { client, sidecar } = await opened(t);
  sidecar.silent = true;
  const underWay = client.get(reference);
  while (sidecar.asked.length === 0) await new Promise(setImmediate);
  await client.close();
  await assert.rejects(underWay, /the client is closed/);
  await assert.rejects(client.get(reference), /the client is closed/);
  await assert.rejects(client.connections(), /the client is closed/);
});

test('a client is closed by await using, and open by a signal that aborts', async (t) => {
  const { client, socket } = await opened(t);
  await client[Symbol.asyncDispose]();
  await assert.rejects(client.get(reference), /the client is closed/);
  const signal = new AbortController();
  const waiting = open({ socket: `${socket}.none`, wait: 60_000, signal: signal.signal });
  signal.abort(new Error('enough'));
  await assert.rejects(waiting, { message: 'enough' });
  await assert.rejects(open({ socket, signal: AbortSignal.abort(new Error('before')) }), { message: 'before' });
});

test('a reference that is no text, none at all or too long fails alone', async (t) => {
  const { client, sidecar } = await opened(t);
  const bad = { half: 'secret/data/\ud800/key', stored: stored('a/data/\udfff/k'), long: `secret/data/${'x'.repeat(2000)}/key` };
  await assert.rejects(client.getAll({ ...bad, good: reference }), (error) => {
    assert.deepEqual([...error.failed.keys()], Object.keys(bad));
    for (const one of error.failed.values()) assert.equal(one.reason, 'INVALID_PATH');
    return true;
  });
  assert.equal(sidecar.countOf(reference), 1);
  for (const none of [undefined, null, 7, {}]) await assert.rejects(client.get(none), { name: 'TypeError', message: /a reference is a string/ });
});

test('every error of a call is one type, and one of several has their reason', async (t) => {
  const { client, sidecar } = await opened(t);
  await assert.rejects(client.getAll({ a: 'one', b: 'two' }), (error) => {
    assert.ok(error instanceof SecretSidecarError);
    assert.equal(error.reason, 'SECRET_NOT_FOUND');
    assert.equal(error.retryAfter, undefined);
    return true;
  });
  sidecar.fail('two', status.UNAVAILABLE, 'VAULT_SEALED', 3_600_000);
  await assert.rejects(client.getAll({ a: 'one', b: 'two' }), { reason: '', retryAfter: undefined });
  sidecar.fail('one', status.UNAVAILABLE, 'VAULT_SEALED', 7_200_000);
  await assert.rejects(client.getAll({ a: 'one', b: 'two' }), { reason: 'VAULT_SEALED', retryAfter: 7_200_000 });
});

test('in a batch, what passes soon is tried again beside what passes late', async (t) => {
  const { client, sidecar } = await opened(t);
  sidecar.fail('late', status.UNAVAILABLE, 'VAULT_SEALED', 3_600_000);
  sidecar.fail('soon', status.UNAVAILABLE, 'LOGIN_PENDING', 5);
  const answer = client.resolveObject({ late: stored('late'), soon: stored('soon') }, { onError: 'keep' });
  while (sidecar.countOf('soon') < 3) await new Promise(setImmediate);
  sidecar.set('soon', 'now');
  assert.equal((await answer).soon, 'now');
  assert.equal(sidecar.countOf('late'), 1);
});

test('with keep, a sidecar that is away leaves every reference and reports it', async (t) => {
  const { client, sidecar } = await opened(t);
  sidecar.stop();
  const object = { a: stored(reference), b: 'text' };
  let reported;
  assert.deepEqual(await client.resolveObject(object, { timeout: 200, onError: 'keep', onFailed: (error) => { reported = error; } }), object);
  assert.equal(reported.failed.get('/a').reason, 'SIDECAR_UNREACHABLE');
  await assert.rejects(client.resolveObject(object, { timeout: 200 }), { name: 'SecretSidecarError', reason: 'SIDECAR_UNREACHABLE' });
  await assert.rejects(client.resolveObject(object, { onError: 'keep', signal: AbortSignal.abort(new Error('enough')) }), { message: 'enough' });
});

test('invalidate and testConnection take a stored reference as get does', async (t) => {
  const { client, sidecar } = await opened(t);
  assert.equal((await client.testConnection({ path: stored(reference) })).ok, true);
  assert.deepEqual([sidecar.tested[0].target.value, sidecar.tested[0].path], ['prod', reference]);
  for (const call of [(what) => client.invalidate(what), (what) => client.testConnection(what)]) {
    await assert.rejects(call({ path: `{{|ap_sep_v1|${reference}}}` }), { reason: 'CONNECTION_REQUIRED' });
    await assert.rejects(call({ connection: 'other', path: stored(reference) }), { reason: 'INVALID_REQUEST' });
  }
  assert.equal(sidecar.invalidated.length, 0);
});

test('open takes every form of a socket and says what is wrong', async (t) => {
  const { socket } = await opened(t);
  for (const form of [socket, `unix:${socket}`, `unix://${socket}`]) {
    const client = await open(form);
    assert.equal(await client.get(reference), value);
    process.env.SECRET_SIDECAR_SOCKET = form;
    const other = await open();
    assert.equal(await other.get(reference), value);
  }
  delete process.env.SECRET_SIDECAR_SOCKET;
  for (const form of ['unix:', 'unix://', 'unix://relative', 'http://localhost:1']) {
    await assert.rejects(open(form), TypeError);
  }
  await assert.rejects(open({ socket: `${socket}.none`, wait: 50 }), { reason: 'SIDECAR_UNREACHABLE' });
});

test('a secret shows itself without its value', async (t) => {
  const { client } = await opened(t);
  const secret = await client.getSecret(reference);
  assert.ok(secret instanceof Secret);
  assert.equal(secret.value, value);
  assert.equal(secret.version, 1);
  for (const shown of [
    String(secret), `${secret}`, JSON.stringify({ secret }), inspect(secret, { depth: null, showHidden: true, getters: true }),
    inspect({ deep: [secret] }, { depth: null, getters: true }), inspect(structuredClone({ ...secret })), inspect(Object.entries(secret)),
  ]) assert.ok(!shown.includes(value), shown);
});

test('an object comes back with its references replaced and nothing else touched', async (t) => {
  const { client } = await opened(t);
  const date = new Date(), buffer = Buffer.from('raw'), bare = Object.create(null);
  class Own { reference = stored(reference); }
  const own = new Own(), map = new Map([['k', stored(reference)]]), symbol = Symbol('s');
  bare.token = stored(reference);
  const object = {
    z: stored(reference), a: `Bearer ${stored(reference)}`, list: [1, , ` ${stored(reference)} `, null, undefined, true, 10n],
    date, buffer, own, map, bare, [symbol]: stored(reference), nan: NaN, nested: { deep: [{ er: stored(reference) }] }, f() {},
  };
  const before = structuredClone({ z: object.z, list: object.list });
  const got = await client.resolveObject(object);
  assert.deepEqual(Object.keys(got), Object.keys(object));
  assert.equal(got.z, value);
  assert.equal(got.a, object.a);
  assert.deepEqual(got.list, [1, , value, null, undefined, true, 10n]);
  assert.ok(!(1 in got.list));
  for (const name of ['date', 'buffer', 'own', 'map', 'f']) assert.equal(got[name], object[name]);
  assert.equal(Object.getPrototypeOf(got.bare), null);
  assert.equal(got.bare.token, value);
  assert.equal(got[symbol], object[symbol]);
  assert.deepEqual(got.nested, { deep: [{ er: value }] });
  assert.deepEqual({ z: object.z, list: object.list }, before);
  assert.equal(await client.resolveObject(stored(reference)), value);
  assert.equal(await client.resolveObject(null), null);
  assert.equal(await client.resolveObject(7), 7);
  const polluted = await client.resolveObject(JSON.parse(`{"__proto__": {"polluted": "${stored(reference)}"}}`));
  assert.deepEqual(Object.keys(polluted), ['__proto__']);
  assert.equal({}.polluted, undefined);
  assert.equal((await client.resolveObject(vm.runInNewContext(`({a: [${JSON.stringify(stored(reference))}]})`))).a[0], value);
});

test('an object whose references fail names their places', async (t) => {
  const { client } = await opened(t);
  const object = { 'a/b': [stored('x/data/y/z'), stored(reference)], 't~': stored('x/data/y/z') };
  await assert.rejects(client.resolveObject(object), (error) => {
    assert.deepEqual([...error.failed.keys()], ['/a~1b/0', '/t~0']);
    return true;
  });
  let reported;
  const got = await client.resolveObject(object, { onError: 'keep', onFailed: (error) => { reported = error; } });
  assert.deepEqual(got, { 'a/b': [stored('x/data/y/z'), value], 't~': stored('x/data/y/z') });
  assert.equal(reported.failed.size, 2);
});

test('an object may be deep, shared in itself, but not hold itself', async (t) => {
  const { client } = await opened(t);
  let deep = stored(reference);
  for (let i = 0; i < 100_000; i++) deep = [deep];
  let got = await client.resolveObject(deep);
  while (Array.isArray(got)) got = got[0];
  assert.equal(got, value);
  let wide = { k: stored(reference) };
  for (let i = 0; i < 60; i++) wide = { a: wide, b: wide };
  got = await client.resolveObject(wide);
  assert.equal(got.a, got.b);
  const loop = { in: [{}] };
  loop.in[0].it = loop;
  await assert.rejects(client.resolveObject(loop), /holds itself at \/in\/0\/it/);
});

test('an object of many references is resolved 256 at a time, each distinct one once', async (t) => {
  const { client, sidecar } = await opened(t);
  const object = [], want = [];
  for (let i = 0; i < 1200; i++) {
    sidecar.set(`secret/data/app/${i % 600}`, `value ${i % 600}`);
    object.push({ deep: [stored(`secret/data/app/${i % 600}`)] });
    want.push({ deep: [`value ${i % 600}`] });
  }
  assert.deepEqual(await client.resolveObject(object), want);
  assert.deepEqual(sidecar.batches, [256, 256, 88]);
});

test('any object is resolved as a plain walk over it says', async (t) => {
  const { client, sidecar } = await opened(t);
  for (let i = 0; i < 40; i++) sidecar.set(`secret/data/s${i}/key`, `value ${i}`);
  const date = new Date(), buffer = Buffer.from('raw'), map = new Map([['k', stored('secret/data/s1/key')]]), distinct = new Set();
  let seed = 1;
  const random = (n) => { seed = (seed * 48271) % 0x7fffffff; return seed % n; };
  const make = (depth) => {
    const kind = random(depth === 0 ? 6 : 9);
    if (kind < 2) return ' '.repeat(random(2)) + stored(`secret/data/s${random(40)}/key`);
    if (kind === 2) return `text ${stored('secret/data/s1/key')}`;
    if (kind < 6) return [null, random(100) / 7, true, date, buffer, map, undefined][random(7)];
    if (kind === 6) return Array.from({ length: random(4) }, () => make(depth - 1));
    const entries = Array.from({ length: random(4) }, () => [`~/${random(9)}`, make(depth - 1)]);
    return kind === 7 ? Object.fromEntries(entries) : Object.assign(Object.create(null), Object.fromEntries(entries));
  };
  const plain = (one) => {
    if (typeof one === 'string') {
      const number = /^\s*\{\{prod\|ap_sep_v1\|secret\/data\/s(\d+)\/key\}\}\s*$/.exec(one)?.[1];
      if (number !== undefined) distinct.add(number);
      return number === undefined ? one : `value ${number}`;
    }
    if (Array.isArray(one)) return one.map(plain);
    if (!one || typeof one !== 'object' || [date, buffer, map].includes(one)) return one;
    const copy = Object.create(Object.getPrototypeOf(one));
    for (const key of Object.keys(one)) copy[key] = plain(one[key]);
    return copy;
  };
  for (let i = 0; i < 300; i++) {
    distinct.clear();
    sidecar.asked.length = 0;
    const object = make(6), want = plain(object), before = JSON.stringify(object);
    const got = await client.resolveObject(object);
    assert.deepStrictEqual(got, want); // prototypes too
    assert.equal(JSON.stringify(got), JSON.stringify(want)); // the order of keys too
    assert.equal(JSON.stringify(object), before);
    assert.equal(sidecar.asked.length, distinct.size);
  }
});

test('use calls once more with a secret that has changed', async (t) => {
  const { client, sidecar } = await opened(t);
  for (const refusal of [() => ({ status: 401 }), () => { throw Object.assign(new Error('axios'), { response: { status: 401 } }); }, () => { throw Object.assign(new Error('got'), { statusCode: 401 }); }]) {
    sidecar.set(reference, 'old');
    const values = [];
    const result = await client.use(reference, (secret) => {
      values.push(secret);
      sidecar.set(reference, 'new');
      return secret === 'old' ? refusal() : { status: 200 };
    });
    assert.deepEqual([values, result], [['old', 'new'], { status: 200 }]);
  }
  const custom = await client.use(reference, (secret) => { sidecar.set(reference, 'newer'); return secret; }, { refused: ({ result }) => result === 'new' });
  assert.equal(custom, 'newer');
});

test('use gives the refusal back when the secret has not changed, and every other error at once', async (t) => {
  const { client, sidecar } = await opened(t);
  let calls = 0;
  assert.deepEqual(await client.use(reference, () => { calls++; return { status: 401 }; }), { status: 401 });
  assert.equal(calls, 1);
  sidecar.asked.length = 0;
  await assert.rejects(client.use(reference, () => { throw new Error('broken'); }), { message: 'broken' });
  assert.equal(sidecar.countOf(reference), 1);
});

test('the near cache keeps an answer until it is invalidated or asked for fresh', async (t) => {
  const { client, sidecar } = await opened(t, { nearCache: true, nearMaxAge: 3_600_000 });
  const get = async (want, asked, options) => assert.deepEqual([await client.get(reference, options), sidecar.countOf(reference)], [want, asked]);
  await get(value, 1);
  sidecar.set(reference, 'new');
  await get(value, 1);
  await get('new', 2, { fresh: true });
  sidecar.set(reference, 'newest');
  assert.equal(await client.invalidate({ path: stored(reference), renewLogin: true }), 3);
  assert.deepEqual([sidecar.invalidated[0].connection, sidecar.invalidated[0].path, sidecar.invalidated[0].renewLogin], ['prod', reference, true]);
  await get('newest', 3);
  assert.deepEqual(await client.getAll({ one: reference }), { one: 'newest' });
  assert.equal(sidecar.countOf(reference), 3);
});

test('the near cache gives nothing out that is too old', async (t) => {
  const { client, sidecar } = await opened(t, { nearCache: true, nearMaxAge: 0 });
  for (let i = 1; i <= 3; i++) {
    await client.get(reference);
    assert.equal(sidecar.countOf(reference), i);
  }
});

test('connections and their tests are there', async (t) => {
  const { client } = await opened(t);
  assert.equal((await client.connections())[0].name, 'prod');
  assert.equal((await client.testConnection({ connection: 'prod' })).ok, true);
  assert.equal((await client.testConnection({ connection: 'other' })).ok, false);
  assert.equal((await client.testConnection({ spec: { name: 'prod', address: 'https://vault.example:8200' } })).ok, true);
});
