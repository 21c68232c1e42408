//! Covers rows and blocks with groups of tiles.

use super::Depth;
use super::pipeline::Pipeline;
use super::tiles::{self, GROUP, TILE};
use crate::arch::x86::Amx;
use crate::arch::x86::conv::epilogue512::Epilogue;
#[cfg(test)]
use crate::ops::conv::WEIGHT_SLACK;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, PackedShape};

/// Weights of at most this many bytes stay in the first-level cache while rows and output go by.
const SMALL_WEIGHTS: usize = 24 << 10;

/// Rows of patches: row `r` starts at `base + r · stride` bytes and belongs to pixel `first + r`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) base: *const i8,
    pub(super) stride: usize,
    pub(super) first: usize,
    pub(super) count: usize,
}

/// The state of one call; it holds the tile registers.
pub(super) struct Kernel<'a, 'c> {
    pub(super) conv: &'a ConvI8<'c>,
    pub(super) packed: PackedShape,
    pub(super) depth: Depth,
    /// Pixels of a tile.
    pub(super) height: usize,
    pub(super) epilogue: Epilogue,
}

impl<'a, 'c> Kernel<'a, 'c> {
    /// For panels of at least `pixels` rows.
    pub(super) fn new(_: Amx, call: &mut CallI8<'a, 'c>, depth: Depth, pixels: usize) -> Self {
        let tiles = pixels.div_ceil(TILE);
        // Tiles go in pairs: 6 shorter ones take less time than 5.
        let tiles = if tiles > 1 {
            tiles.next_multiple_of(2)
        } else {
            1
        };
        let height = pixels.div_ceil(tiles);
        // SAFETY: the token proves AMX; a tile has 1 to 16 rows and up to 16 quads.
        unsafe { tiles::configure(height, depth.tile) };
        #[cfg(test)]
        super::emulator::lend(&call.conv.weights[..call.packed.bytes() + WEIGHT_SLACK]);
        Kernel {
            conv: call.conv,
            packed: call.packed,
            depth,
            height,
            // SAFETY: the token proves the features.
            epilogue: unsafe { Epilogue::new(call) },
        }
    }

    /// Computes the pixels of some rows.
    ///
    /// # Safety
    ///
    /// The rows hold patches laid out as `depth` says; there are `height` or more of them, and their
    /// pixels lie in the call's output.
    pub(super) unsafe fn run(&mut self, rows: Rows) {
        // SAFETY: as the caller; a kernel exists only where a token proved the features.
        unsafe {
            if self.epilogue.is_plain() {
                self.blocks::<true>(rows);
            } else {
                self.blocks::<false>(rows);
            }
        }
    }

    /// Computes all blocks, in groups of the arrangement that suits.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn blocks<const PLAIN: bool>(&self, rows: Rows) {
        let blocks = self.packed.blocks();
        // SAFETY: as the caller.
        unsafe {
            if rows.count == self.height && blocks >= GROUP {
                self.groups::<GROUP, PLAIN>(rows, 0, blocks);
            } else {
                self.groups::<2, PLAIN>(rows, 0, blocks - blocks % 2);
                self.groups::<1, PLAIN>(rows, blocks - blocks % 2, blocks);
            }
        }
    }

    /// Computes the blocks `start..end` in groups of `B`: there are none, or enough for a group.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn groups<const B: usize, const PLAIN: bool>(
        &self,
        rows: Rows,
        start: usize,
        end: usize,
    ) {
        let mut pipeline = Pipeline::<B, PLAIN>::new(self, rows);
        // The last group ends with the last block and repeats some of the group before.
        let block = |i: usize| (start + i * B).min(end - B);
        let tiles = rows.count.div_ceil(self.height);
        let (across, along) = ((end - start).div_ceil(B), tiles.div_ceil(GROUP / B));
        // SAFETY: the tiles are those of the rows, and the blocks exist.
        unsafe {
            if self.packed.bytes() <= SMALL_WEIGHTS {
                for tile in 0..along {
                    for i in 0..across {
                        pipeline.push(tile * GROUP / B, block(i));
                    }
                }
            } else {
                for i in 0..across {
                    for tile in 0..along {
                        pipeline.push(tile * GROUP / B, block(i));
                    }
                }
            }
            pipeline.drain();
        }
    }
}

impl Drop for Kernel<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: a kernel exists only where a token proved AMX.
        unsafe { tiles::release() };
    }
}
