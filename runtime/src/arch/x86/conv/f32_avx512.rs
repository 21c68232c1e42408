//! Floats with AVX-512: tiles of up to 8 pixels by 3 blocks of 16 channels.

use core::arch::x86_64::*;
use core::ops::Range;

use super::f32_panel::{Rows, drive};
use super::parts;
use crate::arch::x86::Avx512Vnni;
use crate::ops::conv::kernel::CallF32;
use crate::ops::conv::{ConvF32, WIDTH, WeightsF32};

/// Most rows and blocks of a tile: 24 accumulators, 3 weights and 1 activation fill the registers.
const ROWS: usize = 8;
const BLOCKS: usize = 3;

/// Computes the call's pixels.
pub(crate) fn conv_f32(_: Avx512Vnni, call: CallF32<'_, '_>) {
    let (conv, first) = (call.conv, call.first);
    drive(call, |rows, pixels, y| {
        let kernel = Kernel {
            conv,
            first,
            y: y.as_mut_ptr(),
            depth: conv.depth(),
        };
        // SAFETY: the token proves the features; the rows are those of the call's pixels.
        unsafe { kernel.tiles(rows, pixels) };
    });
}

struct Kernel<'a, 'c> {
    conv: &'a ConvF32<'c>,
    first: usize,
    y: *mut f32,
    depth: usize,
}

/// Expands to the call of the column with as many rows a tile and blocks as are asked for.
macro_rules! dispatch {
    ($self:ident, $rows:ident, $pixels:ident, $height:ident, $block:ident, $blocks:ident; $(($r:literal, $b:literal))*) => {
        match ($height, $blocks) {
            $(($r, $b) => $self.column::<$r, $b>($rows, $pixels, $block),)*
            _ => unreachable!(),
        }
    };
}

impl Kernel<'_, '_> {
    /// Computes the call's pixels `pixels`.
    ///
    /// # Safety
    ///
    /// The rows hold the patches of these pixels, which lie in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        let height = pixels.len().div_ceil(pixels.len().div_ceil(ROWS));
        for (block, blocks) in block_runs(self.conv.output[2], BLOCKS) {
            let pixels = pixels.clone();
            // SAFETY: as the caller, and the blocks exist.
            unsafe {
                dispatch!(self, rows, pixels, height, block, blocks;
                    (1, 1) (2, 1) (3, 1) (4, 1) (5, 1) (6, 1) (7, 1) (8, 1)
                    (1, 2) (2, 2) (3, 2) (4, 2) (5, 2) (6, 2) (7, 2) (8, 2)
                    (1, 3) (2, 3) (3, 3) (4, 3) (5, 3) (6, 3) (7, 3) (8, 3));
            }
        }
    }

    /// Computes `pixels` in tiles of `R` rows by `B` blocks, which are whole or one. The last tile ends
    /// with the last pixel and repeats some of the tile before.
    ///
    /// # Safety
    ///
    /// As for [`Kernel::tiles`]; there are at least `R` pixels, and the blocks are the output's.
    // A function of its own for each size: in one function the sums would not stay in registers.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline(never)]
    unsafe fn column<const R: usize, const B: usize>(
        &self,
        rows: Rows,
        pixels: Range<usize>,
        block: usize,
    ) {
        let n = block * WIDTH;
        let step = block_width(self.conv.output[2], block);
        for at in (0..pixels.len()).step_by(R) {
            let row = at.min(pixels.len() - R);
            let mut sums = [[_mm512_setzero_ps(); B]; R];
            // SAFETY: the rows hold `depth` values. So do the blocks for each of their channels, where
            // the vector of a narrow block extends into the slack.
            unsafe {
                let rows = Rows {
                    base: rows.base.add(row * rows.stride),
                    ..rows
                };
                match self.conv.weights {
                    WeightsF32::F32(w) => {
                        let w = w.as_ptr().add(n * self.depth);
                        accumulate(&mut sums, rows, self.depth, w, step, |w| _mm512_loadu_ps(w));
                    }
                    WeightsF32::F16(w) => {
                        let w = w.as_ptr().add(n * self.depth);
                        let load = |w: *const u16| _mm512_cvtph_ps(_mm256_loadu_si256(w.cast()));
                        accumulate(&mut sums, rows, self.depth, w, step, load);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for b in 0..B {
                    // SAFETY: pixel and block lie in the call's output.
                    unsafe { self.finish(sums[b], pixels.start + row + r, n + b * WIDTH) };
                }
            }
        }
    }

    /// Adds bias and residual, clamps and stores one block of a pixel.
    ///
    /// # Safety
    ///
    /// Pixel and block lie in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    #[inline]
    unsafe fn finish(&self, sum: __m512, pixel: usize, n: usize) {
        let channels = self.conv.output[2];
        let count = (channels - n).min(WIDTH);
        let mask = _cvtu32_mask16((1u32 << count).wrapping_sub(1));
        // SAFETY: the bias is padded to whole blocks; the mask covers the block's channels, which the
        // output and the residual have.
        unsafe {
            let mut sum = _mm512_add_ps(sum, _mm512_loadu_ps(self.conv.bias.as_ptr().add(n)));
            if let Some(residual) = self.conv.residual {
                let at = residual.as_ptr().add((self.first + pixel) * channels + n);
                sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, at));
            }
            let low = _mm512_max_ps(sum, _mm512_set1_ps(self.conv.lo));
            let clamped = _mm512_min_ps(low, _mm512_set1_ps(self.conv.hi));
            _mm512_mask_storeu_ps(self.y.add(pixel * channels + n), mask, clamped);
        }
    }
}

/// Multiplies `depth` values of `R` rows with `B` blocks, `depth` steps each, that follow each other.
///
/// # Safety
///
/// The rows hold `depth` values; `load` may read at each step of each block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
unsafe fn accumulate<const R: usize, const B: usize, W>(
    sums: &mut [[__m512; B]; R],
    rows: Rows,
    depth: usize,
    weights: *const W,
    step: usize,
    load: impl Fn(*const W) -> __m512,
) {
    // SAFETY: the starts of the blocks.
    let mut weights: [_; B] = core::array::from_fn(|b| unsafe { weights.add(b * depth * step) });
    let mut x = rows.base;
    for _ in 0..depth {
        let mut w = [_mm512_setzero_ps(); B];
        for b in 0..B {
            w[b] = load(weights[b]);
            // SAFETY: the next step's weights, or the end of the block.
            weights[b] = unsafe { weights[b].add(step) };
        }
        for r in 0..R {
            // SAFETY: the rows hold `depth` values.
            let x = _mm512_set1_ps(unsafe { *x.add(r * rows.stride) });
            for b in 0..B {
                sums[r][b] = _mm512_fmadd_ps(x, w[b], sums[r][b]);
            }
        }
        // SAFETY: the next values, or the end of the first row.
        x = unsafe { x.add(1) };
    }
}

/// Channels stored in a block of weights: a narrow last one takes less.
fn block_width(channels: usize, block: usize) -> usize {
    (channels - block * WIDTH).next_multiple_of(4).min(WIDTH)
}

/// Runs of at most `most` blocks, `(first, count)`, in which all blocks are whole or which are one narrow
/// block.
fn block_runs(channels: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = channels.div_ceil(WIDTH);
    let narrow = block_width(channels, blocks - 1) < WIDTH;
    let whole = blocks - usize::from(narrow);
    let runs = parts(whole, most).filter(|run| run.1 > 0);
    runs.chain(narrow.then_some((whole, 1)))
}
