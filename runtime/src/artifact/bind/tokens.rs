//! Merging of tokens.

use super::super::Artifact;
use super::lookup::{alike, tensor};
use super::{Bound, rule};
use crate::operators::Operators;
use crate::ops::merge::{MAX_TOKENS, Matching};
use crate::tensor::{CONSTANT_BANK, DType, Tensor, TensorId};

pub(super) fn matching<'m, O: Operators>(
    artifact: &Artifact<'m>,
    k: TensorId,
    y: TensorId,
    matching: Matching,
    scratch: TensorId,
) -> Option<Bound<'m>> {
    let (k, y) = (tensor(artifact, k)?, tensor(artifact, y)?);
    let scratch = tensor(artifact, scratch)?;
    rule::<O>(|| {
        let fits = matching.fits(k.shape.elements())
            && y.dtype == DType::I32
            && y.shape.elements() == matching.tokens as usize;
        let arena = scratch.dtype == DType::I8 && scratch.bank != CONSTANT_BANK;
        let room = |need: usize| scratch.bytes() >= need;
        fits && arena
            && match k.dtype {
                DType::I8 => room(matching.scratch_bytes::<i8>()),
                DType::F32 => room(matching.scratch_bytes::<f32>()),
                _ => false,
            }
    })?;
    Some(Bound::Match {
        matching,
        zero: k.zero_point,
        dtype: k.dtype,
    })
}

pub(super) fn merge<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    places: TensorId,
    sizes: Option<TensorId>,
    y: TensorId,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    let places = tensor(artifact, places)?;
    let sizes = match sizes {
        Some(sizes) => Some(tensor(artifact, sizes)?),
        None => None,
    };
    let (rows, channels) = match sizes {
        Some(_) => (x.shape.elements() / x.shape.last(), x.shape.last()),
        None => (x.shape.elements(), 1),
    };
    rule::<O>(|| {
        let types = match x.dtype {
            DType::I8 | DType::I16 | DType::F32 => sizes.is_some(),
            DType::I32 => sizes.is_none(),
            _ => false,
        };
        let index = |t: &Tensor| t.dtype == DType::I32 && t.shape.elements() == rows;
        let fits = y.shape.elements() % channels == 0
            && y.shape.elements() <= x.shape.elements()
            && rows <= MAX_TOKENS
            && index(&places)
            && sizes.as_ref().is_none_or(index);
        types && alike(&x, &y) && fits
    })?;
    Some(Bound::Merge {
        channels,
        zero: x.zero_point,
        dtype: x.dtype,
    })
}
