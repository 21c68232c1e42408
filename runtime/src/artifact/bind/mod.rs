//! A step with its shapes, constants and parameters looked up and checked against each other.
//!
//! Verification binds every step once and keeps nothing; execution binds again, which can't fail any
//! more. So one piece of code both decides what is well-formed and feeds the kernels. Where the build has verified
//! the artifact that a program runs ([`Operators::PROVEN`]), the looking up is all that is left of it: the questions
//! are asked through [`rule`].

mod constants;
mod conv;
mod elementwise;
mod lookup;
mod movement;
mod products;
mod rows;
mod sparse;
mod spatial;
mod tokens;

use super::{Artifact, Step};
use crate::operators::{Kind, Operators};
use crate::ops::attention::{AttentionI8, Bias, Geometry};
use crate::ops::binary::{BinaryF32, BinaryI8, BinaryI16, Broadcast};
use crate::ops::conv::{ConvF32, ConvI8};
use crate::ops::copy::Strided;
use crate::ops::depthwise::in_place::InPlace;
use crate::ops::depthwise::{DepthwiseF32, DepthwiseI8};
use crate::ops::matmul::MatMulI8;
use crate::ops::merge::Matching;
use crate::ops::norm;
use crate::ops::pool::{AveragePoolI8, Pool, PoolKind};
use crate::ops::reduce::ReduceKind;
use crate::ops::resize::Resize;
use crate::ops::sparse::SparseI8;
use crate::ops::unary::UnaryKind;
use crate::ops::wide::ConvI16;
use crate::tensor::{DType, Shape, Tensor};

/// A residual operand's zero point and multiplier; its data come from the arena.
pub(crate) type ResidualTerm = Option<(i32, f32)>;

