//! Operators along an axis: reductions, softmax, normalisation, arg-max.

use super::super::{Artifact, Blob};
use super::lookup::{around, array, is_multiplier, same_count, slice, tensor};
use super::{Bound, rule};
use crate::operators::Operators;
use crate::ops::norm::{self, MAX_CHANNELS};
use crate::ops::reduce::ReduceKind;
use crate::tensor::{DType, TensorId};

pub(super) fn reduce<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    kind: ReduceKind,
    axes: u8,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    rule::<O>(|| {
        let rank = x.shape.rank();
        let reduced = |d: usize| axes >> d & 1 == 1;
        let size = |d: usize| if reduced(d) { 1 } else { x.shape.dim(d) };
        let shape = y.shape.rank() == rank && (0..rank).all(|d| y.shape.dim(d) == size(d));
        let types = match (x.dtype, y.dtype) {
            (DType::F32, DType::F32) => true,
            (DType::I8, DType::I8) => {
                kind == ReduceKind::Mean
                    && is_multiplier(x.scale / y.scale)
                    && x.shape.elements() < 1 << 23
            }
            _ => false,
        };
        shape && types && u32::from(axes) < 1 << rank
    })?;
    Some(Bound::Reduce { kind, axes, x, y })
}

pub(super) fn softmax<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    log: bool,
    table: Option<Blob>,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    let row = x.shape.last();
    let table = match table {
        Some(blob) => Some(array::<u32, 256>(artifact, blob)?),
        None => None,
    };
    rule::<O>(|| {
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
        types && same_count(&x, &y)
    })?;
    Some(Bound::Softmax { row, log, table })
}

pub(super) fn layer_norm<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    gain: Blob,
    offset: Blob,
    epsilon: f32,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    let op = norm::LayerNorm {
        gain: slice(artifact, gain)?,
        offset: slice(artifact, offset)?,
        epsilon,
        zero: y.zero_point,
    };
    rule::<O>(|| {
        let channels = x.shape.last();
        let types = match (x.dtype, y.dtype) {
            (DType::F32, DType::F32) => true,
            (DType::I8 | DType::I16, DType::I8) => channels <= MAX_CHANNELS && epsilon > 0.0,
            _ => false,
        };
        let lengths = op.gain.len() == channels && op.offset.len() == channels;
        types && same_count(&x, &y) && lengths && epsilon.is_finite()
    })?;
    Some(Bound::LayerNorm { op, dtype: x.dtype })
}

pub(super) fn arg_max<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    axis: u8,
    last: bool,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    let (outer, size, inner) = around(&x.shape, axis)?;
    rule::<O>(|| {
        let known = matches!(x.dtype, DType::I8 | DType::I32 | DType::F32);
        known && y.dtype == DType::I32 && y.shape.elements() == outer * inner
    })?;
    Some(Bound::ArgMax {
        axis: size,
        inner,
        last,
        dtype: x.dtype,
    })
}
