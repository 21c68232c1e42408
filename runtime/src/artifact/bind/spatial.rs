//! Pooling and resizing.

use super::super::Artifact;
use super::lookup::{alike, is_multiplier, tensor};
use super::{Bound, rule};
use crate::operators::Operators;
use crate::ops::Window;
use crate::ops::pool::{AveragePoolI8, Pool, PoolKind};
use crate::ops::resize::{Coordinates, Interpolation, Resize};
use crate::tensor::{DType, TensorId};

/// Longest side of a resized map: its positions are fractions in 64 bits.
const MAX_SIDE: usize = 1 << 24;

pub(super) fn pool<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    kind: PoolKind,
    window: Window,
    include_pad: bool,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    let ([batch, h, w, c], out) = (x.shape.nhwc()?, y.shape.nhwc()?);
    let [_, oh, ow, _] = out;
    let pool = Pool {
        window,
        input: [h, w, c],
        output: [oh, ow],
        include_pad,
    };
    let average = AveragePoolI8 {
        pool,
        x_zero: x.zero_point,
        multiplier: x.scale / y.scale,
        zero: y.zero_point,
        lo: i8::MIN,
        hi: i8::MAX,
    };
    rule::<O>(|| {
        let types = match (x.dtype, y.dtype) {
            (DType::I8, DType::I8) => kind == PoolKind::Average || alike(&x, &y),
            (DType::F32, DType::F32) => true,
            _ => false,
        };
        let slides = window.output(0, h) == Some(oh) && window.output(1, w) == Some(ow);
        types && slides && out == [batch, oh, ow, c] && is_multiplier(average.multiplier)
    })?;
    Some(Bound::Pool {
        kind,
        pool,
        average,
        dtype: x.dtype,
        batch,
    })
}

pub(super) fn resize<'m, O: Operators>(
    artifact: &Artifact<'m>,
    x: TensorId,
    y: TensorId,
    interpolation: Interpolation,
    coordinates: Coordinates,
) -> Option<Bound<'m>> {
    let (x, y) = (tensor(artifact, x)?, tensor(artifact, y)?);
    let ([batch, h, w, c], [b2, oh, ow, c2]) = (x.shape.nhwc()?, y.shape.nhwc()?);
    rule::<O>(|| {
        let kernel = matches!(x.dtype, DType::I8 | DType::I16 | DType::F32);
        let small = [h, w, oh, ow].iter().all(|&side| side <= MAX_SIDE);
        alike(&x, &y) && kernel && small && (b2, c2) == (batch, c)
    })?;
    Some(Bound::Resize {
        resize: Resize {
            input: [h, w, c],
            output: [oh, ow],
            interpolation,
            coordinates,
        },
        dtype: x.dtype,
        batch,
    })
}
