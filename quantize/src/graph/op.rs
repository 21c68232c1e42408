//! Operators of the float graph.

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::attention::Geometry;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::merge::Matching;
use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;

use crate::calibrate::QParams;

/// A function fused behind an operator.
pub type Activation = Option<UnaryKind>;

/// What a node does. Shapes: `N` batch, `H W` map, `C` channels.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Convolution. Inputs: `x[N,H,W,C]`, constant weights `[O,kh,kw,C/groups]`, constant bias `[O]`,
    /// and, when `residual` is set, an addend of the output's shape that is added before the activation.
    Conv {
        /// Window geometry.
        window: Window,
        /// Channel groups; `groups == C == O` is depthwise.
        groups: usize,
        /// Whether a fourth input is added.
        residual: bool,
        /// Fused activation.
        activation: Activation,
    },
    /// Linear layer. Inputs: `x[.., C]`, constant weights `[O, C]`, constant bias `[O]`, and the addend
    /// when `residual` is set.
    Linear {
        /// Whether a fourth input is added.
        residual: bool,
        /// Fused activation.
        activation: Activation,
    },
    /// Batched product of two activations: `a[.., M, K] · b[.., K, N]`, leading dimensions broadcast.
    MatMul,
    /// Element-wise operation with right-aligned broadcasting of the two inputs.
    Binary {
        /// Which.
        kind: BinaryKind,
        /// Fused activation.
        activation: Activation,
    },
    /// Element-wise function of one input.
    Unary(UnaryKind),
    /// The source stores its input as int8 codes with these parameters. In float it passes its input on;
    /// [`crate::scheme::from_source`] takes the parameters over and removes it.
    Quantize(QParams),
    /// Pooling over `x[N,H,W,C]`.
    Pool {
        /// Maximum or average.
        kind: PoolKind,
        /// Window geometry.
        window: Window,
        /// Whether an average counts the padding as zeros.
        include_pad: bool,
    },
    /// Reduction over axes, which stay as dimensions of size 1.
    Reduce {
        /// Which.
        kind: ReduceKind,
        /// Axes, ascending.
        axes: Vec<usize>,
    },
    /// Softmax over the last axis.
    Softmax {
        /// Logarithm of it instead.
        log: bool,
    },
    /// Normalisation over the last axis. Inputs: `x[.., C]`, constant gain `[C]`, constant offset `[C]`.
    LayerNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// Same elements in another shape.
    Reshape(Vec<usize>),
    /// Output dimension `i` is input dimension `perm[i]`.
    Transpose(Vec<usize>),
    /// `len` elements from `start` along `axis`, `step` apart (negative steps run backwards).
    Slice {
        /// Axis.
        axis: usize,
        /// First index.
        start: usize,
        /// Number of indices.
        len: usize,
        /// Distance between indices.
        step: isize,
    },
    /// Inputs one after the other along `axis`.
    Concat {
        /// Axis.
        axis: usize,
    },
    /// Constant padding, per dimension before and after.
    Pad {
        /// Elements before, per dimension.
        before: Vec<usize>,
        /// Elements after, per dimension.
        after: Vec<usize>,
        /// Value of the padding.
        value: f32,
    },
    /// Repeats dimensions of size 1 to the given shape.
    Broadcast(Vec<usize>),
    /// Slices of the first input, one for each index in the second: `x[A.., axis, B..]` by `i[I..]` is
    /// `[A.., I.., B..]`. Embedding tables (constant `x`) and the pick of one token.
    Gather {
        /// Axis that the indices count along.
        axis: usize,
    },
    /// Index of the largest element along an axis, which stays as a dimension of size 1. The result holds
    /// indices.
    ArgMax {
        /// Axis.
        axis: usize,
        /// Of equal elements the last instead of the first.
        last: bool,
    },
    /// Resizes height and width of `x[N,H,W,C]`.
    Resize {
        /// Output height and width.
        size: [usize; 2],
        /// Filter.
        mode: ResizeMode,
        /// How output positions map to input positions.
        coordinates: ResizeCoordinates,
    },
    /// `softmax(scale · q·kᵀ + bias) · v` for each outer index. Inputs: the tensors that the views of
    /// queries, keys and values address, and, when `bias` is set, a constant `[outer.., queries, keys]`
    /// of rank 6 whose outer dimensions may be 1, or, when `sizes` is set, the number of tokens `[keys]`
    /// that each key stands for: `ln(size)` is added to its scores.
    Attention(Box<Attention>),
    /// The place of each token after similar ones have merged. Input: the tensor that holds the keys. The
    /// result `[tokens]` holds indices.
    Match(Matching),
    /// Means of the tokens that share a place, weighted by size. Inputs: `x` of any shape with one
    /// dimension of all tokens in front of the channels and else 1, places and sizes, one per token.
    /// Without sizes the sums of `x[tokens]`, which are sizes themselves.
    Merge {
        /// Tokens that are left.
        left: usize,
    },
}

