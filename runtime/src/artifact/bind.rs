//! A step with its shapes, constants and parameters looked up and checked against each other.
//!
//! Verification binds every step once and keeps nothing; execution binds again, which can't fail any
//! more. So one piece of code both decides what is well-formed and feeds the kernels.

use super::step::{Attention, Binary, Conv};
use super::{Artifact, Blob, Step};
use crate::numerics::MAX_CODE;
use crate::operators::{Kind, Operators, Variant};
use crate::ops::attention::{self, AttentionI8, Bias, Geometry};
use crate::ops::binary::{BinaryF32, BinaryI8, BinaryI16, Broadcast};
use crate::ops::conv::{
    ConvF32, ConvI8, EpilogueI8, PackedShape, QUAD, WEIGHT_SLACK, WIDTH, WeightsF32,
};
use crate::ops::copy::Strided;
use crate::ops::depthwise::in_place::InPlace;
use crate::ops::depthwise::{DepthwiseF32, DepthwiseI8};
use crate::ops::matmul::{MatMulI8, shapes_agree};
use crate::ops::merge::{MAX_TOKENS, Matching};
use crate::ops::norm::{self, MAX_CHANNELS};
use crate::ops::pool::{AveragePoolI8, Pool, PoolKind};
use crate::ops::reduce::ReduceKind;
use crate::ops::resize::Resize;
use crate::ops::sparse::{Blocks, SparseI8};
use crate::ops::unary::UnaryKind;
use crate::ops::wide::ConvI16;
use crate::tensor::{CONSTANT_BANK, DType, Shape, Tensor};

