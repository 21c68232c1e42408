//! Writing models as ONNX files, for other tools and for import.

mod graph;
mod onnx;

pub use graph::{Unwritable, graph_to_onnx};
pub use onnx::{Attribute, Dim, OPSET, OnnxGraph};
