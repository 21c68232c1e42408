//! Operators that move elements.

use super::super::Artifact;
use super::lookup::{alike, around, tensor};
use super::{Bound, rule};
use crate::operators::{Operators, Variant};
use crate::ops::copy::Strided;
use crate::tensor::{DType, TensorId};

pub(super) fn copy<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    map: Strided,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    rule::<O>(|| {
        let (from, to) = (x.shape.elements(), y.shape.elements());
        let inside = match O::SET.includes(Variant::Scatter) {
            true => map.fits(from, to),
            false => map.is_identity() && map.elements() <= from as u64,
        };
        alike(&x, &y) && inside && map.elements() <= to as u64
    })?;
    Some(Bound::Copy {
        map,
        size: x.dtype.size(),
    })
}

pub(super) fn fill<'m>(artifact: &Artifact<'m>, y: TensorId, bits: u32) -> Option<Bound<'m>> {
    Some(Bound::Fill {
        bits,
        size: tensor(artifact, y)?.dtype.size(),
    })
}

pub(super) fn gather<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    indices: TensorId,
    y: TensorId,
    axis: u8,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    let indices = tensor(artifact, indices)?;
    let (outer, size, inner) = around(&x.shape, axis)?;
    rule::<O>(|| {
        let count = indices.shape.elements();
        let elements = (outer * inner) as u64 * count as u64;
        let fits = indices.dtype == DType::I32 && y.shape.elements() as u64 == elements;
        alike(&x, &y) && fits
    })?;
    Some(Bound::Gather {
        axis: size,
        inner: inner * x.dtype.size(),
    })
}