/// Longest patch of an integer convolution: keeps `Σ |x · w|` below 2³⁰.
const MAX_DEPTH: usize = 1 << 16;
/// Largest multiplier of an attention's scores: keeps them finite.
const MAX_OCTAVES: f32 = 1_099_511_627_776.0; // 2⁴⁰
/// Largest integer bias.
const MAX_BIAS: i32 = 1 << 30;
/// Largest multiplier, 2⁶⁴: whatever is scaled stays finite, so that no difference of two such values
/// is a NaN, which instruction sets clamp differently.
const MAX_MULTIPLIER: f32 = 18_446_744_073_709_551_616.0;
/// Longest side of a resized map: its positions are fractions in 64 bits.
const MAX_SIDE: usize = 1 << 24;

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
        let get = |id| artifact.tensor(id).ok();
        match *step {
            Step::Conv(ref c) if O::SET.any(Kind::Conv) => bind_conv::<O>(artifact, c),
            Step::Depthwise(ref c) if O::SET.any(Kind::Depthwise) => {
                bind_depthwise::<O>(artifact, c)
            }
            Step::Table { x, y, table } if O::SET.any(Kind::Table) => {
                let (x, y) = (get(x)?, get(y)?);
                let fits = x.dtype == DType::I8
                    && y.dtype == DType::I8
                    && x.shape.elements() == y.shape.elements();
                fits.then_some(Bound::Table(codes(artifact, table)?))
            }
            Step::Unary { x, y, kind } if O::SET.any(Kind::Unary) => {
                let (x, y) = (get(x)?, get(y)?);
                let fits = x.dtype == DType::F32
                    && y.dtype == DType::F32
                    && x.shape.elements() == y.shape.elements();
                fits.then_some(Bound::Unary(kind))
            }
            Step::Binary(ref b) if O::SET.any(Kind::Binary) => bind_binary::<O>(artifact, b),
            Step::Pool {
                x,
                y,
                kind,
                window,
                include_pad,
            } if O::SET.any(Kind::Pool) => {
                let (x, y) = (get(x)?, get(y)?);
                let ([batch, h, w, c], out) = (x.shape.nhwc()?, y.shape.nhwc()?);
                let output = [window.output(0, h)?, window.output(1, w)?];
                let pool = Pool {
                    window,
                    input: [h, w, c],
                    output,
                    include_pad,
                };
                let same = x.scale == y.scale && x.zero_point == y.zero_point;
                let types = x.dtype == y.dtype
                    && match x.dtype {
                        DType::I8 => kind == PoolKind::Average || same,
                        DType::F32 => true,
                        _ => false,
                    };
                let average = AveragePoolI8 {
                    pool,
                    x_zero: x.zero_point,
                    multiplier: x.scale / y.scale,
                    zero: y.zero_point,
                    lo: i8::MIN,
                    hi: i8::MAX,
                };
                let fits = types
                    && out == [batch, output[0], output[1], c]
                    && is_multiplier(average.multiplier);
                fits.then_some(Bound::Pool {
                    kind,
                    pool,
                    average,
                    dtype: x.dtype,
                    batch,
                })
            }
            Step::Reduce { x, y, kind, axes } if O::SET.any(Kind::Reduce) => {
                let (x, y) = (get(x)?, get(y)?);
                let rank = x.shape.rank();
                let reduced = |d: usize| axes >> d & 1 == 1;
                let shape = y.shape.rank() == rank
                    && (0..rank)
                        .all(|d| y.shape.dim(d) == if reduced(d) { 1 } else { x.shape.dim(d) });
                let types = match (x.dtype, y.dtype) {
                    (DType::F32, DType::F32) => true,
                    (DType::I8, DType::I8) => {
                        kind == ReduceKind::Mean
                            && is_multiplier(x.scale / y.scale)
                            && x.shape.elements() < 1 << 23
                    }
                    _ => false,
                };
                (shape && types && u32::from(axes) < 1 << rank).then_some(Bound::Reduce {
                    kind,
                    axes,
                    x,
                    y,
                })
            }
            Step::Softmax { x, y, log, table } if O::SET.any(Kind::Softmax) => {
                let (x, y) = (get(x)?, get(y)?);
                let row = x.shape.last();
                let table = match table {
                    Some(blob) => Some(array::<u32, 256>(artifact, blob)?),
                    None => None,
                };
                let types = match (x.dtype, y.dtype) {
                    (DType::F32, DType::F32) => table.is_none(),
                    (DType::I8, DType::I8) => {
                        table.is_some()
                            && !log
                            && y.scale == 1.0 / 256.0
                            && y.zero_point == -128
                            && row <= 1 << 16
                    }
                    _ => false,
                };
                (types && x.shape.elements() == y.shape.elements()).then_some(Bound::Softmax {
                    row,
                    log,
                    table,
                })
            }
            Step::LayerNorm {
                x,
                y,
                gain,
                offset,
                epsilon,
            } if O::SET.any(Kind::LayerNorm) => {
                let (x, y) = (get(x)?, get(y)?);
                let (gain, offset) = (
                    slice::<f32>(artifact, gain)?,
                    slice::<f32>(artifact, offset)?,
                );
                let channels = x.shape.last();
                let types = match (x.dtype, y.dtype) {
                    (DType::F32, DType::F32) => true,
                    (DType::I8 | DType::I16, DType::I8) => {
                        channels <= MAX_CHANNELS && epsilon > 0.0
                    }
                    _ => false,
                };
                let fits = types && x.shape.elements() == y.shape.elements();
                let constants =
                    gain.len() == channels && offset.len() == channels && epsilon.is_finite();
                let op = norm::LayerNorm {
                    gain,
                    offset,
                    epsilon,
                    zero: y.zero_point,
                };
                (fits && constants).then_some(Bound::LayerNorm { op, dtype: x.dtype })
            }
            Step::Copy { x, y, map } if O::SET.any(Kind::Copy) => {
                let (x, y) = (get(x)?, get(y)?);
                let same = x.dtype == y.dtype && x.scale == y.scale && x.zero_point == y.zero_point;
                let (from, to) = (x.shape.elements(), y.shape.elements());
                let inside = match O::SET.includes(Variant::Scatter) {
                    true => map.fits(from, to),
                    false => map.is_identity() && map.elements() <= from as u64,
                };
                let fits = inside && map.elements() <= to as u64;
                (same && fits).then_some(Bound::Copy {
                    map,
                    size: x.dtype.size(),
                })
            }
            Step::Fill { y, bits } if O::SET.any(Kind::Fill) => Some(Bound::Fill {
                bits,
                size: get(y)?.dtype.size(),
            }),
            Step::Resize {
                x,
                y,
                interpolation,
                coordinates,
            } if O::SET.any(Kind::Resize) => {
                let (x, y) = (get(x)?, get(y)?);
                let ([batch, h, w, c], [b2, oh, ow, c2]) = (x.shape.nhwc()?, y.shape.nhwc()?);
                let same = x.dtype == y.dtype && x.scale == y.scale && x.zero_point == y.zero_point;
                let kernel = matches!(x.dtype, DType::I8 | DType::I16 | DType::F32);
                let resize = Resize {
                    input: [h, w, c],
                    output: [oh, ow],
                    interpolation,
                    coordinates,
                };
                let small = [h, w, oh, ow].iter().all(|&side| side <= MAX_SIDE);
                (same && kernel && small && (b2, c2) == (batch, c)).then_some(Bound::Resize {
                    resize,
                    dtype: x.dtype,
                    batch,
                })
            }
            Step::MatMul { a, b, y } if O::SET.any(Kind::MatMul) => {
                let (a, b, y) = (get(a)?, get(b)?, get(y)?);
                let integer = match [a.dtype, b.dtype, y.dtype] {
                    [DType::F32, DType::F32, DType::F32] => None,
                    [DType::I8, DType::I8, DType::I8] => {
                        let op = MatMulI8 {
                            a_zero: a.zero_point,
                            b_zero: b.zero_point,
                            multiplier: a.scale * b.scale / y.scale,
                            zero: y.zero_point,
                        };
                        let small = a.shape.last() <= 1 << 15 && is_multiplier(op.multiplier);
                        Some(small.then_some(op)?)
                    }
                    _ => return None,
                };
                shapes_agree(&a.shape, &b.shape, &y.shape).then_some(Bound::MatMul {
                    a: a.shape,
                    b: b.shape,
                    y: y.shape,
                    integer,
                })
            }
            Step::Convert { x, y } if O::SET.any(Kind::Convert) => {
                let (x, y) = (get(x)?, get(y)?);
                let known = |t: DType| matches!(t, DType::I8 | DType::I16 | DType::F32);
                let distinct = x.dtype != y.dtype || x.dtype == DType::I8;
                let ratio = x.scale / y.scale;
                let fits = distinct
                    && known(x.dtype)
                    && known(y.dtype)
                    && x.shape.elements() == y.shape.elements();
                (fits && is_multiplier(ratio) && (1.0 / y.scale).is_finite())
                    .then_some(Bound::Convert { x, y })
            }
            Step::Attention(ref a) if O::SET.any(Kind::Attention) => {
                bind_attention::<O>(artifact, a)
            }
            Step::WeightedAttention {
                ref attention,
                sizes,
            } if O::SET.any(Kind::Attention) => {
                let sizes = get(sizes)?;
                let fits = attention.bias.is_none()
                    && sizes.dtype == DType::I32
                    && sizes.shape.elements() == attention.geometry.key_count();
                fits.then(|| bind_attention::<O>(artifact, attention))?
            }
            Step::Match {
                k,
                y,
                matching,
                scratch,
            } if O::SET.any(Kind::Match) => {
                let (k, y, scratch) = (get(k)?, get(y)?, get(scratch)?);
                let fits = matching.fits(k.shape.elements())
                    && y.dtype == DType::I32
                    && y.shape.elements() == matching.tokens as usize;
                fits.then_some(())?;
                let need = match k.dtype {
                    DType::I8 => matching.scratch_bytes::<i8>(),
                    DType::F32 => matching.scratch_bytes::<f32>(),
                    _ => return None,
                };
                let arena = scratch.dtype == DType::I8 && scratch.bank != CONSTANT_BANK;
                (arena && scratch.bytes() >= need).then_some(Bound::Match {
                    matching,
                    zero: k.zero_point,
                    dtype: k.dtype,
                })
            }
            Step::Merge {
                x,
                places,
                sizes,
                y,
            } if O::SET.any(Kind::Merge) => {
                let (x, places, y) = (get(x)?, get(places)?, get(y)?);
                let sized = match sizes {
                    Some(sizes) => Some(get(sizes)?),
                    None => None,
                };
                let (rows, channels) = match sized {
                    Some(_) => (x.shape.elements() / x.shape.last(), x.shape.last()),
                    None => (x.shape.elements(), 1),
                };
                let types = match x.dtype {
                    DType::I8 | DType::I16 | DType::F32 => sized.is_some(),
                    DType::I32 => sized.is_none(),
                    _ => false,
                };
                let same = x.dtype == y.dtype && x.scale == y.scale && x.zero_point == y.zero_point;
                let index = |t: &Tensor| t.dtype == DType::I32 && t.shape.elements() == rows;
                let fits = y.shape.elements() % channels == 0
                    && y.shape.elements() <= x.shape.elements()
                    && rows <= MAX_TOKENS
                    && index(&places)
                    && sized.as_ref().is_none_or(index);
                (types && same && fits).then_some(Bound::Merge {
                    channels,
                    zero: x.zero_point,
                    dtype: x.dtype,
                })
            }
            Step::Gather {
                x,
                indices,
                y,
                axis,
            } if O::SET.any(Kind::Gather) => {
                let (x, indices, y) = (get(x)?, get(indices)?, get(y)?);
                let same = x.dtype == y.dtype && x.scale == y.scale && x.zero_point == y.zero_point;
                let (outer, size, inner) = around(&x.shape, axis)?;
                let count = indices.shape.elements();
                let elements = (outer * inner) as u64 * count as u64;
                let fits = indices.dtype == DType::I32 && y.shape.elements() as u64 == elements;
                (same && fits).then_some(Bound::Gather {
                    axis: size,
                    inner: inner * x.dtype.size(),
                })
            }
            Step::ArgMax { x, y, axis, last } if O::SET.any(Kind::ArgMax) => {
                let (x, y) = (get(x)?, get(y)?);
                let (outer, size, inner) = around(&x.shape, axis)?;
                let known = matches!(x.dtype, DType::I8 | DType::I32 | DType::F32);
                let fits = y.dtype == DType::I32 && y.shape.elements() == outer * inner;
                (known && fits).then_some(Bound::ArgMax {
                    axis: size,
                    inner,
                    last,
                    dtype: x.dtype,
                })
            }
            Step::Sparse {
                ref layer,
                starts,
                quads,
            } if O::SET.has(Kind::Sparse, DType::I8) => bind_sparse(artifact, layer, starts, quads),
            _ => None,
        }
    }

    /// Checks the values of constants that arithmetic relies on: nothing overflows an i32, no
    /// multiplier is infinite, weight sums are true, weights past the patch are 0, blocks are in their places.
    pub fn check_constants<O: Operators>(&self) -> Option<()> {
        match self {
            Bound::ConvI8 { conv, .. } if O::SET.has(Kind::Conv, DType::I8) => {
                let (channels, depth) = (conv.output[2], conv.depth());
                let packed = PackedShape::new(channels, depth);
                let weight = |n, k| i32::from(conv.weights[packed.index(n, k)]);
                let sums = (0..channels)
                    .all(|n| (0..depth).map(|k| weight(n, k)).sum::<i32>() == conv.weight_sums[n]);
                // Kernels that shift codes to unsigned multiply these by 128.
                let padding = (0..channels)
                    .all(|n| (depth..packed.quads() * QUAD).all(|k| weight(n, k) == 0));
                (sums && padding && requantisation_is_sound(conv.bias, conv.multipliers))
                    .then_some(())
            }
            Bound::DepthwiseI8 { op, .. } if O::SET.has(Kind::Depthwise, DType::I8) => {
                let c = op.input[2];
                let taps = op.window.taps();
                let sums = (0..c).all(|ch| {
                    (0..taps)
                        .map(|t| i32::from(op.weights[t * c + ch]))
                        .sum::<i32>()
                        == op.weight_sums[ch]
                });
                (sums && requantisation_is_sound(op.bias, op.multipliers)).then_some(())
            }
            Bound::Sparse { op, .. } if O::SET.has(Kind::Sparse, DType::I8) => {
                let (conv, channels) = (&op.conv, op.conv.output[2]);
                let sum = |n| -> i32 {
                    let weights = op.blocks.of(n).1.as_flattened();
                    weights.iter().map(|&w| i32::from(w)).sum()
                };
                (op.blocks.are_sound(channels, conv.depth())
                    && (0..channels).all(|n| sum(n) == conv.weight_sums[n])
                    && requantisation_is_sound(conv.bias, conv.multipliers))
                .then_some(())
            }
            Bound::ConvI16 { conv, .. } if O::SET.has(Kind::Conv, DType::I16) => {
                requantisation_is_sound(conv.bias, conv.multipliers).then_some(())
            }
            Bound::LayerNorm { op, .. } if O::SET.any(Kind::LayerNorm) => {
                let finite = |v: &[f32]| v.iter().all(|v| v.is_finite());
                (finite(op.gain) && finite(op.offset)).then_some(())
            }
            Bound::AttentionI8(op) if O::SET.any(Kind::Attention) => {
                bias_is_sound(op.bias, &op.geometry)
            }
            Bound::AttentionF32 { geometry, bias, .. } if O::SET.any(Kind::Attention) => {
                bias_is_sound(*bias, geometry)
            }
            _ => Some(()),
        }
    }
}

