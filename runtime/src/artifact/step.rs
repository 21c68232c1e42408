//! The program: one postcard record per step, in execution order.
//!
//! Tensors are named by their index in the tensor table, constants by their place in the weights
//! section. The variant order of [`Step`] is part of the file format: new operators go at the end.

use serde::{Deserialize, Serialize};

use crate::ops::Window;
use crate::ops::attention::{BiasLayout, Geometry};
use crate::ops::binary::BinaryKind;
use crate::ops::copy::Strided;
use crate::ops::merge::Matching;
use crate::ops::pool::PoolKind;
use crate::ops::reduce::ReduceKind;
use crate::ops::resize::{Coordinates, Interpolation};
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, TensorId};

/// Bytes of the weights section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// First byte, relative to the section; a multiple of 64.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// One operation of the program.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Step {
    /// Convolution or linear layer; the type of `x` (i8, i16, f32) selects the arithmetic.
    Conv(Conv),
    /// Depthwise convolution, likewise.
    Depthwise(Conv),
    /// Element-wise function as a 256-entry table, i8 to i8.
    Table {
        /// Input.
        x: TensorId,
        /// Output; may be the input's memory.
        y: TensorId,
        /// 256 codes, indexed by the input code's bits.
        table: Blob,
    },
    /// Element-wise function, f32.
    Unary {
        /// Input.
        x: TensorId,
        /// Output; may be the input's memory.
        y: TensorId,
        /// Which.
        kind: UnaryKind,
    },
    /// Element-wise operation of two tensors with broadcasting.
    Binary(Binary),
    /// Pooling over an NHWC map.
    Pool {
        /// Input.
        x: TensorId,
        /// Output.
        y: TensorId,
        /// Maximum or average.
        kind: PoolKind,
        /// Geometry.
        window: Window,
        /// Whether an average counts padding as zeros.
        include_pad: bool,
    },
    /// Reduction over axes.
    Reduce {
        /// Input.
        x: TensorId,
        /// Output; the reduced axes have size 1.
        y: TensorId,
        /// Which.
        kind: ReduceKind,
        /// Bit `i` set: axis `i` is reduced.
        axes: u8,
    },
    /// Softmax over the last axis.
    Softmax {
        /// Input.
        x: TensorId,
        /// Output; may be the input's memory.
        y: TensorId,
        /// Logarithm of it (f32 only).
        log: bool,
        /// 256 u32 exponentials for i8 input.
        table: Option<Blob>,
    },
    /// Normalisation over the last axis: f32, or i8 or i16 to i8.
    LayerNorm {
        /// Input.
        x: TensorId,
        /// Output; may be the input's memory.
        y: TensorId,
        /// f32 gain per channel; for integers over the scale of the output.
        gain: Blob,
        /// f32 offset per channel; for integers over the scale of the output.
        offset: Blob,
        /// Added to the variance; for integers times (channels / scale of the input)².
        epsilon: f32,
    },
    /// Strided data movement: transpose, slice, concatenate, broadcast, reshape.
    Copy {
        /// Input.
        x: TensorId,
        /// Output.
        y: TensorId,
        /// Which elements go where.
        map: Strided,
    },
    /// Sets every element of a tensor to one value.
    Fill {
        /// Output.
        y: TensorId,
        /// The element's bits, little-endian, in the low bytes.
        bits: u32,
    },
    /// Resizes height and width of an NHWC map.
    Resize {
        /// Input.
        x: TensorId,
        /// Output; same type and quantisation.
        y: TensorId,
        /// Filter.
        interpolation: Interpolation,
        /// Position mapping.
        coordinates: Coordinates,
    },
    /// Batched product of two f32 or i8 tensors, `[.., M, K] · [.., K, N]`.
    MatMul {
        /// Left operand.
        a: TensorId,
        /// Right operand.
        b: TensorId,
        /// Output.
        y: TensorId,
    },
    /// Change of type or quantisation, element by element.
    Convert {
        /// Input.
        x: TensorId,
        /// Output; may be the input's memory where the element size is equal.
        y: TensorId,
    },
    /// Attention over strided views, f32 or i8.
    Attention(Attention),
    /// Slices of `x` along an axis, one for each i32 index.
    Gather {
        /// Input, often a constant table.
        x: TensorId,
        /// i32 indices of any shape, which replaces the axis in the output's shape.
        indices: TensorId,
        /// Output; same type and quantisation as the input.
        y: TensorId,
        /// Axis.
        axis: u8,
    },
    /// Index of the largest element along an axis.
    ArgMax {
        /// Input (i8, i32 or f32).
        x: TensorId,
        /// i32 output; the axis has size 1.
        y: TensorId,
        /// Axis.
        axis: u8,
        /// Of equal elements the last instead of the first.
        last: bool,
    },
    /// Place of each token after the merging of similar ones.
    Match {
        /// Tensor that holds the keys, i8 or f32.
        k: TensorId,
        /// Output: i32, one per token.
        y: TensorId,
        /// Sizes and where keys are.
        matching: Matching,
        /// Working memory.
        scratch: TensorId,
    },
    /// Means of the tokens that share a place, or sums of their sizes.
    Merge {
        /// Input: rows of i8, i16 or f32 along the last axis; without `sizes` i32 sizes.
        x: TensorId,
        /// i32 place of each row.
        places: TensorId,
        /// i32 weight of each row.
        sizes: Option<TensorId>,
        /// Output; same type and quantisation as the input.
        y: TensorId,
    },
    /// Attention whose keys stand for several tokens each.
    WeightedAttention {
        /// The attention, without a bias.
        attention: Attention,
        /// i32 number of tokens per key.
        sizes: TensorId,
    },
    /// Linear layer, i8, of whose weights only blocks are stored.
    Sparse {
        /// The layer, a point window; its weights are those of the blocks, four bytes each.
        layer: Conv,
        /// u32 number of each output channel's first block, then the number of all.
        starts: Blob,
        /// u16 input channel over 4 of each block.
        quads: Blob,
    },
}

