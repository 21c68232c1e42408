//! Rows of patches in the form that a vector kernel multiplies, and the loop over them.

use core::mem::MaybeUninit;
use core::ops::Range;

use crate::ops::conv::QUAD;
use crate::ops::conv::kernel::CallI8;

/// A panel stays below this many bytes, so that it shares the first-level cache with the weights.
const PANEL: usize = 32 << 10;
/// Rows for which [`PANEL`] may be exceeded, because fewer would read the weights too often.
const FEW_ROWS: usize = 8;
/// Rows start at multiples of this many values.
const ROW_ALIGN: usize = 64;

/// Rows of a panel: row `r` starts at `base + r · stride` bytes and holds a whole patch, followed
/// by values that may be anything up to the next multiple of 4 (their weights are 0).
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) base: *const u8,
    pub(super) stride: usize,
}

/// Stack that stands in for scratch that is smaller, for [`drive_shifted`]; it is not initialised.
const SHIFTED_STACK: usize = 32 << 10;

/// Whether the scratch or the stack holds a patch of a call for [`drive_shifted`].
pub(super) fn fits_shifted(call: &CallI8<'_, '_>) -> bool {
    shifted_stride(call) <= call.scratch.len().max(SHIFTED_STACK)
}

/// Runs `tiles` over all pixels of a call that [`fits_shifted`], panel by panel. Rows hold values that
/// `shift` made, at a distance that is a multiple of 4. All panels but the last are whole tiles of
/// `height` rows, where they hold any.
///
/// `shift` is given values, their number and where to write them, which may be the same place.
///
/// # Safety
///
/// `shift` reads and writes as many bytes as it is told to, and no more.
pub(super) unsafe fn drive_shifted(
    call: CallI8<'_, '_>,
    height: usize,
    shift: impl Fn(*const i8, usize, *mut u8),
    mut tiles: impl FnMut(Rows, Range<usize>),
) {
    let depth = call.conv.depth();
    let stride = shifted_stride(&call);
    let patches = call.patches();
    let mut stack = MaybeUninit::<[u8; SHIFTED_STACK]>::uninit();
    let (memory, len) = if call.scratch.len() > SHIFTED_STACK {
        (call.scratch.as_mut_ptr(), call.scratch.len())
    } else {
        (stack.as_mut_ptr().cast(), SHIFTED_STACK)
    };
    let fitting = (PANEL / stride).max(FEW_ROWS).min(len / stride);
    let most = match fitting / height {
        0 => fitting,
        whole => whole * height,
    };
    let in_place = call.conv.window.is_point() && stride == depth;
    if !in_place {
        // SAFETY: the memory holds `most` rows.
        unsafe { memory.write_bytes(0, most * stride) };
    }
    for start in (0..call.pixels).step_by(most) {
        let count = most.min(call.pixels - start);
        let (first, bytes) = (call.first + start, count * stride);
        let values = if in_place {
            call.x[first * depth..][..bytes].as_ptr()
        } else {
            // SAFETY: the memory holds `most` rows, which have been written to.
            let panel = unsafe { core::slice::from_raw_parts_mut(memory.cast(), bytes) };
            patches.gather_rows(first, count, panel, stride);
            memory.cast_const().cast()
        };
        shift(values, bytes, memory);
        let rows = Rows {
            base: memory,
            stride,
        };
        tiles(rows, start..start + count);
    }
}

/// Rows of whole quads for a point window; others have room for copies in whole vectors.
fn shifted_stride(call: &CallI8<'_, '_>) -> usize {
    let unit = if call.conv.window.is_point() {
        QUAD
    } else {
        ROW_ALIGN
    };
    call.conv.depth().next_multiple_of(unit)
}