fn bias_is_sound(bias: Option<Bias<'_>>, geometry: &Geometry) -> Option<()> {
    bias.is_none_or(|b| b.is_sound(geometry)).then_some(())
}

fn requantisation_is_sound(bias: &[i32], multipliers: &[f32]) -> bool {
    bias.iter().all(|b| (-MAX_BIAS..=MAX_BIAS).contains(b))
        && multipliers.iter().all(|&m| is_multiplier(m))
}

fn is_multiplier(m: f32) -> bool {
    (0.0..=MAX_MULTIPLIER).contains(&m)
}

/// Shapes of a (depthwise) convolution.
struct ConvForm {
    batch: usize,
    input: [usize; 3],
    output: [usize; 3],
    x: Tensor,
    y: Tensor,
}

fn conv_form(artifact: &Artifact<'_>, c: &Conv) -> Option<ConvForm> {
    let (x, y) = (artifact.tensor(c.x).ok()?, artifact.tensor(c.y).ok()?);
    if let Some(scratch) = c.scratch {
        let t = artifact.tensor(scratch).ok()?;
        (t.dtype == DType::I8 && t.bank != CONSTANT_BANK).then_some(())?;
    }
    // A point ignores its dilation, kernels may not: 0 is refused there too.
    (!c.window.dilation.contains(&0)).then_some(())?;
    if c.window.is_point() {
        let (cin, cout) = (x.shape.last(), y.shape.last());
        let rows = x.shape.elements() / cin;
        let fits = y.shape.elements() == rows * cout;
        return fits.then_some(ConvForm {
            batch: 1,
            input: [1, rows, cin],
            output: [1, rows, cout],
            x,
            y,
        });
    }
    let ([batch, h, w, cin], [b2, oh, ow, cout]) = (x.shape.nhwc()?, y.shape.nhwc()?);
    let fits =
        b2 == batch && c.window.output(0, h) == Some(oh) && c.window.output(1, w) == Some(ow);
    fits.then_some(ConvForm {
        batch,
        input: [h, w, cin],
        output: [oh, ow, cout],
        x,
        y,
    })
}