/// Operands of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Tensor that holds the queries.
    pub q: TensorId,
    /// Tensor that holds the keys; may be the same one.
    pub k: TensorId,
    /// Tensor that holds the values; may be the same one.
    pub v: TensorId,
    /// Output.
    pub y: TensorId,
    /// Sizes and views.
    pub geometry: Geometry,
    /// Octaves per unit of a score: `scale · log2 e`, for i8 times both scales.
    pub multiplier: f32,
    /// Added to the scores: f32, in octaves.
    pub bias: Option<(Blob, BiasLayout)>,
    /// Working memory.
    pub scratch: TensorId,
}

/// Operands of a (depthwise) convolution or linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Input: NHWC, or any shape whose last axis is the channels for a 1×1 window.
    pub x: TensorId,
    /// Output.
    pub y: TensorId,
    /// Geometry.
    pub window: Window,
    /// Packed weights, with [`crate::ops::conv::WEIGHT_SLACK`] bytes of slack counted in.
    pub weights: Blob,
    /// Type of the weights: i8 for i8 and i16 activations, f32 or f16 for f32.
    pub weight_type: DType,
    /// Bias (i32 or f32), padded to a multiple of 16 channels.
    pub bias: Blob,
    /// i32 weight sums (i8 only), padded likewise.
    pub sums: Option<Blob>,
    /// f32 requantisation multipliers (integer only), padded likewise.
    pub multipliers: Option<Blob>,
    /// Zero point of the result before the table; 0 for float.
    pub zero: i32,
    /// Lower clamp: a code for integers, a value for float.
    pub lo: f32,
    /// Upper clamp.
    pub hi: f32,
    /// Code-to-code table applied last (i8 only).
    pub table: Option<Blob>,
    /// Addend of the output's shape, with its multiplier (unused for float).
    pub residual: Option<(TensorId, f32)>,
    /// Working memory, a tensor that lives only during this step. With it a depthwise convolution may
    /// write into its input's memory: see [`crate::ops::depthwise::in_place_bytes`].
    pub scratch: Option<TensorId>,
}

/// Operands of an element-wise operation of two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Binary {
    /// Which.
    pub kind: BinaryKind,
    /// Left operand.
    pub a: TensorId,
    /// Right operand.
    pub b: TensorId,
    /// Output; may be the memory of an operand of the same shape.
    pub y: TensorId,
    /// Zero point of the result before the table; 0 for float.
    pub zero: i32,
    /// Lower clamp: a code for integers, a value for float.
    pub lo: f32,
    /// Upper clamp.
    pub hi: f32,
    /// Scale of the result before the table; 1 for float.
    pub scale: f32,
    /// Code-to-code table applied last (i8 only).
    pub table: Option<Blob>,
}

