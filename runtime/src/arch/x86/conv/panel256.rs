//! Rows of patches in the form that a 256-bit kernel multiplies, and the loop over them.

use core::mem::MaybeUninit;
use core::ops::Range;

use super::panel::Rows;
use super::parts;
use crate::ops::conv::kernel::CallI8;

/// Most rows of a tile of two vectors of channels: its accumulators, two weights, an activation and
/// a product fill the registers.
pub(super) const ROWS: usize = 6;
/// Rows start at multiples of this many values.
const ALIGN: usize = 16;
/// Bytes of converted rows, on the stack.
pub(super) const MEMORY: usize = 128 << 10;
/// Bytes that a panel and its output share in the first-level cache.
const CACHE: usize = 32 << 10;
/// Rows for which [`CACHE`] may be exceeded, because fewer would read the weights too often.
const ENOUGH: usize = 11 * ROWS;

/// A kernel of some vector instruction set, for one call.
pub(super) trait Kernel {
    /// Bytes of a converted value.
    const VALUE: usize;

    /// Converts `length` values at `from` and up to [`ALIGN`]` − 1` that follow, whatever they are.
    ///
    /// # Safety
    ///
    /// `readable`, at least `length`, values can be read at `from`; `length` rounded up to [`ALIGN`]
    /// can be written at `to`. Whatever is written must have been read before: the values may be the
    /// end of the place they are written to.
    unsafe fn convert(&self, from: *const i8, readable: usize, length: usize, to: *mut u8);

    /// Computes output pixels `pixels`, counted from the call's first, from rows of converted patches.
    ///
    /// # Safety
    ///
    /// `rows` holds one row per pixel, and `pixels` lie in the call's range.
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>);
}

#[repr(align(64))]
struct Memory([MaybeUninit<u8>; MEMORY]);

/// Whether a converted patch of the call fits the memory.
pub(super) fn fits<K: Kernel>(call: &CallI8<'_, '_>) -> bool {
    row_bytes::<K>(call) <= MEMORY
}

fn row_bytes<K: Kernel>(call: &CallI8<'_, '_>) -> usize {
    call.conv.depth().next_multiple_of(ALIGN) * K::VALUE
}

/// Runs a kernel over all pixels of a call that [`fits`], panel by panel.
pub(super) fn drive<K: Kernel>(kernel: &K, call: &CallI8<'_, '_>) {
    let stride = row_bytes::<K>(call);
    let mut memory = Memory([const { MaybeUninit::uninit() }; MEMORY]);
    let room = MEMORY / stride;
    let most = (CACHE / (stride + call.conv.output[2])).max(ENOUGH).min(room);
    if !call.conv.window.is_point() {
        // Patches are gathered into memory that has been written.
        let used = most.min(call.pixels) * stride;
        memory.0[..used].fill(MaybeUninit::new(0));
    }
    // Panels are whole tiles.
    let group = if most < ROWS { 1 } else { ROWS };
    for (first, groups) in parts(call.pixels.div_ceil(group), most / group) {
        let start = first * group;
        let count = (groups * group).min(call.pixels - start);
        let panel = &mut memory.0[..count * stride];
        // SAFETY: no panel has more than `most` rows, and all of these have been written.
        unsafe { fill(kernel, call, start, stride, panel) };
        let rows = Rows {
            base: panel.as_ptr().cast(),
            stride,
        };
        // SAFETY: a row of the panel was written for each of these pixels of the call.
        unsafe { kernel.tiles(rows, start..start + count) };
    }
}

/// Writes the converted patches of pixels from `start` on, counted from the call's first.
///
/// # Safety
///
/// Unless the window is a point, the panel has been written to before.
unsafe fn fill<K: Kernel>(
    kernel: &K,
    call: &CallI8<'_, '_>,
    start: usize,
    stride: usize,
    panel: &mut [MaybeUninit<u8>],
) {
    let depth = call.conv.depth();
    let count = panel.len() / stride;
    if !call.conv.window.is_point() {
        // A patch is gathered at the end of its row, from where its conversion does not overtake it.
        let end = stride - stride / K::VALUE;
        let gathered = &mut panel[end..];
        // SAFETY: the caller has written the memory, and i8 and u8 have one layout.
        let gathered = unsafe {
            core::slice::from_raw_parts_mut(gathered.as_mut_ptr().cast::<i8>(), gathered.len())
        };
        let patches = call.patches();
        patches.gather_rows(call.first + start, count, gathered, stride);
        for row in panel.chunks_exact_mut(stride) {
            let row = row.as_mut_ptr().cast::<u8>();
            // SAFETY: the row ends with as many values as it has room for when they are converted.
            unsafe { kernel.convert(row.add(end).cast(), stride / K::VALUE, depth, row) };
        }
        return;
    }
    let from = &call.x[(call.first + start) * depth..];
    // Without gaps between the rows they are one.
    let (length, step) = if stride == depth * K::VALUE {
        (count * depth, panel.len())
    } else {
        (depth, stride)
    };
    for (i, row) in panel.chunks_exact_mut(step).enumerate() {
        let from = &from[i * length..];
        // SAFETY: the values are the input's, and the row has room for them.
        unsafe { kernel.convert(from.as_ptr(), from.len(), length, row.as_mut_ptr().cast()) };
    }
}