fn bind_conv<'m, O: Operators>(artifact: &Artifact<'m>, c: &Conv) -> Option<Bound<'m>> {
    let ConvForm {
        batch,
        input,
        output,
        x,
        y,
    } = conv_form(artifact, c)?;
    let depth = c.window.taps().checked_mul(input[2])?;
    let channels = output[2];
    let elements = PackedShape::new(channels, depth);
    match (x.dtype, y.dtype) {
        (DType::I8, DType::I8) if O::SET.has(Kind::Conv, DType::I8) => {
            let epilogue = epilogue(artifact, c)?;
            let conv = ConvI8 {
                window: c.window,
                input,
                output,
                weights: bytes_i8(artifact, c.weights)?,
                bias: channel_slice(artifact, c.bias, channels)?,
                weight_sums: channel_slice(artifact, c.sums?, channels)?,
                multipliers: channel_slice(artifact, c.multipliers?, channels)?,
                input_zero: i8::try_from(x.zero_point).ok()?,
                epilogue,
            };
            let fits =
                depth <= MAX_DEPTH && conv.weights.len() >= packed_bytes(elements)? + WEIGHT_SLACK;
            let residual = residual_term(artifact, c, &y)?;
            (fits && c.weight_type == DType::I8).then_some(Bound::ConvI8 {
                conv,
                residual,
                batch,
            })
        }
        (DType::I16, DType::I16) if O::SET.has(Kind::Conv, DType::I16) => bind_wide(
            artifact,
            c,
            input,
            output,
            batch,
            packed_bytes(elements)?,
            false,
        ),
        (DType::F32, DType::F32) if O::SET.has(Kind::Conv, DType::F32) => {
            let count = float_weights(channels, depth)?;
            let weights = match c.weight_type {
                DType::F32 => WeightsF32::F32(slice(artifact, c.weights)?),
                DType::F16 => WeightsF32::F16(slice(artifact, c.weights)?),
                _ => return None,
            };
            let len = (c.weights.len as usize).checked_sub(WEIGHT_SLACK)? / c.weight_type.size();
            residual_term(artifact, c, &y)?;
            let conv = ConvF32 {
                window: c.window,
                input,
                output,
                weights,
                bias: channel_slice(artifact, c.bias, channels)?,
                lo: c.lo,
                hi: c.hi,
                residual: None,
            };
            (len >= count && c.lo <= c.hi).then_some(Bound::ConvF32 { conv, batch })
        }
        _ => None,
    }
}

