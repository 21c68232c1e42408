#!/usr/bin/env -S node --no-warnings
// Runs a wasm32-wasip1 program: cargo's runner for `cargo test --target wasm32-wasip1`.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, ...args] = process.argv.slice(2);
const wasi = new WASI({
  version: "preview1",
  args: [program, ...args],
  env: process.env,
  preopens: { "/": "/", ".": "." },
});
const module = await WebAssembly.compile(await readFile(program));
// What the C library lacks answers that it is not supported.
const NOT_SUPPORTED = 58;
const missing = WebAssembly.Module.imports(module).filter((i) => i.module === "env");
const env = Object.fromEntries(missing.map((i) => [i.name, () => NOT_SUPPORTED]));
const instance = await WebAssembly.instantiate(module, { ...wasi.getImportObject(), env });
process.exitCode = wasi.start(instance);
