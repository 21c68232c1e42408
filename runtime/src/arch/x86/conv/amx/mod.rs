//! AMX: `tdpbssd` on tiles of up to 16 pixels by 16 channels by 64 patch values.
//!
//! Rows of patches are read from the input where a point window allows it, else from a panel that
//! they are gathered into.

#[cfg(test)]
pub(crate) mod emulator;
mod kernel;
mod pipeline;
mod tiles;

use kernel::{Kernel, Rows};
use tiles::TILE;

use super::{avx512vnni, parts};
use crate::arch::x86::Amx;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape, QUAD};

/// With fewer pixels a tile is mostly empty and AVX-512 is as fast.
const FEW_PIXELS: usize = 4;
/// Stack that stands in for scratch that is smaller.
const STACK: usize = 16 << 10;
/// Gathered rows stay below this many bytes, so that they remain in the first-level cache.
const PANEL: usize = 32 << 10;

/// Computes the call's pixels.
pub(crate) fn conv_i8<'a>(token: Amx, mut call: CallI8<'a, 'a>) {
    let depth = Depth::new(call.conv, call.packed);
    let row = depth.row_bytes();
    let scratch = core::mem::take(&mut call.scratch);
    if call.pixels < FEW_PIXELS || (!depth.direct && row > scratch.len().max(STACK)) {
        call.scratch = scratch;
        return avx512vnni::conv_i8(token.avx512vnni(), call);
    }
    if depth.direct {
        let length = call.conv.depth();
        let base = call.x[call.first * length..].as_ptr();
        let rows = Rows {
            base,
            stride: length,
            first: 0,
            count: call.pixels,
        };
        #[cfg(test)]
        emulator::lend(call.x);
        let mut kernel = Kernel::new(token, &mut call, depth, rows.count);
        // SAFETY: the rows of a point window are the input's pixels.
        return unsafe { kernel.run(rows) };
    }
    let patches = call.patches();
    let mut stack = [0u8; STACK];
    let memory = if scratch.len() > STACK {
        scratch
    } else {
        &mut stack
    };
    let most = (PANEL / row).max(2 * TILE).min(memory.len() / row);
    let panels = parts(call.pixels, most);
    let shortest = call.pixels / panels.clone().count();
    let mut kernel = Kernel::new(token, &mut call, depth, shortest);
    for (start, count) in panels {
        let panel: &mut [i8] = bytemuck::cast_slice_mut(&mut memory[..count * row]);
        patches.gather_rows(call.first + start, count, panel, row);
        panel
            .chunks_exact_mut(row)
            .for_each(|row| depth.spread(row));
        #[cfg(test)]
        emulator::lend(&memory[..count * row]);
        // SAFETY: a row was written for each of these pixels.
        unsafe {
            kernel.run(Rows {
                base: memory.as_ptr().cast(),
                stride: row,
                first: start,
                count,
            })
        };
    }
}

/// How the quads of a patch are dealt out to tiles.
///
/// All tiles are equally wide. Where that doesn't come out even, the last tile starts so early that
/// it ends with the patch, and the values that it shares with the tile before are 0 in its rows: so
/// no weight past the patch is ever read.
#[derive(Clone, Copy)]
struct Depth {
    quads: usize,
    /// Tiles along a patch.
    steps: usize,
    /// Quads of a tile.
    tile: usize,
    /// Whether rows are read straight from the input.
    direct: bool,
}

impl Depth {
    fn new(conv: &ConvI8<'_>, packed: PackedShape) -> Self {
        let quads = packed.quads();
        let least = quads.div_ceil(TILE);
        if conv.window.is_point() && conv.depth() % QUAD == 0 {
            let even = (least..=least + least / 4).find(|steps| quads % steps == 0);
            if let Some(steps) = even {
                return Depth {
                    quads,
                    steps,
                    tile: quads / steps,
                    direct: true,
                };
            }
        }
        Depth {
            quads,
            steps: least,
            tile: quads.div_ceil(least),
            direct: false,
        }
    }

    /// Quads that the last tile shares with the one before.
    fn shared(&self) -> usize {
        self.steps * self.tile - self.quads
    }

    /// Bytes of a gathered row.
    fn row_bytes(&self) -> usize {
        (self.steps * self.tile * QUAD).next_multiple_of(64)
    }

    /// Moves the values of the last tile to their place and clears those it shares.
    fn spread(&self, row: &mut [i8]) {
        let (last, shared) = ((self.steps - 1) * self.tile * QUAD, self.shared() * QUAD);
        if shared > 0 {
            row.copy_within(last..self.quads * QUAD, last + shared);
            row[last..last + shared].fill(0);
        }
    }
}