fn bind_sparse<'m>(
    artifact: &Artifact<'m>,
    c: &Conv,
    starts: Blob,
    quads: Blob,
) -> Option<Bound<'m>> {
    let ConvForm {
        input,
        output,
        x,
        y,
        ..
    } = conv_form(artifact, c)?;
    let channels = output[2];
    let conv = ConvI8 {
        window: c.window,
        input,
        output,
        weights: &[],
        bias: channel_slice(artifact, c.bias, channels)?,
        weight_sums: channel_slice(artifact, c.sums?, channels)?,
        multipliers: channel_slice(artifact, c.multipliers?, channels)?,
        input_zero: i8::try_from(x.zero_point).ok()?,
        epilogue: epilogue(artifact, c)?,
    };
    let blocks = Blocks {
        starts: slice(artifact, starts)?,
        quads: slice(artifact, quads)?,
        weights: slice(artifact, c.weights)?,
    };
    let types = [x.dtype, y.dtype, c.weight_type] == [DType::I8; 3];
    let fits = c.window.is_point()
        && input[2] <= MAX_DEPTH
        && blocks.starts.len().checked_sub(1) == Some(channels)
        && blocks.quads.len() == blocks.weights.len();
    let residual = residual_term(artifact, c, &y)?;
    (types && fits).then_some(Bound::Sparse {
        op: SparseI8 { conv, blocks },
        residual,
    })
}

