//! Groups of tiles, multiplied one after another while those before are finished.
//!
//! The tile unit and the vector units work at the same time, but only as far as the processor looks
//! ahead. So the instructions are interleaved: with the products of one group, the sums of the group
//! before are moved to memory, and those of the group before that become codes.

use core::arch::x86_64::*;

use super::kernel::{Kernel, Rows};
use super::tiles::{self, GROUP, Operands, Sums, TILE};
use crate::arch::x86::conv::epilogue512::Epilogue;
use crate::ops::conv::{QUAD, WIDTH};

/// Groups of 4 / `B` pixel tiles by `B` blocks, on their way from rows to codes. `PLAIN` is that of
/// the epilogue.
pub(super) struct Pipeline<'k, const B: usize, const PLAIN: bool> {
    kernel: &'k Kernel<'k, 'k>,
    rows: Rows,
    /// The group whose sums are in the tile registers.
    multiplied: Option<Group>,
    /// The group whose sums are in `sums[1 - next]`.
    stored: Option<Group>,
    sums: [Sums; 2],
    /// Where the next sums are stored.
    next: usize,
}

/// A group of tiles.
#[derive(Clone, Copy)]
struct Group {
    /// First pixel of each pixel tile, counted from the call's first.
    pixels: [usize; GROUP],
    /// First block.
    block: usize,
}

impl<'k, const B: usize, const PLAIN: bool> Pipeline<'k, B, PLAIN> {
    /// For the pixels of some rows.
    pub(super) fn new(kernel: &'k Kernel<'k, 'k>, rows: Rows) -> Self {
        let sums = Sums([[[0; WIDTH]; TILE]; GROUP]);
        Pipeline {
            kernel,
            rows,
            multiplied: None,
            stored: None,
            sums: [sums; 2],
            next: 0,
        }
    }

    /// Takes in the group of the pixel tiles from `tile` on and the blocks from `block` on.
    ///
    /// # Safety
    ///
    /// The rows are those of [`Kernel::run`]; `tile` is one of theirs, and the blocks exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub(super) unsafe fn push(&mut self, tile: usize, block: usize) {
        let (kernel, rows) = (self.kernel, self.rows);
        // The last tile ends with the last row and repeats some of the tile before; a group that has
        // no more tiles repeats the last.
        let start = |i: usize| ((tile + i) * kernel.height).min(rows.count - kernel.height);
        let pixels = core::array::from_fn(|i| rows.first + start(i));
        // SAFETY: as the caller; the pixels are those of the rows.
        unsafe { self.multiply(Group { pixels, block }) };
    }

    /// Finishes the groups that are under way.
    ///
    /// # Safety
    ///
    /// As for [`Pipeline::push`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub(super) unsafe fn drain(&mut self) {
        // SAFETY: the groups lie in the call's output.
        unsafe {
            let [stored, into] = &mut self.sums;
            let (stored, into) = if self.next == 1 {
                (stored, into)
            } else {
                (into, stored)
            };
            Units::<B, PLAIN>::new(self.kernel, stored, self.stored).finish(usize::MAX);
            tiles::store::<0>(into);
            tiles::store::<1>(into);
            tiles::store::<2>(into);
            tiles::store::<3>(into);
            Units::<B, PLAIN>::new(self.kernel, into, self.multiplied).finish(usize::MAX);
        }
        (self.stored, self.multiplied) = (None, None);
    }

    /// Multiplies a group, and moves those before on.
    ///
    /// # Safety
    ///
    /// The group lies in the call's output, and its pixels are those of the rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn multiply(&mut self, group: Group) {
        let depth = self.kernel.depth;
        // SAFETY: as the caller.
        let mut operands = unsafe { self.operands(group) };
        let [stored, into] = &mut self.sums;
        let (stored, into) = if self.next == 1 {
            (stored, into)
        } else {
            (into, stored)
        };
        // SAFETY: as the caller. The rows hold `steps` tiles and the blocks as many, where the last
        // begins `shared` quads before its place. The last quad of a narrow block may extend into the
        // slack.
        unsafe {
            let mut units = Units::<B, PLAIN>::new(self.kernel, stored, self.stored);
            let share = units.left.div_ceil(depth.steps * GROUP);
            step::<B, PLAIN, true>(&operands, into, &mut units, share);
            for left in (1..depth.steps).rev() {
                operands.advance::<B>(depth.tile);
                if left == 1 {
                    operands.rewind_weights::<B>(depth.shared());
                }
                step::<B, PLAIN, false>(&operands, into, &mut units, share);
            }
            units.finish(usize::MAX);
        }
        self.stored = self.multiplied;
        self.multiplied = Some(group);
        self.next = 1 - self.next;
    }
    /// Where the first step of a group finds its operands.
    ///
    /// # Safety
    ///
    /// As for [`Pipeline::multiply`].
    unsafe fn operands(&self, group: Group) -> Operands {
        let (packed, rows) = (self.kernel.packed, self.rows);
        let weights = self.kernel.conv.weights.as_ptr();
        let block = |i: usize| group.block + i.min(B - 1);
        // SAFETY: the pixels are those of the rows, and the blocks exist.
        unsafe {
            Operands {
                rows: group
                    .pixels
                    .map(|p| rows.base.add((p - rows.first) * rows.stride)),
                row_stride: rows.stride,
                weights: core::array::from_fn(|i| weights.add(packed.block_offset(block(i)))),
                full_stride: WIDTH * QUAD,
                last_stride: packed.block_width(block(B)) * QUAD,
            }
        }
    }
}

