//! Entry point: one length check, then the kernel of the instruction set.

use super::{QUAD, SparseI8, portable};
#[cfg(target_arch = "x86_64")]
use crate::arch::x86::conv as x86;
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::conv::kernel::CallI8;
use crate::ops::length::at_least;

/// Most bytes of a quad of packed pixels: four tiles of 16 pixels and half a tile.
pub(crate) const PANEL_STEP: usize = 4 * 64 + 32;

/// Computes output pixels `first..first + y.len() / channels` into `y`.
///
/// `scratch` holds packed pixels and may have any length, even 0: see [`scratch_bytes`]. Its content before the call does
/// not matter and after the call means nothing.
///
/// # Errors
///
/// [`Error::Length`] when a slice is too short for the geometry, the geometry contradicts itself, or the window is not a
/// point.
pub fn sparse_i8(
    cap: Capability,
    op: &SparseI8<'_>,
    x: &[i8],
    first: usize,
    y: &mut [i8],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let blocks = &op.blocks;
    at_least(op.conv.output[2].saturating_add(1), blocks.starts.len())?;
    if !op.conv.window.is_point() {
        let (expected, got) = (1, op.conv.window.taps());
        return Err(Error::Length { expected, got });
    }
    let call = CallI8::without_weights(&op.conv, x, first, y, scratch)?;
    match cap {
        #[cfg(target_arch = "x86_64")]
        Capability::Avx512Vnni(token) => x86::sparse512::sparse_i8(token, call, blocks),
        #[cfg(target_arch = "x86_64")]
        Capability::Amx(token) => x86::sparse512::sparse_i8(token.avx512vnni(), call, blocks),
        _ => portable::sparse_i8(call, blocks),
    }
    Ok(())
}

/// Scratch bytes with which [`sparse_i8`] packs as many pixels at a time as its widest kernel has registers for. With less, layers of
/// up to some thousand input channels pack fewer, on the stack.
///
/// ```
/// assert_eq!(ampoule_runtime::ops::sparse::scratch_bytes(192), 48 * 288);
/// ```
pub fn scratch_bytes(input_channels: usize) -> usize {
    input_channels.div_ceil(QUAD) * PANEL_STEP
}