fn bind_depthwise<'m, O: Operators>(artifact: &Artifact<'m>, c: &Conv) -> Option<Bound<'m>> {
    let ConvForm {
        batch,
        input,
        output,
        x,
        y,
    } = conv_form(artifact, c)?;
    let channels = input[2];
    let taps = c.window.taps();
    let count = taps.checked_mul(channels)?;
    (output[2] == channels && taps <= MAX_DEPTH).then_some(())?;
    let in_place = if (x.bank, x.offset) == (y.bank, y.offset) {
        Some(in_place(artifact, c, input, x.dtype)?)
    } else {
        None
    };
    match (x.dtype, y.dtype) {
        (DType::I8, DType::I8) if O::SET.has(Kind::Depthwise, DType::I8) => {
            let op = DepthwiseI8 {
                window: c.window,
                input,
                output: [output[0], output[1]],
                weights: bytes_i8(artifact, c.weights)?,
                bias: channel_slice(artifact, c.bias, channels)?,
                weight_sums: channel_slice(artifact, c.sums?, channels)?,
                multipliers: channel_slice(artifact, c.multipliers?, channels)?,
                input_zero: i8::try_from(x.zero_point).ok()?,
                epilogue: epilogue(artifact, c)?,
            };
            let fits = op.weights.len() >= count + WEIGHT_SLACK && c.weight_type == DType::I8;
            let residual = residual_term(artifact, c, &y)?;
            fits.then_some(Bound::DepthwiseI8 {
                op,
                residual,
                batch,
                in_place,
            })
        }
        (DType::I16, DType::I16)
            if in_place.is_none() && O::SET.has(Kind::Depthwise, DType::I16) =>
        {
            bind_wide(artifact, c, input, output, batch, count, true)
        }
        (DType::F32, DType::F32)
            if c.weight_type == DType::F32 && O::SET.has(Kind::Depthwise, DType::F32) =>
        {
            let weights: &[f32] = slice(artifact, c.weights)?;
            let residual = residual_term(artifact, c, &y)?.is_some();
            let op = DepthwiseF32 {
                window: c.window,
                input,
                output: [output[0], output[1]],
                weights: weights.get(..count)?,
                bias: slice::<f32>(artifact, c.bias)?.get(..channels)?,
                lo: c.lo,
                hi: c.hi,
            };
            (c.lo <= c.hi).then_some(Bound::DepthwiseF32 {
                op,
                residual,
                batch,
                in_place,
            })
        }
        _ => None,
    }
}

/// How a depthwise convolution whose output is in its input's memory runs; `None` when it can't, or has
/// too little working memory.
fn in_place(artifact: &Artifact<'_>, c: &Conv, input: [usize; 3], dtype: DType) -> Option<InPlace> {
    let map = InPlace::new(&c.window, input)?;
    let need = map.least()?.checked_mul(dtype.size())?;
    let bytes = artifact.tensor(c.scratch?).ok()?.bytes();
    (bytes >= need && bytes % dtype.size() == 0).then_some(map)
}

