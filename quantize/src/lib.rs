//! From a float ONNX model to a sealed int8 ampoule.

#![forbid(unsafe_code)]

pub mod graph;
