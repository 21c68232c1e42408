//! Convolutions.

use super::super::Artifact;
use super::super::step::Conv;
use super::lookup::{MAX_MULTIPLIER, channel_slice, code, optional_codes, slice, tensor, zero};
use super::{Bound, ResidualTerm, rule};
use crate::operators::{Kind, Operators};
use crate::ops::conv::{
    ConvF32, ConvI8, EpilogueI8, PackedShape, QUAD, WEIGHT_SLACK, WIDTH, WeightsF32,
};
use crate::ops::depthwise::in_place::InPlace;
use crate::ops::depthwise::{DepthwiseF32, DepthwiseI8};
use crate::ops::wide::ConvI16;
use crate::tensor::{CONSTANT_BANK, DType, Tensor};

/// Longest patch of an integer convolution: keeps `Σ |x · w|` below 2³⁰.
pub(super) const MAX_DEPTH: usize = 1 << 16;

pub(super) fn conv<'m, O: Operators>(artifact: &Artifact<'m>, c: &Conv) -> Option<Bound<'m>> {
    let form = Form::new::<O>(artifact, c)?;
    let Form {
        batch,
        input,
        output,
        ..
    } = form;
    let channels = output[2];
    match form.types() {
        (DType::I8, DType::I8) if O::SET.has(Kind::Conv, DType::I8) => {
            let (conv, residual) = codes::<O>(artifact, c, &form)?;
            rule::<O>(|| {
                let need = form.depth(c).and_then(|depth| {
                    let bytes = packed_bytes(PackedShape::new(channels, depth))?;
                    (depth <= MAX_DEPTH).then_some(bytes + WEIGHT_SLACK)
                });
                need.is_some_and(|need| conv.weights.len() >= need)
            })?;
            Some(Bound::ConvI8 {
                conv,
                residual,
                batch,
            })
        }
        (DType::I16, DType::I16) if O::SET.has(Kind::Conv, DType::I16) => {
            let shape = PackedShape::new(channels, form.depth(c)?);
            wide::<O>(artifact, c, &form, packed_bytes(shape)?, false)
        }
        (DType::F32, DType::F32) if O::SET.has(Kind::Conv, DType::F32) => {
            let weights = match c.weight_type {
                DType::F32 => WeightsF32::F32(slice(artifact, c.weights)?),
                DType::F16 => WeightsF32::F16(slice(artifact, c.weights)?),
                _ => return None,
            };
            rule::<O>(|| {
                let count = form.depth(c).and_then(|d| float_weights(channels, d));
                let bytes = (c.weights.len as usize).checked_sub(WEIGHT_SLACK);
                let len = bytes.map(|bytes| bytes / c.weight_type.size());
                count.is_some_and(|count| len >= Some(count)) && c.lo <= c.hi
            })?;
            residual_term::<O>(artifact, c, &form.y)?;
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
            Some(Bound::ConvF32 { conv, batch })
        }
        _ => None,
    }
}

pub(super) fn depthwise<'m, O: Operators>(artifact: &Artifact<'m>, c: &Conv) -> Option<Bound<'m>> {
    let form = Form::new::<O>(artifact, c)?;
    let Form {
        batch,
        input,
        output: [height, width, channels],
        ..
    } = form;
    let taps = c.window.taps();
    let count = taps.checked_mul(channels)?;
    rule::<O>(|| input[2] == channels && taps <= MAX_DEPTH)?;
    let in_place = if (form.x.bank, form.x.offset) == (form.y.bank, form.y.offset) {
        Some(in_place::<O>(artifact, c, input, form.x.dtype)?)
    } else {
        None
    };
    match form.types() {
        (DType::I8, DType::I8) if O::SET.has(Kind::Depthwise, DType::I8) => {
            let (conv, residual) = codes::<O>(artifact, c, &form)?;
            rule::<O>(|| conv.weights.len() >= count + WEIGHT_SLACK)?;
            let op = DepthwiseI8 {
                window: conv.window,
                input,
                output: [height, width],
                weights: conv.weights,
                bias: conv.bias,
                weight_sums: conv.weight_sums,
                multipliers: conv.multipliers,
                input_zero: conv.input_zero,
                epilogue: conv.epilogue,
            };
            Some(Bound::DepthwiseI8 {
                op,
                residual,
                batch,
                in_place,
            })
        }
        (DType::I16, DType::I16)
            if in_place.is_none() && O::SET.has(Kind::Depthwise, DType::I16) =>
        {
            wide::<O>(artifact, c, &form, count, true)
        }
        (DType::F32, DType::F32)
            if c.weight_type == DType::F32 && O::SET.has(Kind::Depthwise, DType::F32) =>
        {
            rule::<O>(|| c.lo <= c.hi)?;
            let op = DepthwiseF32 {
                window: c.window,
                input,
                output: [height, width],
                weights: slice::<f32>(artifact, c.weights)?.get(..count)?,
                bias: slice::<f32>(artifact, c.bias)?.get(..channels)?,
                lo: c.lo,
                hi: c.hi,
            };
            Some(Bound::DepthwiseF32 {
                op,
                residual: residual_term::<O>(artifact, c, &form.y)?.is_some(),
                batch,
                in_place,
            })
        }
        _ => None,
    }
}

/// Shapes of a (depthwise) convolution.
pub(super) struct Form {
    pub batch: usize,
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub x: Tensor,
    pub y: Tensor,
}

