//! Why a model cannot be imported.

use std::io;

use thiserror::Error;

use crate::graph::GraphError;

/// Operator set versions that import accepts.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=26;

/// A model that cannot be imported: which file, and why.
#[derive(Debug, Error)]
#[error("{file}: {problem}")]
pub struct ImportError {
    /// Path of the model, or a name for bytes in memory.
    pub file: String,
    /// What is wrong.
    #[source]
    pub problem: Box<Problem>,
}

/// What is wrong with a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The bytes are not an ONNX model, or only the beginning of one.
    #[error("not an ONNX model, or a truncated one: {0}")]
    NotOnnx(String),
    /// A file of another kind that is known.
    #[error("is {0}; expected an ONNX model")]
    OtherKind(&'static str),
    /// The bytes are not a TFLite model, or only a part of one.
    #[error("not a TFLite model, or a damaged one: {0}")]
    NotTflite(String),
    /// Unknown operator set version.
    #[error(
        "uses ONNX operator set {found}; supported are {} to {}. Convert it with onnx.version_converter, or export it again",
        OPSETS.start(),
        OPSETS.end()
    )]
    Opset {
        /// Version that the model names, 0 if none.
        found: i64,
    },
    /// Weights outside the model file that must not, or cannot, be read.
    #[error("weights of `{tensor}` in external file `{location}`: {what}")]
    ExternalData {
        /// Name of the tensor.
        tensor: String,
        /// Location as the model gives it.
        location: String,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor whose size is absurd or disagrees with its data.
    #[error("tensor `{tensor}` with dimensions {dims:?}: {what}")]
    Tensor {
        /// Name of the tensor, or of the node that would make it.
        tensor: String,
        /// Its dimensions.
        dims: Vec<i64>,
        /// What is wrong with it.
        what: String,
    },
    /// An input with dimensions that nothing fixes.
    #[error(
        "input `{input}` has shape {shape}: give its size, for example `--input-shape {input}:1,3,224,224`"
    )]
    DynamicShape {
        /// Name of the input.
        input: String,
        /// Its shape, with the names of unknown dimensions.
        shape: String,
    },
    /// A given input shape that does not fit the model.
    #[error("input shape {given:?} for `{input}`: {what}")]
    InputShape {
        /// Name of the input.
        input: String,
        /// Shape that the caller gives.
        given: Vec<usize>,
        /// What is wrong with it.
        what: String,
    },
    /// An operator, or a use of it, that has no counterpart.
    #[error(
        "node `{node}`: operator {operator} is not supported: {what}; operand shapes {shapes:?}"
    )]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Name of the operator.
        operator: String,
        /// Which part of it, and what to try.
        what: String,
        /// Shapes of its operands.
        shapes: Vec<String>,
    },
    /// A model that contradicts itself or the specification of its format.
    #[error("invalid model, found while {stage}: {what}")]
    Invalid {
        /// What import was doing.
        stage: &'static str,
        /// What it found.
        what: String,
    },
    /// The lowered graph breaks a rule.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl Problem {
    pub(crate) fn of(self, file: &str) -> ImportError {
        ImportError {
            file: file.to_owned(),
            problem: Box::new(self),
        }
    }
}
