// wasm.mjs: runs a WASI program in node. Usage: node --no-warnings tests/wasm.mjs PROGRAM [ARGUMENT]
import { WASI } from 'node:wasi';
import fs from 'node:fs';

const args = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args, returnOnExit: true });
const code = await WebAssembly.compile(fs.readFileSync(args[0]));
process.exitCode = wasi.start(await WebAssembly.instantiate(code, wasi.getImportObject()));
