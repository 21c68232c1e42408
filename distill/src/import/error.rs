//! Why a file is no student.

use ampoule_distill_kernels::graph::GraphError;
use ampoule_quantize::graph::GraphError as SourceError;
use ampoule_quantize::import::ImportError;
use thiserror::Error;

/// Why an ONNX file can't be trained.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StudentError {
    /// A file that can't be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A model that contradicts itself.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An operator, or a use of it, that training does not have.
    #[error("node `{node}`: training has no {operator}{}", following(what))]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Name of the operator.
        operator: String,
        /// Which use of it.
        what: String,
    },
    /// A layer that does not fit.
    #[error(transparent)]
    Layer(#[from] GraphError),
}

/// What follows a name, if anything.
fn following(what: &str) -> String {
    match what {
        "" => String::new(),
        what => format!(" {what}"),
    }
}