fn bind_wide<'m>(
    artifact: &Artifact<'m>,
    c: &Conv,
    input: [usize; 3],
    output: [usize; 3],
    batch: usize,
    weights: usize,
    depthwise: bool,
) -> Option<Bound<'m>> {
    let conv = ConvI16 {
        window: c.window,
        input,
        output,
        weights: bytes_i8(artifact, c.weights)?,
        bias: channel_slice(artifact, c.bias, output[2])?,
        multipliers: channel_slice(artifact, c.multipliers?, output[2])?,
        lo: code(c.lo, -32767, 32767)? as i16,
        hi: code(c.hi, -32767, 32767)? as i16,
        depthwise,
    };
    let plain =
        c.residual.is_none() && c.table.is_none() && c.zero == 0 && c.weight_type == DType::I8;
    (plain && conv.lo <= conv.hi && conv.weights.len() >= weights)
        .then_some(Bound::ConvI16 { conv, batch })
}

fn bind_attention<'m, O: Operators>(
    artifact: &Artifact<'m>,
    step: &Attention,
) -> Option<Bound<'m>> {
    let get = |id| artifact.tensor(id).ok();
    let (q, k, v, y) = (get(step.q)?, get(step.k)?, get(step.v)?, get(step.y)?);
    let scratch = get(step.scratch)?;
    let geometry = step.geometry;
    let len = |t: &Tensor| t.shape.elements();
    geometry
        .fits(len(&q), len(&k), len(&v), len(&y))
        .then_some(())?;
    let bias = match step.bias {
        Some((blob, layout)) => Some(Bias {
            values: slice(artifact, blob)?,
            layout,
        }),
        None => None,
    };
    let small = step.multiplier > 0.0 && step.multiplier <= MAX_OCTAVES;
    let arena = scratch.dtype == DType::I8 && scratch.bank != CONSTANT_BANK;
    (small && arena && bias.is_none_or(|b| b.fits(&geometry))).then_some(())?;
    let multiplier = step.multiplier;
    match [q.dtype, k.dtype, v.dtype, y.dtype] {
        [DType::I8, DType::I8, DType::I8, DType::I8] if O::SET.has(Kind::Attention, DType::I8) => {
            let op = AttentionI8 {
                geometry,
                multiplier,
                bias,
                sizes: None,
                q_zero: i8::try_from(q.zero_point).ok()?,
                v_zero: i8::try_from(v.zero_point).ok()?,
                ratio: v.scale / y.scale,
                y_zero: y.zero_point,
            };
            let room = scratch.bytes() >= attention::scratch_bytes(&geometry);
            (room && is_multiplier(op.ratio)).then_some(Bound::AttentionI8(op))
        }
        [DType::F32, DType::F32, DType::F32, DType::F32]
            if O::SET.has(Kind::Attention, DType::F32) =>
        {
            let room = scratch.bytes() >= attention::scratch_bytes_f32(&geometry);
            room.then_some(Bound::AttentionF32 {
                geometry,
                multiplier,
                bias,
            })
        }
        _ => None,
    }
}

fn bind_binary<'m, O: Operators>(artifact: &Artifact<'m>, step: &Binary) -> Option<Bound<'m>> {
    let get = |id| artifact.tensor(id).ok();
    let (a, b, y) = (get(step.a)?, get(step.b)?, get(step.y)?);
    let layout = Broadcast::new(&a.shape, &b.shape)?;
    let sound = layout.output().elements() == y.shape.elements()
        && step.scale.is_finite()
        && step.scale > 0.0;
    (sound && a.dtype == b.dtype && a.dtype == y.dtype).then_some(())?;
    let (ra, rb, rab) = (
        a.scale / step.scale,
        b.scale / step.scale,
        a.scale * b.scale / step.scale,
    );
    let finite = [ra, rb, rab].into_iter().all(is_multiplier);
    match a.dtype {
        DType::I8 if O::SET.has(Kind::Binary, DType::I8) => {
            let table = match step.table {
                Some(blob) => Some(codes(artifact, blob)?),
                None => None,
            };
            let op = BinaryI8 {
                kind: step.kind.integer()?,
                a_zero: a.zero_point,
                a_multiplier: ra,
                b_zero: b.zero_point,
                b_multiplier: rb,
                multiplier: rab,
                zero: zero(step.zero)?,
                lo: code(step.lo, -128, 127)? as i8,
                hi: code(step.hi, -128, 127)? as i8,
                table,
            };
            (finite && op.lo <= op.hi).then_some(Bound::BinaryI8(op, layout))
        }
        DType::I16 if O::SET.has(Kind::Binary, DType::I16) => {
            let op = BinaryI16 {
                kind: step.kind.integer()?,
                a_multiplier: ra,
                b_multiplier: rb,
                multiplier: rab,
            };
            (finite && step.table.is_none() && step.zero == 0)
                .then_some(Bound::BinaryI16(op, layout))
        }
        DType::F32 if O::SET.has(Kind::Binary, DType::F32) => {
            let op = BinaryF32 {
                kind: step.kind,
                lo: step.lo,
                hi: step.hi,
            };
            (step.lo <= step.hi).then_some(Bound::BinaryF32(op, layout))
        }
        _ => None,
    }
}

