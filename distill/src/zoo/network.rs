//! A network as it is trained: its graph, what its parameters are for, and what each part costs.

use ampoule_distill_kernels::graph::{Graph, Node, Op, Parameter};
use serde::Serialize;

/// A network without weights.
///
/// Its [`Graph`] is the one definition of it: training runs it, and [`export`](crate::export) writes it as
/// ONNX. Layers carry PyTorch's names and parameter shapes: `conv.weight[O, I/groups, k, k]`,
/// `linear.weight[O, I]`, `bn.{weight, bias, running_mean, running_var}`.
#[derive(Debug, Clone)]
pub struct Network {
    pub(super) graph: Graph,
    /// Of each parameter.
    pub(super) roles: Vec<Role>,
    pub(super) parts: Vec<Part>,
}

/// What a parameter does, which decides its first value and whether it can be resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Kernel of a convolution; whether its input comes from an activation.
    Kernel {
        /// It does.
        activated: bool,
    },
    /// Weights of a linear layer.
    Matrix,
    /// Rows for tokens or positions.
    Embedding,
    /// Added to a layer's result.
    Bias,
    /// Multiplied by a norm.
    Gain,
    /// Gain of the norm that ends a residual branch: training starts without the branch.
    LastGain,
    /// Gain of a norm that is subtracted: training starts from −1.
    NegativeGain,
    /// Factor per channel of a residual branch, which training starts from 10⁻⁵.
    LayerScale,
    /// Added by a norm.
    Offset,
    /// Running mean of a batch norm; not trained.
    Mean,
    /// Running variance of a batch norm; not trained.
    Variance,
    /// Position biases per head over a square of absolute offsets (TinyViT); resized bicubically.
    Table,
    /// Position biases per head over a square of signed offsets (MOAT); resized bilinearly.
    SignedTable {
        /// Side of the published square, which parameter counts are of.
        published: usize,
    },
}

/// A part of a network and its cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Prefix of its parameters.
    pub name: String,
    /// What it is made of.
    pub operator: String,
    /// Shape of its result, without batch, channels first.
    pub output: Vec<usize>,
    /// Trained parameters.
    pub parameters: u64,
    /// Multiply-accumulates of convolutions and matrix products for one picture.
    pub macs: u64,
}

impl Network {
    /// Its layers. The input is a picture `[H, W, 3]`, the output `[1, 1, classes]`.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Parameters and statistics, in execution order.
    pub fn parameters(&self) -> &[Parameter] {
        self.graph.parameters()
    }

    /// What each parameter is for.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Parts, in execution order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Number of trained parameters. Position tables count with their published size, whatever map they
    /// are resized to.
    pub fn parameter_count(&self) -> u64 {
        count(self.graph.parameters(), &self.roles)
    }

    /// Multiply-accumulates of convolutions and matrix products for one picture.
    pub fn macs(&self) -> u64 {
        self.graph
            .nodes()
            .iter()
            .map(|n| macs(&self.graph, n))
            .sum()
    }
}

/// Trained elements of parameters.
pub(super) fn count(parameters: &[Parameter], roles: &[Role]) -> u64 {
    let one = |(p, role): (&Parameter, &Role)| match role {
        Role::Mean | Role::Variance => 0,
        Role::SignedTable { published } => p.shape[0] * published * published,
        _ => p.len(),
    };
    parameters.iter().zip(roles).map(one).sum::<usize>() as u64
}

/// Multiply-accumulates of a layer for one sample.
pub(super) fn macs(graph: &Graph, node: &Node) -> u64 {
    let out = graph.map(node.output);
    let macs = match &node.op {
        Op::Conv { weight, .. } | Op::Depthwise { weight, .. } => {
            out.pixels() * graph.parameters()[weight.0].len()
        }
        Op::Attention(a) => {
            let window = a.window.unwrap_or([out.height, out.width]);
            2 * out.len() * window[0] * window[1]
        }
        _ => 0,
    };
    macs as u64
}
