//! The command line as its users meet it: the built program on the files of `tests/fixtures`.
//!
//! What it prints as a table and as JSON agree; equal input gives equal bytes, on every instruction
//! set; bad input gives an error that says what, where and what to try, and leaves nothing behind.
#![allow(missing_docs)]

mod artifacts;
mod commands;
mod distill;
mod help;
mod images;
mod merge;
mod models;
mod outputs;
mod packed;
mod pairs;
mod png;
mod program;
#[allow(dead_code)]
#[path = "../../quantize/tests/import/protobuf.rs"]
mod protobuf;
mod prune;
mod quantised;
mod reports;
mod same;
mod teach;
mod zoo;