impl Step {
    /// Name of the operator.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Conv(_) => "Conv",
            Step::Depthwise(_) => "Depthwise",
            Step::Table { .. } => "Table",
            Step::Unary { kind, .. } => kind.name(),
            Step::Binary(b) => b.kind.name(),
            Step::Pool { kind, .. } => kind.name(),
            Step::Reduce { kind, .. } => kind.name(),
            Step::Softmax { .. } => "Softmax",
            Step::LayerNorm { .. } => "LayerNorm",
            Step::Copy { .. } => "Copy",
            Step::Fill { .. } => "Fill",
            Step::Resize { .. } => "Resize",
            Step::MatMul { .. } => "MatMul",
            Step::Convert { .. } => "Convert",
            Step::Attention(_) => "Attention",
            Step::Gather { .. } => "Gather",
            Step::ArgMax { .. } => "ArgMax",
            Step::Match { .. } => "Match",
            Step::Merge { .. } => "Merge",
            Step::WeightedAttention { .. } => "WeightedAttention",
            Step::Sparse { .. } => "Sparse",
        }
    }

    /// The tensor written.
    pub fn output(&self) -> TensorId {
        match *self {
            Step::Conv(Conv { y, .. })
            | Step::Depthwise(Conv { y, .. })
            | Step::Sparse {
                layer: Conv { y, .. },
                ..
            }
            | Step::Binary(Binary { y, .. })
            | Step::Attention(Attention { y, .. })
            | Step::WeightedAttention {
                attention: Attention { y, .. },
                ..
            } => y,
            Step::Table { y, .. }
            | Step::Unary { y, .. }
            | Step::Pool { y, .. }
            | Step::Reduce { y, .. }
            | Step::Softmax { y, .. }
            | Step::LayerNorm { y, .. }
            | Step::Copy { y, .. }
            | Step::Fill { y, .. }
            | Step::Resize { y, .. }
            | Step::MatMul { y, .. }
            | Step::Convert { y, .. }
            | Step::Gather { y, .. }
            | Step::ArgMax { y, .. }
            | Step::Match { y, .. }
            | Step::Merge { y, .. } => y,
        }
    }

    /// The tensors read: up to four, scratch excluded.
    pub fn inputs(&self) -> [Option<TensorId>; 4] {
        match *self {
            Step::Conv(c) | Step::Depthwise(c) | Step::Sparse { layer: c, .. } => {
                [Some(c.x), c.residual.map(|(t, _)| t), None, None]
            }
            Step::Binary(Binary { a, b, .. }) | Step::MatMul { a, b, .. } => {
                [Some(a), Some(b), None, None]
            }
            Step::Attention(Attention { q, k, v, .. }) => [Some(q), Some(k), Some(v), None],
            Step::WeightedAttention {
                attention: Attention { q, k, v, .. },
                sizes,
            } => [Some(q), Some(k), Some(v), Some(sizes)],
            Step::Gather { x, indices, .. } => [Some(x), Some(indices), None, None],
            Step::Match { k, .. } => [Some(k), None, None, None],
            Step::Merge {
                x, places, sizes, ..
            } => [Some(x), Some(places), sizes, None],
            Step::Fill { .. } => [None; 4],
            Step::Table { x, .. }
            | Step::Unary { x, .. }
            | Step::Pool { x, .. }
            | Step::Reduce { x, .. }
            | Step::Softmax { x, .. }
            | Step::LayerNorm { x, .. }
            | Step::Copy { x, .. }
            | Step::Resize { x, .. }
            | Step::ArgMax { x, .. }
            | Step::Convert { x, .. } => [Some(x), None, None, None],
        }
    }

    /// The working memory.
    pub fn scratch(&self) -> Option<TensorId> {
        match self {
            Step::Conv(c) | Step::Depthwise(c) | Step::Sparse { layer: c, .. } => c.scratch,
            Step::Attention(a) | Step::WeightedAttention { attention: a, .. } => Some(a.scratch),
            Step::Match { scratch, .. } => Some(*scratch),
            _ => None,
        }
    }

    /// The operand whose memory the output may take over, when type and size agree.
    pub fn in_place_operand(&self) -> Option<TensorId> {
        match *self {
            Step::Table { x, .. }
            | Step::Unary { x, .. }
            | Step::LayerNorm { x, .. }
            | Step::Convert { x, .. }
            | Step::Softmax {
                x, table: Some(_), ..
            } => Some(x),
            Step::Binary(Binary { a, .. }) => Some(a),
            Step::Depthwise(Conv { x, scratch, .. }) => scratch.map(|_| x),
            Step::Copy { x, map, .. } => map.is_identity().then_some(x),
            _ => None,
        }
    }
}