/// Attributes of [`Op::Attention`].
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Sizes and views.
    pub geometry: Geometry,
    /// Multiplies the scores.
    pub scale: f32,
    /// Whether a fourth input is added to the scaled scores.
    pub bias: bool,
    /// Whether the last input is the number of tokens per key.
    pub sizes: bool,
    /// Shape of the result.
    pub shape: Vec<usize>,
}

/// Kind of a reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReduceKind {
    /// Mean.
    Mean,
    /// Sum.
    Sum,
    /// Maximum.
    Max,
    /// Minimum.
    Min,
}

/// Filter of [`Op::Resize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResizeMode {
    /// Nearest neighbour, ties towards the lower index (ONNX `round_prefer_floor`) or floor.
    Nearest {
        /// Take the floor of the position instead of rounding it.
        floor: bool,
    },
    /// Bilinear.
    Linear,
}

/// Mapping from output to input positions of [`Op::Resize`], as ONNX names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResizeCoordinates {
    /// `(o + 0.5) · in/out − 0.5`.
    HalfPixel,
    /// `o · (in − 1)/(out − 1)`.
    AlignCorners,
    /// `o · in/out`.
    Asymmetric,
}

impl Op {
    /// Short name for tables and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv { .. } => "Conv",
            Op::Linear { .. } => "Linear",
            Op::MatMul => "MatMul",
            Op::Binary { kind, .. } => kind.name(),
            Op::Unary(kind) => kind.name(),
            Op::Pool { kind, .. } => kind.name(),
            Op::Reduce {
                kind: ReduceKind::Mean,
                ..
            } => "ReduceMean",
            Op::Reduce {
                kind: ReduceKind::Sum,
                ..
            } => "ReduceSum",
            Op::Reduce {
                kind: ReduceKind::Max,
                ..
            } => "ReduceMax",
            Op::Reduce {
                kind: ReduceKind::Min,
                ..
            } => "ReduceMin",
            Op::Softmax { log: false } => "Softmax",
            Op::Softmax { log: true } => "LogSoftmax",
            Op::LayerNorm { .. } => "LayerNorm",
            Op::Quantize(_) => "Quantize",
            Op::Reshape(_) => "Reshape",
            Op::Transpose(_) => "Transpose",
            Op::Slice { .. } => "Slice",
            Op::Concat { .. } => "Concat",
            Op::Pad { .. } => "Pad",
            Op::Broadcast(_) => "Broadcast",
            Op::Gather { .. } => "Gather",
            Op::ArgMax { .. } => "ArgMax",
            Op::Resize { .. } => "Resize",
            Op::Attention(_) => "Attention",
            Op::Match(_) => "Match",
            Op::Merge { .. } => "Merge",
        }
    }

    /// Whether it only moves data, so that its result holds what its first input holds.
    pub fn moves(&self) -> bool {
        matches!(
            self,
            Op::Reshape(_)
                | Op::Transpose(_)
                | Op::Slice { .. }
                | Op::Concat { .. }
                | Op::Broadcast(_)
        )
    }

    /// The activation fused behind the operator.
    pub fn activation(&self) -> Activation {
        match self {
            Op::Conv { activation, .. }
            | Op::Linear { activation, .. }
            | Op::Binary { activation, .. } => *activation,
            _ => None,
        }
    }

    /// The slot of the fused activation, where the operator has one.
    pub fn activation_mut(&mut self) -> Option<&mut Activation> {
        match self {
            Op::Conv { activation, .. }
            | Op::Linear { activation, .. }
            | Op::Binary { activation, .. } => Some(activation),
            _ => None,
        }
    }
}
