//! Rows of patches in the form that a 256-bit kernel multiplies, and the loop over them.

use core::arch::x86_64::{__m128i, _mm_loadu_si128};
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

    /// Converts each of some rows of values, one after the other, and what follows it up to a multiple
    /// of [`ALIGN`] values, whatever that is.
    ///
    /// # Safety
    ///
    /// The values that [`Values`] describes can be read. `to` has room for a row, rounded up, every
    /// `step` bytes. Whatever is written must have been read before: the values of a row may be the
    /// end of the place they are written to.
    unsafe fn convert(&self, from: Values, to: *mut u8, step: usize);

    /// Computes output pixels `pixels`, counted from the call's first, from rows of converted patches.
    ///
    /// # Safety
    ///
    /// `rows` holds one row per pixel, and `pixels` lie in the call's range.
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>);
}

/// Rows of values before their conversion.
#[derive(Clone, Copy)]
pub(super) struct Values {
    pub(super) start: *const i8,
    /// Values that can be read from the start on: all rows, and perhaps more.
    pub(super) readable: usize,
    /// From one row to the next.
    pub(super) step: usize,
    pub(super) rows: usize,
    /// Of each row.
    pub(super) length: usize,
}

impl Values {
    /// The start of row `r` and the values that can be read there, of its length rounded up.
    #[inline(always)]
    pub(super) fn row(&self, r: usize) -> (*const i8, usize) {
        let at = r * self.step;
        let readable = (self.readable - at).min(self.length.next_multiple_of(ALIGN));
        (self.start.wrapping_add(at), readable)
    }
}

/// The first `count` values, fewer than fill the vector, and zeros.
///
/// # Safety
///
/// As many are readable.
#[inline(always)]
pub(super) unsafe fn load_part(values: *const i8, count: usize) -> __m128i {
    let mut part = [0i8; 16];
    // SAFETY: as the caller; x86-64 has the instruction.
    unsafe {
        part.as_mut_ptr().copy_from_nonoverlapping(values, count);
        _mm_loadu_si128(part.as_ptr().cast())
    }
}

/// Tiles of equal height below each other.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// First row.
    pub(super) row: usize,
    pub(super) height: usize,
    pub(super) count: usize,
}

/// Divides rows into the fewest tiles of at most `most`, as equal as can be.
pub(super) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Tiles> + Clone {
    let count = rows.div_ceil(most);
    let (height, longer) = (rows / count, rows % count);
    let tall = Tiles {
        row: 0,
        height: height + 1,
        count: longer,
    };
    let short = Tiles {
        row: longer * (height + 1),
        height,
        count: count - longer,
    };
    [tall, short].into_iter().filter(|tiles| tiles.count > 0)
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
    let mut memory = MaybeUninit::<Memory>::uninit();
    // SAFETY: bytes that may be uninitialised need no initialisation.
    let memory = unsafe { memory.assume_init_mut() };
    let room = MEMORY / stride;
    let most = (CACHE / (stride + call.conv.output[2]))
        .max(ENOUGH)
        .min(room);
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
        let values = Values {
            start: gathered.as_ptr(),
            readable: gathered.len(),
            step: stride,
            rows: count,
            length: depth,
        };
        let patches = call.patches();
        patches.gather_rows(call.first + start, count, gathered, stride);
        // SAFETY: a row ends with as many values as it has room for when they are converted.
        return unsafe { kernel.convert(values, panel.as_mut_ptr().cast(), stride) };
    }
    let x = &call.x[(call.first + start) * depth..];
    // Without gaps between the rows they are one.
    let (rows, length) = if stride == depth * K::VALUE {
        (1, count * depth)
    } else {
        (count, depth)
    };
    let values = Values {
        start: x.as_ptr(),
        readable: x.len(),
        step: length,
        rows,
        length,
    };
    // SAFETY: the values are the input's, and each row has room for a patch.
    unsafe { kernel.convert(values, panel.as_mut_ptr().cast(), stride) };
}

#[cfg(test)]
mod tests {
    use super::tiles;

    #[test]
    fn tiles_cover_every_row_once() {
        for rows in 1..100 {
            for most in [6, 12] {
                let mut at = 0;
                for tiles in tiles(rows, most) {
                    assert_eq!(tiles.row, at);
                    assert!((1..=most).contains(&tiles.height));
                    at += tiles.height * tiles.count;
                }
                assert_eq!(at, rows);
            }
        }
    }
}
