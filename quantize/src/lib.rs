//! From a float ONNX model to a sealed int8 ampoule.

#![forbid(unsafe_code)]

pub mod calibrate;
pub mod compare;
pub mod data;
pub mod export;
pub mod graph;
pub mod import;
pub mod lower;
pub mod merge;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod passes;
pub mod pipeline;
pub mod plan;
pub mod program;
pub mod prune;
pub mod scheme;
pub mod seal;
