//! What can go wrong with networks and their weights.

use std::io;
use std::path::PathBuf;

use ampoule_distill_kernels::graph::GraphError;
use ampoule_quantize::import::ImportError;
use thiserror::Error;

use super::config::STRIDE;

/// Most names that a message lists.
const LISTED: usize = 4;

/// Why a network can't be built, or does not take some weights.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ZooError {
    /// An input size that the stages can't halve.
    #[error("input size {size}: it must be a multiple of {STRIDE}{}", nearest(*size))]
    Size {
        /// Height and width.
        size: usize,
    },
    /// Windows for a network that has its own, or of no size.
    #[error("windows can be set for MOAT, with sides from 1; TinyViT's follow from the input size")]
    Windows,
    /// A width that heads do not divide.
    #[error("{width} channels are no multiple of the head size {head_size}")]
    Heads {
        /// Channels of a stage with attention.
        width: usize,
        /// Channels per head.
        head_size: usize,
    },
    /// A network that gives nothing, where a tower needs a map or a vector.
    #[error("the network has no output")]
    NoOutput,
    /// Layers that do not go together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Weights that can't be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is no safetensors file.
    #[error("`{path}` is no safetensors file, or a truncated one: {what}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An ONNX file whose weights can't be read.
    #[error(transparent)]
    Onnx(#[from] ImportError),
    /// A tensor of an element type that weights don't have.
    #[error("tensor `{name}` holds {found}; weights are F32, F16 or BF16")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A tensor whose shape is another.
    #[error("tensor `{name}` has shape {found:?} where the network has {expected:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// Parameters that the file does not have.
    #[error("{} of the network's {total} tensors are not in the file: {}", .names.len(), listed(.names))]
    Missing {
        /// The parameters.
        names: Vec<String>,
        /// How many the network has.
        total: usize,
    },
    /// Tensors of the file that the network does not have.
    #[error("the file has {} that the network does not have: {}", tensors(.names), listed(.names))]
    Extra {
        /// The tensors.
        names: Vec<String>,
    },
}

fn nearest(size: usize) -> String {
    match size / STRIDE * STRIDE {
        0 => format!(", {STRIDE} at least"),
        below => format!(", for example {below} or {}", below.saturating_add(STRIDE)),
    }
}

fn tensors(names: &[String]) -> String {
    match names.len() {
        1 => "a tensor".to_owned(),
        n => format!("{n} tensors"),
    }
}

fn listed(names: &[String]) -> String {
    let first: Vec<String> = names
        .iter()
        .take(LISTED)
        .map(|n| format!("`{n}`"))
        .collect();
    let rest = if names.len() > LISTED { ", …" } else { "" };
    first.join(", ") + rest
}
