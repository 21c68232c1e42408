//! Entry point: one length check, then the kernel of the instruction set.

use super::{QUAD, SparseI8, portable};
#[cfg(simd128)]
use crate::arch::simd128;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86::conv as x86;
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::conv::kernel::CallI8;
use crate::ops::length::at_least;

/// Bytes of packed pixels that kernels hold on the stack.
pub(crate) const STACK: usize = 32 << 10;
/// Pixels for which more than that pays.
pub(crate) const FEW: usize = 32;

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
        Capability::Avx2(token) => x86::sparse256::sparse_i8(token, call, blocks),
        #[cfg(target_arch = "x86_64")]
        Capability::AvxVnni(token) => x86::sparse256::sparse_i8(token.avx2(), call, blocks),
        #[cfg(target_arch = "x86_64")]
        Capability::Avx512Vnni(token) => x86::sparse512::sparse_i8(token, call, blocks),
        #[cfg(target_arch = "x86_64")]
        Capability::Amx(token) => x86::sparse512::sparse_i8(token.avx512vnni(), call, blocks),
        #[cfg(target_arch = "aarch64")]
        Capability::Neon(token) => simd128::sparse::sparse_i8(token, call, blocks),
        #[cfg(target_arch = "aarch64")]
        Capability::Dotprod(token) => simd128::sparse::sparse_i8(token, call, blocks),
        #[cfg(target_arch = "aarch64")]
        Capability::I8mm(token) => simd128::sparse::sparse_i8(token, call, blocks),
        #[cfg(wasm_simd128)]
        Capability::Simd128(token) => simd128::sparse::sparse_i8(token, call, blocks),
        _ => portable::sparse_i8(call, blocks),
    }
    Ok(())
}

/// Scratch bytes with which [`sparse_i8`] packs 32 pixels at a time. Up to 1024 input channels the stack has room for them; without
/// scratch a layer of more packs 16, and one of more than 2048 takes the slow path.
///
/// ```
/// use ampoule_runtime::ops::sparse::scratch_bytes;
/// assert_eq!((scratch_bytes(1024), scratch_bytes(1152)), (0, 32 * 1152 + 64));
/// ```
pub fn scratch_bytes(input_channels: usize) -> usize {
    let packed = FEW * input_channels.next_multiple_of(QUAD);
    // The beginning is left out up to a multiple of 64.
    if packed > STACK { packed + 64 } else { 0 }
}
