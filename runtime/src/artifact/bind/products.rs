//! Products of two tensors: matrices and attention.

use super::super::Artifact;
use super::super::step::Attention;
use super::lookup::{is_multiplier, slice, tensor};
use super::{Bound, rule};
use crate::operators::{Kind, Operators};
use crate::ops::attention::{self, AttentionI8, Bias};
use crate::ops::matmul::{MatMulI8, shapes_agree};
use crate::tensor::{CONSTANT_BANK, DType, Tensor, TensorId};

/// Largest multiplier of an attention's scores: keeps them finite.
const MAX_OCTAVES: f32 = 1_099_511_627_776.0; // 2⁴⁰

pub(super) fn matmul<'m, O: Operators>(
    artifact: &Artifact<'m>,
    a: TensorId,
    b: TensorId,
    y: TensorId,
) -> Option<Bound<'m>> {
    let (a, b) = (tensor(artifact, a)?, tensor(artifact, b)?);
    let y = tensor(artifact, y)?;
    let integer = match [a.dtype, b.dtype, y.dtype] {
        [DType::F32, DType::F32, DType::F32] => None,
        [DType::I8, DType::I8, DType::I8] => {
            let op = MatMulI8 {
                a_zero: a.zero_point,
                b_zero: b.zero_point,
                multiplier: a.scale * b.scale / y.scale,
                zero: y.zero_point,
            };
            rule::<O>(|| a.shape.last() <= 1 << 15 && is_multiplier(op.multiplier))?;
            Some(op)
        }
        _ => return None,
    };
    rule::<O>(|| shapes_agree(&a.shape, &b.shape, &y.shape))?;
    Some(Bound::MatMul {
        a: a.shape,
        b: b.shape,
        y: y.shape,
        integer,
    })
}

/// An attention whose keys stand for several tokens each.
pub(super) fn weighted_attention<'m, O: Operators>(
    artifact: &Artifact<'m>,
    step: &Attention,
    sizes: TensorId,
) -> Option<Bound<'m>> {
    let sizes = tensor(artifact, sizes)?;
    rule::<O>(|| {
        step.bias.is_none()
            && sizes.dtype == DType::I32
            && sizes.shape.elements() == step.geometry.key_count()
    })?;
    attention::<O>(artifact, step)
}

pub(super) fn attention<'m, O: Operators>(
    artifact: &Artifact<'m>,
    step: &Attention,
) -> Option<Bound<'m>> {
    let (q, k) = (tensor(artifact, step.q)?, tensor(artifact, step.k)?);
    let (v, y) = (tensor(artifact, step.v)?, tensor(artifact, step.y)?);
    let scratch = tensor(artifact, step.scratch)?;
    let geometry = step.geometry;
    let bias = match step.bias {
        Some((blob, layout)) => Some(Bias {
            values: slice(artifact, blob)?,
            layout,
        }),
        None => None,
    };
    rule::<O>(|| {
        let len = |t: &Tensor| t.shape.elements();
        let small = step.multiplier > 0.0 && step.multiplier <= MAX_OCTAVES;
        let arena = scratch.dtype == DType::I8 && scratch.bank != CONSTANT_BANK;
        geometry.fits(len(&q), len(&k), len(&v), len(&y))
            && small
            && arena
            && bias.is_none_or(|b| b.fits(&geometry))
    })?;
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
            rule::<O>(|| {
                let room = scratch.bytes() >= attention::scratch_bytes(&geometry);
                room && is_multiplier(op.ratio)
            })?;
            Some(Bound::AttentionI8(op))
        }
        [DType::F32, DType::F32, DType::F32, DType::F32]
            if O::SET.has(Kind::Attention, DType::F32) =>
        {
            rule::<O>(|| scratch.bytes() >= attention::scratch_bytes_f32(&geometry))?;
            Some(Bound::AttentionF32 {
                geometry,
                multiplier,
                bias,
            })
        }
        _ => None,
    }
}
