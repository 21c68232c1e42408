//! Why weights can't be merged.

use crate::import::ImportError;

/// What is wrong with a merge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// An ONNX file that can't be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A file that can't be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("`{path}`: {what}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// An adapter without low-rank matrices.
    #[error("`{path}` has no `lora_A` and `lora_B` matrices among its {tensors} tensors")]
    Nothing {
        /// The adapter.
        path: String,
        /// Tensors in it.
        tensors: usize,
    },
    /// A tensor of an adapter that is no low-rank matrix.
    #[error("the adapter's `{tensor}` can't be merged: {what}")]
    Foreign {
        /// Its name.
        tensor: String,
        /// Why not.
        what: &'static str,
    },
    /// One of the two matrices alone.
    #[error("layer `{layer}` has a matrix {has} but no {lacks}")]
    Half {
        /// The layer.
        layer: String,
        /// The matrix that is there.
        has: &'static str,
        /// The one that is not.
        lacks: &'static str,
    },
    /// No scale for a layer.
    #[error(
        "nothing says the alpha of layer `{layer}`: neither the adapter's metadata nor an adapter_config.json beside it"
    )]
    NoAlpha {
        /// The layer.
        layer: String,
    },
    /// A layer that the model does not have.
    #[error("the model has no layer `{layer}`; the nearest of its {layers} is `{nearest}`")]
    NoSuchLayer {
        /// The layer.
        layer: String,
        /// Layers of the model.
        layers: usize,
        /// A name that exists.
        nearest: String,
    },
    /// A layer's name that fits several weights.
    #[error("layer `{layer}` may be any of {candidates:?}")]
    Ambiguous {
        /// The layer.
        layer: String,
        /// Initialisers that it may be.
        candidates: Vec<String>,
    },
    /// A weight that several layers read.
    #[error(
        "the weight `{weight}` of layer `{layer}` is also that of `{other}`, which would change, too"
    )]
    Shared {
        /// The layer.
        layer: String,
        /// Its weight.
        weight: String,
        /// Another node that reads it.
        other: String,
    },
    /// Two layers of an adapter with one weight.
    #[error("layers `{first}` and `{second}` of the adapter both belong to the weight `{weight}`")]
    Twice {
        /// One layer.
        first: String,
        /// The other.
        second: String,
        /// The weight.
        weight: String,
    },
    /// Matrices that do not make a weight's shape.
    #[error(
        "layer `{layer}`: B {b:?} times A {a:?} does not make the weight `{weight}`, which is {shape:?}"
    )]
    Shape {
        /// The layer.
        layer: String,
        /// Shape of B.
        b: Vec<usize>,
        /// Shape of A.
        a: Vec<usize>,
        /// The weight.
        weight: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Numbers that are none.
    #[error("{what} has values that are not finite, or become so")]
    NotFinite {
        /// Of what.
        what: String,
    },
    /// Models that are not of the same graph.
    #[error("`{other}` is not of the same graph: {what}")]
    OtherGraph {
        /// The model.
        other: String,
        /// Where they differ.
        what: String,
    },
    /// Shares that make no mean.
    #[error("the shares of the other models add up to {sum}: expected more than 0 and at most 1")]
    Shares {
        /// Their sum.
        sum: f64,
    },
}
