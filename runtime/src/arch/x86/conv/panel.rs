//! Rows of patches in the form that a vector kernel multiplies, and the loop over them.

use core::mem::MaybeUninit;
use core::ops::Range;

use super::parts;
use crate::ops::conv::QUAD;
use crate::ops::conv::kernel::CallI8;

/// Stack that stands in for scratch that is smaller.
const STACK: usize = 16 << 10;
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

/// A kernel of some vector instruction set, for one call.
pub(super) trait VectorKernel {
    /// Bytes of a converted value.
    const VALUE: usize;

    /// Converts a patch: reads `length` values at `patch` and writes as many converted ones to `row`.
    ///
    /// # Safety
    ///
    /// `length` values are readable at `patch` and, rounded up to [`ROW_ALIGN`], writable at `row`.
    /// The patch may be the end of that row: whatever is written must have been read before.
    unsafe fn convert(&self, patch: *const i8, length: usize, row: *mut u8);

    /// Computes output pixels `pixels`, counted from the call's first, from rows of converted patches.
    ///
    /// # Safety
    ///
    /// `rows` holds one row per pixel, and `pixels` lie in the call's range.
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>);
}

/// Whether the scratch or the stack holds a converted patch of the call.
pub(super) fn fits<K: VectorKernel>(call: &CallI8<'_, '_>) -> bool {
    row_bytes::<K>(call) <= call.scratch.len().max(STACK)
}

fn row_bytes<K: VectorKernel>(call: &CallI8<'_, '_>) -> usize {
    call.conv.depth().next_multiple_of(ROW_ALIGN) * K::VALUE
}

/// Runs a kernel over all pixels of a call that [`fits`], panel by panel.
pub(super) fn drive<K: VectorKernel>(kernel: &K, call: CallI8<'_, '_>) {
    let depth = call.conv.depth();
    let stride = row_bytes::<K>(&call);
    let patches = call.patches();
    let point = call.conv.window.is_point();
    let mut stack = [0; STACK];
    let memory = if call.scratch.len() > STACK {
        call.scratch
    } else {
        &mut stack
    };
    let most = (PANEL / stride).max(FEW_ROWS).min(memory.len() / stride);
    for (start, count) in parts(call.pixels, most) {
        // A patch is gathered at the end of its row, from where its conversion does not overtake it.
        let end = stride - stride / K::VALUE;
        if !point {
            let patches_at: &mut [i8] = bytemuck::cast_slice_mut(&mut memory[end..count * stride]);
            patches.gather_rows(call.first + start, count, patches_at, stride);
        }
        for (r, row) in memory.chunks_exact_mut(stride).take(count).enumerate() {
            let patch = if point {
                call.x[(call.first + start + r) * depth..][..depth].as_ptr()
            } else {
                row[end..].as_ptr().cast()
            };
            // SAFETY: the patch is `depth` values of the input, or was gathered at the end of the row,
            // which is as long as `depth` rounded up.
            unsafe { kernel.convert(patch, depth, row.as_mut_ptr()) };
        }
        let rows = Rows {
            base: memory.as_ptr(),
            stride,
        };
        // SAFETY: a row of the panel was written for each of these pixels of the call.
        unsafe { kernel.tiles(rows, start..start + count) };
    }
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
    for start in (0..call.pixels).step_by(most) {
        let count = most.min(call.pixels - start);
        let (first, bytes) = (call.first + start, count * stride);
        let values = if call.conv.window.is_point() && stride == depth {
            call.x[first * depth..][..bytes].as_ptr()
        } else {
            // SAFETY: the memory holds `most` rows; zeros are values.
            let panel = unsafe {
                memory.write_bytes(0, bytes);
                core::slice::from_raw_parts_mut(memory.cast(), bytes)
            };
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
