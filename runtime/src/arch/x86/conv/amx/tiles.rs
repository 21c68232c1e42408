//! The tile instructions.
//!
//! The compiler knows nothing of tile registers, so their contents survive from one `asm!` block to
//! the next, and blocks are not reordered. Registers 0 to 3 hold the sums of a group of 4 tiles, 4
//! and 5 rows of patches, 6 and 7 weights.
//!
//! Tests on a processor without these instructions run the same functions on an emulator.

use core::arch::asm;

#[cfg(test)]
use super::emulator;
use crate::ops::conv::{QUAD, WIDTH};

/// Most rows of a tile.
pub(super) const TILE: usize = 16;
/// Tiles whose sums are held at once.
pub(super) const GROUP: usize = 4;

/// The sums of a group in memory, tile by tile.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [[[i32; WIDTH]; TILE]; GROUP]);

/// Operand of `ldtilecfg`.
#[repr(C, align(64))]
pub(super) struct TileConfig {
    pub(super) palette: u8,
    pub(super) start_row: u8,
    reserved: [u8; 14],
    pub(super) row_bytes: [u16; 16],
    pub(super) rows: [u8; 16],
}

impl TileConfig {
    pub(super) const EMPTY: TileConfig = TileConfig {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
}

/// Shapes the tile registers for pixel tiles of `height` rows and patch tiles of `quads` quads.
///
/// # Safety
///
/// The processor has AMX; `height` and `quads` are 1 to 16.
pub(super) unsafe fn configure(height: usize, quads: usize) {
    let mut config = TileConfig::EMPTY;
    for i in 0..6 {
        config.rows[i] = height as u8;
    }
    for i in [0, 1, 2, 3, 6, 7] {
        config.row_bytes[i] = (WIDTH * QUAD) as u16;
    }
    for i in [4, 5] {
        config.row_bytes[i] = (quads * QUAD) as u16;
    }
    for i in [6, 7] {
        config.rows[i] = quads as u8;
    }
    #[cfg(test)]
    if emulator::is_on() {
        return emulator::ldtilecfg(&config);
    }
    // SAFETY: the processor has the instruction, and the shapes are in its bounds.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly, preserves_flags)) };
}

/// Gives the tile registers up, so that the system need not save them.
///
/// # Safety
///
/// The processor has AMX.
pub(super) unsafe fn release() {
    #[cfg(test)]
    if emulator::is_on() {
        return emulator::tilerelease();
    }
    // SAFETY: as the caller.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// Clears the sums of tile `I`. (Loading the bias instead costs more than adding it later: such loads
/// wait for earlier stores of sums to the same offset of another page.)
///
/// # Safety
///
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn clear<const I: usize>() {
    #[cfg(test)]
    if emulator::is_on() {
        return emulator::tilezero(I);
    }
    // SAFETY: as the caller.
    unsafe {
        match I {
            0 => asm!("tilezero tmm0", options(nostack, nomem, preserves_flags)),
            1 => asm!("tilezero tmm1", options(nostack, nomem, preserves_flags)),
            2 => asm!("tilezero tmm2", options(nostack, nomem, preserves_flags)),
            _ => asm!("tilezero tmm3", options(nostack, nomem, preserves_flags)),
        }
    }
}

/// Stores the sums of tile `I`.
///
/// # Safety
///
/// The tile registers are configured.
#[inline(always)]
pub(super) unsafe fn store<const I: usize>(sums: &mut Sums) {
    #[cfg(test)]
    if emulator::is_on() {
        return emulator::tilestored(I, &mut sums.0[I]);
    }
    let at = sums.0[I].as_mut_ptr();
    let stride = size_of::<[i32; WIDTH]>();
    // SAFETY: as the caller; a tile is no larger than its place.
    unsafe {
        match I {
            0 => {
                asm!("tilestored [{} + {}], tmm0", in(reg) at, in(reg) stride, options(nostack, preserves_flags))
            }
            1 => {
                asm!("tilestored [{} + {}], tmm1", in(reg) at, in(reg) stride, options(nostack, preserves_flags))
            }
            2 => {
                asm!("tilestored [{} + {}], tmm2", in(reg) at, in(reg) stride, options(nostack, preserves_flags))
            }
            _ => {
                asm!("tilestored [{} + {}], tmm3", in(reg) at, in(reg) stride, options(nostack, preserves_flags))
            }
        }
    }
}

/// Where the operands of one step lie.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// The rows of each pixel tile, and the bytes from one to the next.
    pub(super) rows: [*const i8; GROUP],
    pub(super) row_stride: usize,
    /// The weights of each block, and the bytes from one quad to the next: in the last of the group's
    /// blocks (which may be narrow), and in the others.
    pub(super) weights: [*const i8; GROUP],
    pub(super) last_stride: usize,
    pub(super) full_stride: usize,
}

impl Operands {
    /// Moves on to the next step of `quads` quads.
    ///
    /// # Safety
    ///
    /// There is such a step.
    #[inline(always)]
    pub(super) unsafe fn advance<const B: usize>(&mut self, quads: usize) {
        for i in 0..GROUP / B {
            // SAFETY: as the caller.
            self.rows[i] = unsafe { self.rows[i].add(quads * QUAD) };
        }
        for i in 0..B {
            // SAFETY: as the caller.
            self.weights[i] = unsafe { self.weights[i].add(quads * self.stride::<B>(i)) };
        }
    }