impl Form {
    pub fn new<O: Operators>(artifact: &Artifact<'_>, c: &Conv) -> Option<Self> {
        let (x, y) = (tensor(artifact, c.x)?, tensor(artifact, c.y)?);
        rule::<O>(|| {
            let scratch = c.scratch.is_none_or(|id| {
                let t = tensor(artifact, id);
                t.is_some_and(|t| t.dtype == DType::I8 && t.bank != CONSTANT_BANK)
            });
            // A point ignores its dilation, kernels may not: 0 is refused there too.
            scratch && !c.window.dilation.contains(&0)
        })?;
        if c.window.is_point() {
            let (cin, cout) = (x.shape.last(), y.shape.last());
            let rows = x.shape.elements() / cin;
            rule::<O>(|| y.shape.elements() == rows * cout)?;
            return Some(Form {
                batch: 1,
                input: [1, rows, cin],
                output: [1, rows, cout],
                x,
                y,
            });
        }
        let ([batch, h, w, cin], [b2, oh, ow, cout]) = (x.shape.nhwc()?, y.shape.nhwc()?);
        rule::<O>(|| {
            b2 == batch && c.window.output(0, h) == Some(oh) && c.window.output(1, w) == Some(ow)
        })?;
        Some(Form {
            batch,
            input: [h, w, cin],
            output: [oh, ow, cout],
            x,
            y,
        })
    }

    /// Types of input and output.
    pub fn types(&self) -> (DType, DType) {
        (self.x.dtype, self.y.dtype)
    }

    /// Length of a patch.
    fn depth(&self, c: &Conv) -> Option<usize> {
        c.window.taps().checked_mul(self.input[2])
    }
}

/// An int8 convolution of either kind, whose weights' number is still to be asked for.
#[cfg_attr(target_os = "none", inline(never))]
pub(super) fn codes<'m, O: Operators>(
    artifact: &Artifact<'m>,
    c: &Conv,
    form: &Form,
) -> Option<(ConvI8<'m>, ResidualTerm)> {
    let channels = form.output[2];
    let (lo, hi) = (c.lo as i8, c.hi as i8);
    rule::<O>(|| {
        let bounds = f32::from(lo) == c.lo && f32::from(hi) == c.hi && lo <= hi;
        let zeros = zero(c.zero).is_some() && i8::try_from(form.x.zero_point).is_ok();
        bounds && zeros && c.weight_type == DType::I8
    })?;
    let conv = ConvI8 {
        window: c.window,
        input: form.input,
        output: form.output,
        weights: slice(artifact, c.weights)?,
        bias: channel_slice(artifact, c.bias, channels)?,
        weight_sums: channel_slice(artifact, c.sums?, channels)?,
        multipliers: channel_slice(artifact, c.multipliers?, channels)?,
        input_zero: form.x.zero_point as i8,
        epilogue: EpilogueI8 {
            zero: c.zero,
            lo,
            hi,
            table: optional_codes(artifact, c.table)?,
            residual: None,
        },
    };
    Some((conv, residual_term::<O>(artifact, c, &form.y)?))
}

/// How a depthwise convolution whose output is in its input's memory runs; `None` when it can't, or has
/// too little working memory.
fn in_place<O: Operators>(
    artifact: &Artifact<'_>,
    c: &Conv,
    input: [usize; 3],
    dtype: DType,
) -> Option<InPlace> {
    let map = InPlace::new(&c.window, input)?;
    rule::<O>(|| {
        let scratch = c.scratch.and_then(|id| tensor(artifact, id));
        let need = map.least().and_then(|n| n.checked_mul(dtype.size()));
        let bytes = scratch.map_or(0, |t| t.bytes());
        need.is_some_and(|need| bytes >= need) && scratch.is_some() && bytes % dtype.size() == 0
    })?;
    Some(map)
}

fn wide<'m, O: Operators>(
    artifact: &Artifact<'m>,
    c: &Conv,
    form: &Form,
    weights: usize,
    depthwise: bool,
) -> Option<Bound<'m>> {
    let channels = form.output[2];
    let conv = ConvI16 {
        window: c.window,
        input: form.input,
        output: form.output,
        weights: slice(artifact, c.weights)?,
        bias: channel_slice(artifact, c.bias, channels)?,
        multipliers: channel_slice(artifact, c.multipliers?, channels)?,
        lo: code(c.lo, -32767, 32767)? as i16,
        hi: code(c.hi, -32767, 32767)? as i16,
        depthwise,
    };
    rule::<O>(|| {
        let plain =
            c.residual.is_none() && c.table.is_none() && c.zero == 0 && c.weight_type == DType::I8;
        plain && conv.lo <= conv.hi && conv.weights.len() >= weights
    })?;
    Some(Bound::ConvI16 {
        conv,
        batch: form.batch,
    })
}

/// The residual's term; the outer `None` means that it does not fit.
fn residual_term<O: Operators>(
    artifact: &Artifact<'_>,
    c: &Conv,
    y: &Tensor,
) -> Option<ResidualTerm> {
    let Some((id, multiplier)) = c.residual else {
        return Some(None);
    };
    let r = tensor(artifact, id)?;
    rule::<O>(|| {
        r.dtype == y.dtype
            && r.shape.elements() == y.shape.elements()
            && multiplier.abs() <= MAX_MULTIPLIER
    })?;
    Some(Some((r.zero_point, multiplier)))
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
