//! Import and passes on fixtures: structure, parity with the oracle, bad input.

mod bad_input;
mod experts;
mod families;
mod fixtures;
mod int8;
mod interpret;
mod node_cases;
mod passes;
mod protobuf;
mod prune;
mod quantised;
mod tflite;