/// One step along the patch with a share of the epilogue; the `FIRST` step also moves the sums of the
/// group before to memory.
///
/// # Safety
///
/// The tile registers are configured; the operands are readable.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
#[inline]
unsafe fn step<const B: usize, const PLAIN: bool, const FIRST: bool>(
    operands: &Operands,
    into: &mut Sums,
    units: &mut Units<'_, B, PLAIN>,
    share: usize,
) {
    // SAFETY: as the caller.
    unsafe {
        product::<B, PLAIN, FIRST, 0>(operands, into, units, share);
        product::<B, PLAIN, FIRST, 1>(operands, into, units, share);
        product::<B, PLAIN, FIRST, 2>(operands, into, units, share);
        product::<B, PLAIN, FIRST, 3>(operands, into, units, share);
    }
}

/// The product of tile `I` in a [`step`].
///
/// # Safety
///
/// As for [`step`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
#[inline]
unsafe fn product<const B: usize, const PLAIN: bool, const FIRST: bool, const I: usize>(
    operands: &Operands,
    into: &mut Sums,
    units: &mut Units<'_, B, PLAIN>,
    share: usize,
) {
    // SAFETY: as the caller.
    unsafe {
        if FIRST {
            tiles::store::<I>(into);
            tiles::clear::<I>();
        }
        tiles::multiply::<B, I>(operands);
        units.finish(share);
    }
}

/// The sums of a group in memory, handed out pixel by pixel.
struct Units<'s, const B: usize, const PLAIN: bool> {
    epilogue: &'s Epilogue,
    sums: &'s Sums,
    /// First pixels of the pixel tiles, and their height.
    pixels: [usize; GROUP],
    height: usize,
    /// First channel, and how many the blocks have.
    channel: usize,
    count: usize,
    bias: [__m512i; B],
    multipliers: [__m512; B],
    /// Pixel tile and row of the next pixel.
    tile: usize,
    row: usize,
    /// Pixels that remain.
    left: usize,
}

impl<'s, const B: usize, const PLAIN: bool> Units<'s, B, PLAIN> {
    /// The pixels of `group`, whose sums are given; of none, without a group.
    ///
    /// # Safety
    ///
    /// The group lies in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    unsafe fn new(kernel: &'s Kernel<'s, 's>, sums: &'s Sums, group: Option<Group>) -> Self {
        let height = kernel.height;
        let left = if group.is_some() {
            GROUP / B * height
        } else {
            0
        };
        let group = group.unwrap_or(Group {
            pixels: [0; GROUP],
            block: 0,
        });
        let channel = group.block * WIDTH;
        let mut bias = [_mm512_setzero_si512(); B];
        let mut multipliers = [_mm512_setzero_ps(); B];
        // SAFETY: bias and multipliers are padded to whole blocks, of which there are `B` even if
        // there is no group.
        unsafe {
            for b in 0..B {
                let n = channel + b * WIDTH;
                bias[b] = _mm512_loadu_si512(kernel.conv.bias.as_ptr().add(n).cast());
                multipliers[b] = _mm512_loadu_ps(kernel.conv.multipliers.as_ptr().add(n));
            }
        }
        Units {
            epilogue: &kernel.epilogue,
            sums,
            pixels: group.pixels,
            height,
            channel,
            count: (kernel.epilogue.channels() - channel).min(B * WIDTH),
            bias,
            multipliers,
            tile: 0,
            row: 0,
            left,
        }
    }

    /// Turns the sums of up to `most` pixels into codes.
    ///
    /// # Safety
    ///
    /// As for [`Units::new`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    unsafe fn finish(&mut self, most: usize) {
        let mut rest = most.min(self.left);
        self.left -= rest;
        while rest > 0 {
            let run = rest.min(self.height - self.row);
            // SAFETY: `left` counts the rows of all tiles, and `run` stays within one.
            unsafe { self.finish_run(run) };
            rest -= run;
            self.row += run;
            if self.row == self.height {
                (self.row, self.tile) = (0, self.tile + 1);
            }
        }
    }

    /// Turns the sums of the next `run` pixels of a tile into codes.
    ///
    /// # Safety
    ///
    /// There are as many.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    unsafe fn finish_run(&self, run: usize) {
        let epilogue = self.epilogue;
        // SAFETY: as the caller; tiles have up to 16 rows, and a group up to 4 tiles.
        unsafe {
            let mut at = epilogue.position(
                self.pixels.get_unchecked(self.tile) + self.row,
                self.channel,
            );
            let first = self
                .sums
                .0
                .get_unchecked(self.tile * B)
                .as_ptr()
                .add(self.row);
            for r in 0..run {
                let mut sums = self.bias;
                for b in 0..B {
                    let row = first.add(b * TILE + r);
                    sums[b] = _mm512_add_epi32(_mm512_load_si512(row.cast()), self.bias[b]);
                }
                epilogue.finish::<B, PLAIN>(sums, self.multipliers, at, self.count);
                at += epilogue.channels();
            }
        }
    }
}
