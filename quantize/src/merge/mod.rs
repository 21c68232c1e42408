//! Merging weights into an ONNX file: adapters ([`lora`]) and other training runs of the same network
//! ([`average`]).
//!
//! Only initialisers change. Everything else of the file stays byte for byte as it was, so the merged model has
//! the base's nodes, names and metadata.

mod adapter;
mod average;
mod error;
mod file;
mod layers;
mod lora;
mod wire;

pub use adapter::{Adapter, LowRank};
pub use average::average;
pub use error::MergeError;
pub use file::OnnxFile;
pub use lora::{Merged, lora};
