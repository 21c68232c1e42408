//! Golden vectors: inputs that a seed generates and the exact outputs they give.
//!
//! Section layout, repeated: u32 seed, u32 byte length of all outputs, the outputs' bytes in output
//! order, zero padding to a multiple of 4. Inputs are not stored: [`golden_input`] makes them.

use super::layout::u32_at;
use crate::tensor::DType;

/// One golden vector.
#[derive(Debug, Clone, Copy)]
pub struct Golden<'m> {
    /// Seed of the inputs.
    pub seed: u32,
    /// Bytes of all outputs, one after the other.
    pub outputs: &'m [u8],
}

pub(super) fn iter(mut rest: &[u8]) -> impl Iterator<Item = Golden<'_>> {
    core::iter::from_fn(move || {
        let seed = u32_at(rest, 0)?;
        let len = u32_at(rest, 4)? as usize;
        let outputs = rest.get(8..8usize.checked_add(len)?)?;
        rest = rest.get(8 + len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Golden { seed, outputs })
    })
}

/// Fills the bytes of an integer input from a seed (a linear congruential generator, high byte).
///
/// Float inputs get multiples of 1/64 in [-2, 2), so that every target computes the same values; indices
/// are 0 or 1 (the highest bit), which every table has.
pub fn golden_input(seed: u32, dtype: DType, bytes: &mut [u8]) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    match dtype {
        DType::F32 => {
            for value in bytes.chunks_exact_mut(4) {
                let v = (f32::from(next()) - 128.0) / 64.0;
                value.copy_from_slice(&v.to_le_bytes());
            }
        }
        DType::I32 => {
            for value in bytes.chunks_exact_mut(4) {
                value.copy_from_slice(&i32::from(next() >> 7).to_le_bytes());
            }
        }
        _ => bytes.fill_with(next),
    }
}
