//! Why a graph can't be written.

use ampoule_distill_kernels::graph::GraphError;
use thiserror::Error;

/// Why a graph can't be written as ONNX.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Values for another number of parameters.
    #[error("values for {got} parameters, the graph has {expected}")]
    Count {
        /// What the graph has.
        expected: usize,
        /// How many there are values for.
        got: usize,
    },
    /// A parameter with another number of values.
    #[error("parameter `{name}` has {expected} elements, got {got} values")]
    Length {
        /// The parameter.
        name: String,
        /// Its number of elements.
        expected: usize,
        /// Number of values.
        got: usize,
    },
    /// A layer that this version can't write.
    #[error("layer `{layer}`: there is no ONNX form of {op}")]
    Unsupported {
        /// The layer.
        layer: String,
        /// What it computes.
        op: String,
    },
    /// A graph whose norms can't be folded.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
