//! Operators that treat each element on its own.

use super::super::step::Binary;
use super::super::{Artifact, Blob};
use super::lookup::{array, code, is_multiplier, optional_codes, same_count, tensor, zero};
use super::{Bound, rule};
use crate::operators::{Kind, Operators};
use crate::ops::binary::{BinaryF32, BinaryI8, BinaryI16, Broadcast};
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, TensorId};

pub(super) fn table<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    table: Blob,
) -> Option<Bound<'m>> {
    both::<O>(artifact, x, y, DType::I8)?;
    Some(Bound::Table(array(artifact, table)?))
}

pub(super) fn unary<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    kind: UnaryKind,
) -> Option<Bound<'m>> {
    both::<O>(artifact, x, y, DType::F32)?;
    Some(Bound::Unary(kind))
}

/// Asks for two tensors of a type and as many elements.
fn both<O: Operators>(
    artifact: &Artifact<'_>,
    x: TensorId,
    y: TensorId,
    dtype: DType,
) -> Option<()> {
    rule::<O>(|| match (tensor(artifact, x), tensor(artifact, y)) {
        (Some(x), Some(y)) => x.dtype == dtype && y.dtype == dtype && same_count(&x, &y),
        _ => false,
    })
}

pub(super) fn binary<'m, O: Operators>(
    artifact: &Artifact<'m>,
    step: &Binary,
) -> Option<Bound<'m>> {
    let (a, b) = (tensor(artifact, step.a)?, tensor(artifact, step.b)?);
    let y = tensor(artifact, step.y)?;
    let layout = Broadcast::new(&a.shape, &b.shape)?;
    let (ra, rb, rab) = (
        a.scale / step.scale,
        b.scale / step.scale,
        a.scale * b.scale / step.scale,
    );
    rule::<O>(|| {
        layout.output().elements() == y.shape.elements()
            && step.scale.is_finite()
            && step.scale > 0.0
            && a.dtype == b.dtype
            && a.dtype == y.dtype
            && (a.dtype == DType::F32 || [ra, rb, rab].into_iter().all(is_multiplier))
    })?;
    match a.dtype {
        DType::I8 if O::SET.has(Kind::Binary, DType::I8) => {
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
                table: optional_codes(artifact, step.table)?,
            };
            rule::<O>(|| op.lo <= op.hi)?;
            Some(Bound::BinaryI8(op, layout))
        }
        DType::I16 if O::SET.has(Kind::Binary, DType::I16) => {
            rule::<O>(|| step.table.is_none() && step.zero == 0)?;
            let op = BinaryI16 {
                kind: step.kind.integer()?,
                a_multiplier: ra,
                b_multiplier: rb,
                multiplier: rab,
            };
            Some(Bound::BinaryI16(op, layout))
        }
        DType::F32 if O::SET.has(Kind::Binary, DType::F32) => {
            rule::<O>(|| step.lo <= step.hi)?;
            let op = BinaryF32 {
                kind: step.kind,
                lo: step.lo,
                hi: step.hi,
            };
            Some(Bound::BinaryF32(op, layout))
        }
        _ => None,
    }
}

pub(super) fn convert<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    rule::<O>(|| {
        let known = |t: DType| matches!(t, DType::I8 | DType::I16 | DType::F32);
        let distinct = x.dtype != y.dtype || x.dtype == DType::I8;
        distinct
            && known(x.dtype)
            && known(y.dtype)
            && same_count(&x, &y)
            && is_multiplier(x.scale / y.scale)
            && (1.0 / y.scale).is_finite()
    })?;
    Some(Bound::Convert { x, y })
}
