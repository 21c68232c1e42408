//! Why a graph can't be pruned.

use crate::graph::GraphError;

/// What is wrong with a request to prune.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// A share outside of what can be cut.
    #[error("a share of {share} can't be cut: expected more than 0 and less than 1")]
    Share {
        /// What was given.
        share: f32,
    },
    /// Nothing can be cut.
    #[error(
        "nothing can be cut: {nodes} nodes, but no channels, heads or hidden units that outputs and norms don't need"
    )]
    Nothing {
        /// Nodes of the graph.
        nodes: usize,
    },
    /// A pattern of zeros that leaves nothing or everything.
    #[error("{n} of {m} weights can't stay: expected at least 1 and fewer than {m}")]
    Pattern {
        /// How many were to stay.
        n: usize,
        /// Of how many.
        m: usize,
    },
    /// A layer's name that does not exist.
    #[error("no group of channels is named `{name}`; the nearest is `{nearest}`")]
    NoSuchLayer {
        /// What was given.
        name: String,
        /// A name that exists.
        nearest: String,
    },
    /// A value's name that does not exist.
    #[error("nothing that is computed is named `{name}`; the nearest is `{nearest}`")]
    NoSuchValue {
        /// What was given.
        name: String,
        /// A name that exists.
        nearest: String,
    },
    /// A value of another size.
    #[error("{got} values can't be `{name}`, which is {shape:?}: expected {}, or one for all", shape.iter().product::<usize>())]
    Values {
        /// The value.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many were given.
        got: usize,
    },
    /// A slice with steps over an axis that loses channels.
    #[error("`{node}` takes every other channel of an axis that loses some")]
    Strided {
        /// The slice.
        node: String,
    },
    /// Channels that can't be cut.
    #[error("`{node}` becomes {got:?}, but what reads it expects {expected:?}")]
    Inconsistent {
        /// The node.
        node: String,
        /// Shape by the channels that are cut.
        expected: Vec<usize>,
        /// Shape by its operands.
        got: Vec<usize>,
    },
    /// The graph that is left is not valid.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
