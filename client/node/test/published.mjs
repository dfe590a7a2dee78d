// Installs what would be published into an empty project, and uses it from ESM, CommonJS, strict
// TypeScript, a bundle of esbuild's and a worker thread.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeSidecar } from './fake.js';

const here = new URL('..', import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), 'sc-'));
const run = (command, ...args) => execFileSync(command, args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
const use = `
const client = await open({ socket: process.env.SOCKET });
process.stdout.write(await client.get('secret/data/mysec/api_key'));
await client.close();
`;

const uses = {
  'esm.mjs': `import { open } from '@secret-sidecar/client';${use}`,
  'cjs.cjs': `const { open } = require('@secret-sidecar/client');\n(async () => {${use}})();`,
  'thread.mjs': `import { Worker } from 'node:worker_threads';\nnew Worker(new URL('./esm.mjs', import.meta.url));`,
  'strict.mts': `import { open, SecretSidecarError, type Secret } from '@secret-sidecar/client';
const client = await open({ socket: process.env['SOCKET'] ?? '' });
try {
  const secret: Secret = await client.getSecret('secret/data/mysec/api_key', { maxStale: 0 });
  const { one }: { one: string } = await client.getAll({ one: 'secret/data/mysec/api_key' });
  const object: { a: string[] } = await client.resolveObject({ a: [one] }, { project: 'p1' });
  process.stdout.write(object.a[0] === secret.value ? secret.value : 'another');
} catch (error) {
  if (error instanceof SecretSidecarError) process.stdout.write(error.reason);
} finally {
  await client.close();
}
`,
};

try {
  const sidecar = new FakeSidecar();
  sidecar.set('secret/data/mysec/api_key', 'it works');
  process.env.SOCKET = join(dir, 's.sock');
  execFileSync('npm', ['pack', '--silent', '--pack-destination', dir], { cwd: here, stdio: ['ignore', 'ignore', 'inherit'] });
  const tarball = readdirSync(dir).find((name) => name.endsWith('.tgz'));
  assert.ok(tarball);
  writeFileSync(join(dir, 'package.json'), '{"private": true}\n');
  run('npm', 'install', '--no-audit', '--no-fund', '--silent', `./${tarball}`);
  for (const [name, text] of Object.entries(uses)) writeFileSync(join(dir, name), text);
  run(join(here, 'node_modules/.bin/tsc'), '--strict', '--module', 'nodenext', '--target', 'es2022', '--skipLibCheck', 'false',
    '--typeRoots', join(here, 'node_modules/@types'), '--types', 'node', 'strict.mts');
  run(join(here, 'node_modules/.bin/esbuild'), 'esm.mjs', '--bundle', '--platform=node', '--format=esm', '--outfile=bundle.mjs',
    "--banner:js=import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);");
  await sidecar.listen(process.env.SOCKET);
  for (const name of ['esm.mjs', 'cjs.cjs', 'strict.mjs', 'bundle.mjs', 'thread.mjs']) {
    // The sidecar is in this process, which must go on while the other one asks.
    const said = await new Promise((resolve, reject) => {
      let text = '';
      const child = spawn(process.execPath, [name], { cwd: dir, stdio: ['ignore', 'pipe', 'inherit'] });
      child.stdout.on('data', (more) => { text += more; });
      child.on('close', (code) => (code === 0 ? resolve(text) : reject(new Error(`${name} ended with ${code}`))));
    });
    assert.equal(said, 'it works', name);
    console.log(`${name}: ${said}`);
  }
  sidecar.stop();
  const packages = JSON.parse(run('npm', 'query', '*')).filter(({ name }) => name);
  console.log(`${packages.length} packages, ${run('du', '-sm', 'node_modules').split('\t')[0]} MB`);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
