#!/usr/bin/env node
// Runs an int8 artifact in the WebAssembly module: golden vectors, and the hash of `ampoule selftest`.
//
//   node targets/wasm/selftest.mjs ampoule_wasm.wasm model.amp...
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";

const [path, ...models] = process.argv.slice(2);
if (models.length === 0) {
  console.error("usage: selftest.mjs ampoule_wasm.wasm model.amp...");
  process.exit(2);
}
const code = await readFile(path);
const module = await WebAssembly.compile(code);
console.log(`${path}: ${code.length} bytes`);

// The values of `golden_input`, for codes of 8 bits.
function fill(bytes, seed) {
  let state = seed >>> 0;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
}

for (const model of models) {
  const { exports } = await WebAssembly.instantiate(module);
  const at = (start, length) => new Uint8Array(exports.memory.buffer, start, length);
  const file = await readFile(model);
  const address = exports.reserve(file.length);
  at(address, file.length).set(file);
  if (exports.open(address, file.length) !== 0) throw new Error(`${model}: refused`);
  const vectors = exports.self_test();
  if (vectors < 0) throw new Error(`${model}: the outputs differ from the golden vectors`);
  const hash = createHash("sha256");
  for (const seed of [1, 2, 3, 4]) {
    for (let i = 0; exports.input_bytes(i) > 0; i++) {
      fill(at(exports.input(i), exports.input_bytes(i)), seed + i);
    }
    if (exports.run() !== 0) throw new Error(`${model}: run failed`);
    for (let o = 0; exports.output_bytes(o) > 0; o++) {
      hash.update(at(exports.output(o), exports.output_bytes(o)));
    }
  }
  console.log(`${model}: ${vectors} vectors, ${hash.digest("hex").slice(0, 16)}`);
}
