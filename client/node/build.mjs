// Compiles src/ into dist/esm and dist/cjs.
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';

const tsc = (...options) => execFileSync('node_modules/.bin/tsc', options, { stdio: 'inherit' });

rmSync('dist', { recursive: true, force: true });
tsc();
// TypeScript takes the kind of a module from the package.json next to its output.
mkdirSync('dist/cjs', { recursive: true });
tsc('--outDir', 'dist/cjs', '--module', 'CommonJS', '--moduleResolution', 'Node10', '--ignoreDeprecations', '5.0');
writeFileSync('dist/cjs/package.json', '{"type": "commonjs"}\n');
