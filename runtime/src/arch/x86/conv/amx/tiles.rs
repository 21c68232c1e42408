//! The tile instructions.
//!
//! The compiler knows nothing of tile registers, so their contents survive from one `asm!` block to
//! the next, and blocks are not reordered. Registers 0 to 3 hold the sums of a group of 4 tiles, 4
//! and 5 rows of patches, 6 and 7 weights.

use core::arch::asm;

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
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Shapes the tile registers for pixel tiles of `height` rows and patch tiles of `quads` quads.
///
/// # Safety
///
/// The processor has AMX; `height` and `quads` are 1 to 16.
pub(super) unsafe fn configure(height: usize, quads: usize) {
    let mut config = TileConfig {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
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
    // SAFETY: the processor has the instruction, and the shapes are in its bounds.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly, preserves_flags)) };
}

/// Gives the tile registers up, so that the system need not save them.
///
/// # Safety
///
/// The processor has AMX.
pub(super) unsafe fn release() {
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

/// One block of tile instructions, which read memory only.
macro_rules! tiles {
    ($($line:literal)* $(, $operand:expr)*) => {
        asm!($($line,)* $(in(reg) $operand,)* options(nostack, readonly, preserves_flags))
    };
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
    // SAFETY: as the caller.
    unsafe {
        match (B, I) {
            (1, 0) => tiles!(
                "tileloadd tmm4, [{} + {}]"
                "tileloadd tmm6, [{} + {}]"
                "tdpbssd tmm0, tmm4, tmm6",
                o.rows[0], o.row_stride, o.weights[0], o.last_stride
            ),
            (1, 1) => tiles!(
                "tileloadd tmm5, [{} + {}]"
                "tdpbssd tmm1, tmm5, tmm6",
                o.rows[1], o.row_stride
            ),
            (1, 2) => tiles!(
                "tileloadd tmm4, [{} + {}]"
                "tdpbssd tmm2, tmm4, tmm6",
                o.rows[2], o.row_stride
            ),
            (1, _) => tiles!(
                "tileloadd tmm5, [{} + {}]"
                "tdpbssd tmm3, tmm5, tmm6",
                o.rows[3], o.row_stride
            ),
            (2, 0) => tiles!(
                "tileloadd tmm4, [{} + {}]"
                "tileloadd tmm6, [{} + {}]"
                "tdpbssd tmm0, tmm4, tmm6",
                o.rows[0], o.row_stride, o.weights[0], o.full_stride
            ),
            (2, 1) => tiles!(
                "tileloadd tmm7, [{} + {}]"
                "tdpbssd tmm1, tmm4, tmm7",
                o.weights[1], o.last_stride
            ),
            (2, 2) => tiles!(
                "tileloadd tmm5, [{} + {}]"
                "tdpbssd tmm2, tmm5, tmm6",
                o.rows[1], o.row_stride
            ),
            (2, _) => tiles!("tdpbssd tmm3, tmm5, tmm7"),
            (_, 0) => tiles!(
                "tileloadd tmm4, [{} + {}]"
                "tileloadd tmm6, [{} + {}]"
                "tdpbssd tmm0, tmm4, tmm6",
                o.rows[0], o.row_stride, o.weights[0], o.full_stride
            ),
            (_, 1) => tiles!(
                "tileloadd tmm7, [{} + {}]"
                "tdpbssd tmm1, tmm4, tmm7",
                o.weights[1], o.full_stride
            ),
            (_, 2) => tiles!(
                "tileloadd tmm6, [{} + {}]"
                "tdpbssd tmm2, tmm4, tmm6",
                o.weights[2], o.full_stride
            ),
            (_, _) => tiles!(
                "tileloadd tmm7, [{} + {}]"
                "tdpbssd tmm3, tmm4, tmm7",
                o.weights[3], o.last_stride
            ),
        }
    }
}