fn epilogue<'m>(artifact: &Artifact<'m>, c: &Conv) -> Option<EpilogueI8<'m>> {
    let (lo, hi) = (code(c.lo, -128, 127)? as i8, code(c.hi, -128, 127)? as i8);
    let table = match c.table {
        Some(blob) => Some(codes(artifact, blob)?),
        None => None,
    };
    (lo <= hi).then_some(EpilogueI8 {
        zero: zero(c.zero)?,
        lo,
        hi,
        table,
        residual: None,
    })
}

/// The residual's term; the outer `None` means that it does not fit.
fn residual_term(artifact: &Artifact<'_>, c: &Conv, y: &Tensor) -> Option<ResidualTerm> {
    let Some((id, multiplier)) = c.residual else {
        return Some(None);
    };
    let r = artifact.tensor(id).ok()?;
    let fits = r.dtype == y.dtype
        && r.shape.elements() == y.shape.elements()
        && multiplier.abs() <= MAX_MULTIPLIER;
    fits.then_some(Some((r.zero_point, multiplier)))
}

/// Bytes of packed integer weights; `None` where a 32-bit `usize` can't count them.
fn packed_bytes(shape: PackedShape) -> Option<usize> {
    let bound = shape
        .padded_channels()
        .checked_mul(shape.quads().checked_mul(QUAD)?)?;
    bound.checked_add(WEIGHT_SLACK)?;
    Some(shape.bytes())
}

/// Elements of packed float weights.
fn float_weights(channels: usize, depth: usize) -> Option<usize> {
    let shape = PackedShape::new(channels, depth);
    let last = shape.blocks().checked_sub(1)?;
    (last * WIDTH + shape.block_width(last)).checked_mul(depth)
}

/// A clamp bound that must be an integer code.
fn code(value: f32, lo: i32, hi: i32) -> Option<i32> {
    let code = value as i32;
    (code as f32 == value && (lo..=hi).contains(&code)).then_some(code)
}

fn zero(zero: i32) -> Option<i32> {
    (-MAX_CODE..=MAX_CODE).contains(&zero).then_some(zero)
}

/// Numbers of elements before an axis, along it and after it.
fn around(shape: &Shape, axis: u8) -> Option<(usize, usize, usize)> {
    let (before, rest) = shape.dims().split_at_checked(axis.into())?;
    let (&size, after) = rest.split_first()?;
    let product = |dims: &[u32]| dims.iter().map(|&d| d as usize).product();
    Some((product(before), size as usize, product(after)))
}

fn slice<'m, T: bytemuck::AnyBitPattern>(artifact: &Artifact<'m>, blob: Blob) -> Option<&'m [T]> {
    bytemuck::try_cast_slice(artifact.blob(blob).ok()?).ok()
}

fn bytes_i8<'m>(artifact: &Artifact<'m>, blob: Blob) -> Option<&'m [i8]> {
    slice(artifact, blob)
}

/// A per-channel vector, padded to whole blocks.
fn channel_slice<'m, T: bytemuck::AnyBitPattern>(
    artifact: &Artifact<'m>,
    blob: Blob,
    channels: usize,
) -> Option<&'m [T]> {
    slice(artifact, blob)?.get(..channels.div_ceil(WIDTH) * WIDTH)
}

fn array<'m, T: bytemuck::AnyBitPattern, const N: usize>(
    artifact: &Artifact<'m>,
    blob: Blob,
) -> Option<&'m [T; N]> {
    slice(artifact, blob)?.try_into().ok()
}

fn codes<'m>(artifact: &Artifact<'m>, blob: Blob) -> Option<&'m [i8; 256]> {
    array(artifact, blob)
}
