//! Rows of float patches, and the loop over them.

use core::ops::Range;

use super::parts;
use crate::ops::conv::kernel::CallF32;
use crate::ops::conv::portable;

/// Values of the stack that stands in for scratch that is smaller.
const STACK: usize = 4 << 10;
/// Gathered rows stay below this many values, so that they remain in the first-level cache.
const PANEL: usize = 8 << 10;
/// Rows for which [`PANEL`] may be exceeded, because fewer would read the weights too often.
const FEW_ROWS: usize = 12;

/// Rows of patches: row `r` starts at `base + r · stride` values.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) base: *const f32,
    pub(super) stride: usize,
}

/// Calls `tiles` with the rows of each panel and their pixels, counted from the call's first: for a
/// point window once with the input itself. A patch that neither the scratch nor [`STACK`] holds
/// goes to the portable kernel.
pub(super) fn drive(mut call: CallF32<'_, '_>, tiles: impl Fn(Rows, Range<usize>, &mut [f32])) {
    let depth = call.conv.depth();
    if call.conv.window.is_point() {
        let rows = Rows {
            base: call.x[call.first * depth..].as_ptr(),
            stride: depth,
        };
        return tiles(rows, 0..call.pixels, call.y);
    }
    let scratch = core::mem::take(&mut call.scratch);
    let mut stack = [0.0; STACK];
    let memory = match aligned(scratch) {
        Some(memory) if memory.len() > STACK => memory,
        _ => &mut stack,
    };
    if depth > memory.len() {
        return portable::conv_f32(call);
    }
    let most = (PANEL / depth).max(FEW_ROWS).min(memory.len() / depth);
    let patches = call.patches();
    for (start, count) in parts(call.pixels, most) {
        patches.gather_rows(call.first + start, count, memory, depth);
        tiles(
            Rows {
                base: memory.as_ptr(),
                stride: depth,
            },
            start..start + count,
            call.y,
        );
    }
}

/// The aligned values within some bytes.
fn aligned(bytes: &mut [u8]) -> Option<&mut [f32]> {
    let bytes = bytes.get_mut(bytes.as_ptr().align_offset(align_of::<f32>())..)?;
    let whole = bytes.len() - bytes.len() % size_of::<f32>();
    bytemuck::try_cast_slice_mut(&mut bytes[..whole]).ok()
}
