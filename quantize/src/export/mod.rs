//! Writing models as ONNX files, for other tools and for import.

mod onnx;

pub use onnx::{Attribute, Dim, OPSET, OnnxGraph};