    /// Moves the weights back by `quads` quads.
    #[inline(always)]
    pub(super) fn rewind_weights<const B: usize>(&mut self, quads: usize) {
        for i in 0..B {
            self.weights[i] = self.weights[i].wrapping_sub(quads * self.stride::<B>(i));
        }
    }

    /// Bytes of a quad of block `i`.
    #[inline(always)]
    fn stride<const B: usize>(&self, i: usize) -> usize {
        if i + 1 == B {
            self.last_stride
        } else {
            self.full_stride
        }
    }
}

/// One block of instructions: loads of tiles, then a product.
macro_rules! tiles {
    ($(load $tile:literal, $base:expr, $stride:expr;)* dot $sums:literal, $a:literal, $b:literal) => {{
        #[cfg(test)]
        if emulator::is_on() {
            $(emulator::tileloadd($tile, $base, $stride);)*
            return emulator::tdpbssd($sums, $a, $b);
        }
        asm!(
            $(concat!("tileloadd tmm", $tile, ", [{} + {}]"),)*
            concat!("tdpbssd tmm", $sums, ", tmm", $a, ", tmm", $b),
            $(in(reg) $base, in(reg) $stride,)*
            options(nostack, readonly, preserves_flags)
        )
    }};
}

/// Multiplies rows and weights of one step along the patch into the sums of tile `I`, after loading
/// those that no lower tile has loaded.
///
/// The group is 4 / `B` pixel tiles by `B` blocks: tile `I` is pixel tile `I / B` and block `I % B`.
///
/// # Safety
///
/// The tile registers are configured; the operands are readable.
#[inline(always)]
pub(super) unsafe fn multiply<const B: usize, const I: usize>(o: &Operands) {
    let (rows, row_stride) = (o.rows, o.row_stride);
    let (weights, full, last) = (o.weights, o.full_stride, o.last_stride);
    // SAFETY: as the caller.
    unsafe {
        match (B, I) {
            (1, 0) => tiles!(
                load 4, rows[0], row_stride;
                load 6, weights[0], last;
                dot 0, 4, 6
            ),
            (1, 1) => tiles!(load 5, rows[1], row_stride; dot 1, 5, 6),
            (1, 2) => tiles!(load 4, rows[2], row_stride; dot 2, 4, 6),
            (1, _) => tiles!(load 5, rows[3], row_stride; dot 3, 5, 6),
            (2, 0) => tiles!(
                load 4, rows[0], row_stride;
                load 6, weights[0], full;
                dot 0, 4, 6
            ),
            (2, 1) => tiles!(load 7, weights[1], last; dot 1, 4, 7),
            (2, 2) => tiles!(load 5, rows[1], row_stride; dot 2, 5, 6),
            (2, _) => tiles!(dot 3, 5, 7),
            (_, 0) => tiles!(
                load 4, rows[0], row_stride;
                load 6, weights[0], full;
                dot 0, 4, 6
            ),
            (_, 1) => tiles!(load 7, weights[1], full; dot 1, 4, 7),
            (_, 2) => tiles!(load 6, weights[2], full; dot 2, 4, 6),
            (_, _) => tiles!(load 7, weights[3], last; dot 3, 4, 7),
        }
    }
}
