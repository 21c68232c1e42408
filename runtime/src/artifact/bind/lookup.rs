//! What binding looks up: tensors, and constants as slices of their type.

use super::super::{Artifact, Blob};
use crate::numerics::MAX_CODE;
use crate::ops::conv::WIDTH;
use crate::tensor::{Shape, Tensor, TensorId};

/// Largest multiplier, 2⁶⁴: whatever is scaled stays finite, so that no difference of two such values
/// is a NaN, which instruction sets clamp differently.
pub(super) const MAX_MULTIPLIER: f32 = 18_446_744_073_709_551_616.0;

/// A tensor's record.
pub(super) fn tensor(artifact: &Artifact<'_>, id: TensorId) -> Option<Tensor> {
    artifact.record(id)
}

/// Whether two tensors hold the same type with the same meaning.
pub(super) fn alike(x: &Tensor, y: &Tensor) -> bool {
    x.dtype == y.dtype && x.scale == y.scale && x.zero_point == y.zero_point
}

/// Whether two tensors have as many elements.
pub(super) fn same_count(x: &Tensor, y: &Tensor) -> bool {
    x.shape.elements() == y.shape.elements()
}

/// Whether a requantisation's multiplier is in its domain.
pub(super) fn is_multiplier(m: f32) -> bool {
    (0.0..=MAX_MULTIPLIER).contains(&m)
}

/// A clamp bound that must be an integer code.
pub(super) fn code(value: f32, lo: i32, hi: i32) -> Option<i32> {
    let code = value as i32;
    (code as f32 == value && (lo..=hi).contains(&code)).then_some(code)
}

/// A result's zero point.
pub(super) fn zero(zero: i32) -> Option<i32> {
    (-MAX_CODE..=MAX_CODE).contains(&zero).then_some(zero)
}

/// Numbers of elements before an axis, along it and after it.
pub(super) fn around(shape: &Shape, axis: u8) -> Option<(usize, usize, usize)> {
    let (before, rest) = shape.dims().split_at_checked(axis.into())?;
    let (&size, after) = rest.split_first()?;
    let product = |dims: &[u32]| dims.iter().map(|&d| d as usize).product();
    Some((product(before), size as usize, product(after)))
}

/// A constant.
pub(super) fn slice<'m, T: bytemuck::AnyBitPattern>(
    artifact: &Artifact<'m>,
    blob: Blob,
) -> Option<&'m [T]> {
    bytemuck::try_cast_slice(artifact.blob(blob).ok()?).ok()
}

/// A per-channel vector, padded to whole blocks.
pub(super) fn channel_slice<'m, T: bytemuck::AnyBitPattern>(
    artifact: &Artifact<'m>,
    blob: Blob,
    channels: usize,
) -> Option<&'m [T]> {
    slice(artifact, blob)?.get(..channels.div_ceil(WIDTH) * WIDTH)
}

/// A constant of a fixed length.
pub(super) fn array<'m, T: bytemuck::AnyBitPattern, const N: usize>(
    artifact: &Artifact<'m>,
    blob: Blob,
) -> Option<&'m [T; N]> {
    slice(artifact, blob)?.try_into().ok()
}

/// A table of codes, where there is to be one; the outer `None` means that it does not fit.
pub(super) fn optional_codes<'m>(
    artifact: &Artifact<'m>,
    blob: Option<Blob>,
) -> Option<Option<&'m [i8; 256]>> {
    match blob {
        Some(blob) => Some(Some(array(artifact, blob)?)),
        None => Some(None),
    }
}
