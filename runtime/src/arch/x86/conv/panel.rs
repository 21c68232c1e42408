//! Rows of patches in the form that a vector kernel multiplies, and the loop over them.

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

/// Whether the scratch or the stack holds a patch, for a call whose rows are not read in place.
pub(super) fn fits_signed(call: &CallI8<'_, '_>) -> bool {
    in_place(call) || signed_row_bytes(call) <= call.scratch.len().max(STACK)
}

/// Runs `tiles` over all pixels of a call that [`fits_signed`], panel by panel, with rows of patches
/// as they are: read from the input where a point window allows it, else gathered.
pub(super) fn drive_signed(call: CallI8<'_, '_>, mut tiles: impl FnMut(Rows, Range<usize>)) {
    let depth = call.conv.depth();
    if in_place(&call) {
        let x = &call.x[call.first * depth..];
        for (start, count) in parts(call.pixels, (PANEL / depth).max(FEW_ROWS)) {
            let rows = Rows {
                base: x[start * depth..].as_ptr().cast(),
                stride: depth,
            };
            tiles(rows, start..start + count);
        }
        return;
    }
    let stride = signed_row_bytes(&call);
    let patches = call.patches();
    let mut stack = [0; STACK];
    let memory = if call.scratch.len() > STACK {
        call.scratch
    } else {
        &mut stack
    };
    let most = (PANEL / stride).max(FEW_ROWS).min(memory.len() / stride);
    for (start, count) in parts(call.pixels, most) {
        let panel: &mut [i8] = bytemuck::cast_slice_mut(&mut memory[..count * stride]);
        patches.gather_rows(call.first + start, count, panel, stride);
        let rows = Rows {
            base: panel.as_ptr().cast(),
            stride,
        };
        tiles(rows, start..start + count);
    }
}

/// Whether a patch is whole quads of a pixel of the input.
fn in_place(call: &CallI8<'_, '_>) -> bool {
    call.conv.window.is_point() && call.conv.depth() % QUAD == 0
}

fn signed_row_bytes(call: &CallI8<'_, '_>) -> usize {
    call.conv.depth().next_multiple_of(ROW_ALIGN)
}