/// A step ready to run.
pub(crate) enum Bound<'m> {
    ConvI8 {
        conv: ConvI8<'m>,
        residual: ResidualTerm,
        batch: usize,
    },
    ConvI16 {
        conv: ConvI16<'m>,
        batch: usize,
    },
    Sparse {
        op: SparseI8<'m>,
        residual: ResidualTerm,
    },
    ConvF32 {
        conv: ConvF32<'m>,
        batch: usize,
    },
    DepthwiseI8 {
        op: DepthwiseI8<'m>,
        residual: ResidualTerm,
        batch: usize,
        in_place: Option<InPlace>,
    },
    DepthwiseF32 {
        op: DepthwiseF32<'m>,
        residual: bool,
        batch: usize,
        in_place: Option<InPlace>,
    },
    Table(&'m [i8; 256]),
    Unary(UnaryKind),
    BinaryI8(BinaryI8<'m>, Broadcast),
    BinaryI16(BinaryI16, Broadcast),
    BinaryF32(BinaryF32, Broadcast),
    Pool {
        kind: PoolKind,
        pool: Pool,
        average: AveragePoolI8,
        dtype: DType,
        batch: usize,
    },
    Reduce {
        kind: ReduceKind,
        axes: u8,
        x: Tensor,
        y: Tensor,
    },
    Softmax {
        row: usize,
        log: bool,
        table: Option<&'m [u32; 256]>,
    },
    LayerNorm {
        op: norm::LayerNorm<'m>,
        dtype: DType,
    },
    Copy {
        map: Strided,
        size: usize,
    },
    Fill {
        bits: u32,
        size: usize,
    },
    Resize {
        resize: Resize,
        dtype: DType,
        batch: usize,
    },
    MatMul {
        a: Shape,
        b: Shape,
        y: Shape,
        integer: Option<MatMulI8>,
    },
    Convert {
        x: Tensor,
        y: Tensor,
    },
    AttentionI8(AttentionI8<'m>),
    AttentionF32 {
        geometry: Geometry,
        multiplier: f32,
        bias: Option<Bias<'m>>,
    },
    /// Sizes of the axis and of what is inside it: bytes for a gather, elements for an arg-max.
    Gather {
        axis: usize,
        inner: usize,
    },
    Match {
        matching: Matching,
        zero: i32,
        dtype: DType,
    },
    Merge {
        channels: usize,
        zero: i32,
        dtype: DType,
    },
    ArgMax {
        axis: usize,
        inner: usize,
        last: bool,
        dtype: DType,
    },
}

impl<'m> Bound<'m> {
    /// Looks everything up; `None` when anything is missing or does not fit.
    pub fn new<O: Operators>(artifact: &Artifact<'m>, step: &Step) -> Option<Self> {
        match *step {
            Step::Conv(ref c) if O::SET.any(Kind::Conv) => conv::conv::<O>(artifact, c),
            Step::Depthwise(ref c) if O::SET.any(Kind::Depthwise) => {
                conv::depthwise::<O>(artifact, c)
            }
            Step::Table { x, y, table } if O::SET.any(Kind::Table) => {
                elementwise::table::<O>(artifact, x, y, table)
            }
            Step::Unary { x, y, kind } if O::SET.any(Kind::Unary) => {
                elementwise::unary::<O>(artifact, x, y, kind)
            }
            Step::Binary(ref b) if O::SET.any(Kind::Binary) => {
                elementwise::binary::<O>(artifact, b)
            }
            Step::Pool {
                x,
                y,
                kind,
                window,
                include_pad,
            } if O::SET.any(Kind::Pool) => {
                spatial::pool::<O>(artifact, x, y, kind, window, include_pad)
            }
            Step::Reduce { x, y, kind, axes } if O::SET.any(Kind::Reduce) => {
                rows::reduce::<O>(artifact, x, y, kind, axes)
            }
            Step::Softmax { x, y, log, table } if O::SET.any(Kind::Softmax) => {
                rows::softmax::<O>(artifact, x, y, log, table)
            }
            Step::LayerNorm {
                x,
                y,
                gain,
                offset,
                epsilon,
            } if O::SET.any(Kind::LayerNorm) => {
                rows::layer_norm::<O>(artifact, x, y, gain, offset, epsilon)
            }
            Step::Copy { x, y, map } if O::SET.any(Kind::Copy) => {
                movement::copy::<O>(artifact, x, y, map)
            }
            Step::Fill { y, bits } if O::SET.any(Kind::Fill) => movement::fill(artifact, y, bits),
            Step::Resize {
                x,
                y,
                interpolation,
                coordinates,
            } if O::SET.any(Kind::Resize) => {
                spatial::resize::<O>(artifact, x, y, interpolation, coordinates)
            }
            Step::MatMul { a, b, y } if O::SET.any(Kind::MatMul) => {
                products::matmul::<O>(artifact, a, b, y)
            }
            Step::Convert { x, y } if O::SET.any(Kind::Convert) => {
                elementwise::convert::<O>(artifact, x, y)
            }
            Step::Attention(ref a) if O::SET.any(Kind::Attention) => {
                products::attention::<O>(artifact, a)
            }
            Step::WeightedAttention {
                ref attention,
                sizes,
            } if O::SET.any(Kind::Attention) => {
                products::weighted_attention::<O>(artifact, attention, sizes)
            }
            Step::Match {
                k,
                y,
                matching,
                scratch,
            } if O::SET.any(Kind::Match) => {
                tokens::matching::<O>(artifact, k, y, matching, scratch)
            }
            Step::Merge {
                x,
                places,
                sizes,
                y,
            } if O::SET.any(Kind::Merge) => tokens::merge::<O>(artifact, x, places, sizes, y),
            Step::Gather {
                x,
                indices,
                y,
                axis,
            } if O::SET.any(Kind::Gather) => movement::gather::<O>(artifact, x, indices, y, axis),
            Step::ArgMax { x, y, axis, last } if O::SET.any(Kind::ArgMax) => {
                rows::arg_max::<O>(artifact, x, y, axis, last)
            }
            Step::Sparse {
                ref layer,
                starts,
                quads,
            } if O::SET.has(Kind::Sparse, DType::I8) => {
                sparse::sparse::<O>(artifact, layer, starts, quads)
            }
            _ => None,
        }
    }
}

/// Asks for a rule of the format: `None` where it is broken. Where the build has asked, nobody does again, and the
/// question takes no flash.
#[inline(always)]
fn rule<O: Operators>(holds: impl FnOnce() -> bool) -> Option<()> {
    (O::PROVEN.is_some() || holds()).then_some(())
}
