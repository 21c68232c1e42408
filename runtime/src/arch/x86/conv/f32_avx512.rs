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

/// Expands to the call of the tile with as many rows and blocks as are asked for.
macro_rules! dispatch {
    ($self:ident, $rows:ident, $count:ident, $pixel:expr, $block:ident, $blocks:ident; $(($r:literal, $b:literal))*) => {
        match ($count, $blocks) {
            $(($r, $b) => $self.tile::<$r, $b>($rows, $pixel, $block),)*
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
        for (block, blocks) in parts(self.conv.output[2].div_ceil(WIDTH), BLOCKS) {
            for (row, count) in parts(pixels.len(), ROWS) {
                // SAFETY: rows and pixels are among those of the caller, and the blocks exist.
                unsafe {
                    let rows = Rows {
                        base: rows.base.add(row * rows.stride),
                        ..rows
                    };
                    dispatch!(self, rows, count, pixels.start + row, block, blocks;
                        (1, 1) (2, 1) (3, 1) (4, 1) (5, 1) (6, 1) (7, 1) (8, 1)
                        (1, 2) (2, 2) (3, 2) (4, 2) (5, 2) (6, 2) (7, 2) (8, 2)
                        (1, 3) (2, 3) (3, 3) (4, 3) (5, 3) (6, 3) (7, 3) (8, 3));
                }
            }
        }
    }

    /// A tile of `R` pixels by `B` blocks.
    ///
    /// # Safety
    ///
    /// The rows are those of the pixels from `pixel` on; pixels and blocks lie in the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn tile<const R: usize, const B: usize>(&self, rows: Rows, pixel: usize, block: usize) {
        let n = block * WIDTH;
        let last = (self.conv.output[2] - n - (B - 1) * WIDTH)
            .next_multiple_of(4)
            .min(WIDTH);
        let mut sums = [[_mm512_setzero_ps(); B]; R];
        let start = |b: usize| (n + b * WIDTH) * self.depth;
        // SAFETY: the rows hold `depth` values. So do the blocks for each of their channels, where
        // the last vector of a narrow block extends into the slack.
        unsafe {
            match self.conv.weights {
                WeightsF32::F32(w) => {
                    let w = core::array::from_fn(|b| w.as_ptr().add(start(b)));
                    accumulate(&mut sums, rows, self.depth, w, last, |w| _mm512_loadu_ps(w));
                }
                WeightsF32::F16(w) => {
                    let w = core::array::from_fn(|b| w.as_ptr().add(start(b)));
                    let load = |w: *const u16| _mm512_cvtph_ps(_mm256_loadu_si256(w.cast()));
                    accumulate(&mut sums, rows, self.depth, w, last, load);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for b in 0..B {
                // SAFETY: pixel and block lie in the call's output.
                unsafe { self.finish(sums[b], pixel + r, n + b * WIDTH) };
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

/// Multiplies `depth` values of `R` rows with `B` blocks.
///
/// # Safety
///
/// The rows hold `depth` values; `load` may read at each step of each pointer to weights.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
unsafe fn accumulate<const R: usize, const B: usize, W>(
    sums: &mut [[__m512; B]; R],
    rows: Rows,
    depth: usize,
    mut weights: [*const W; B],
    last: usize,
    load: impl Fn(*const W) -> __m512,
) {
    for k in 0..depth {
        let mut w = [_mm512_setzero_ps(); B];
        for b in 0..B {
            w[b] = load(weights[b]);
        }
        for r in 0..R {
            // SAFETY: the rows hold `depth` values.
            let x = _mm512_set1_ps(unsafe { *rows.base.add(r * rows.stride + k) });
            for b in 0..B {
                sums[r][b] = _mm512_fmadd_ps(x, w[b], sums[r][b]);
            }
        }
        for (b, weights) in weights.iter_mut().enumerate() {
            // SAFETY: the next step's weights, or the end of the block.
            *weights = unsafe { weights.add(if b + 1 == B { last } else { WIDTH }) };
        }
    }
}
