//! Floats with AVX2 and FMA: tiles of up to 6 pixels by one block of 16 channels.

use core::arch::x86_64::*;
use core::ops::Range;

use super::f32_panel::{Rows, drive};
use super::parts;
use crate::arch::x86::Avx2;
use crate::ops::conv::kernel::CallF32;
use crate::ops::conv::{ConvF32, WIDTH, WeightsF32};

/// Most rows of a tile: 12 accumulators, 2 weights and 1 activation fill the registers.
const ROWS: usize = 6;
/// Channels of a vector, and vectors of a block.
const LANES: usize = 8;
const PAIR: usize = 2;

/// Computes the call's pixels.
pub(crate) fn conv_f32(_: Avx2, call: CallF32<'_, '_>) {
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

impl Kernel<'_, '_> {
    /// Computes the call's pixels `pixels`.
    ///
    /// # Safety
    ///
    /// The rows hold the patches of these pixels, which lie in the call's output.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for n in (0..self.conv.output[2]).step_by(WIDTH) {
            for (row, count) in parts(pixels.len(), ROWS) {
                let pixel = pixels.start + row;
                // SAFETY: rows and pixels are among those of the caller, and the block exists.
                unsafe {
                    let rows = Rows {
                        base: rows.base.add(row * rows.stride),
                        ..rows
                    };
                    match count {
                        1 => self.tile::<1>(rows, pixel, n),
                        2 => self.tile::<2>(rows, pixel, n),
                        3 => self.tile::<3>(rows, pixel, n),
                        4 => self.tile::<4>(rows, pixel, n),
                        5 => self.tile::<5>(rows, pixel, n),
                        _ => self.tile::<ROWS>(rows, pixel, n),
                    }
                }
            }
        }
    }

    /// A tile of `R` pixels by the block from channel `n` on.
    ///
    /// # Safety
    ///
    /// The rows are those of the pixels from `pixel` on; pixels and block lie in the call's output.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile<const R: usize>(&self, rows: Rows, pixel: usize, n: usize) {
        let step = (self.conv.output[2] - n).next_multiple_of(4).min(WIDTH);
        let mut sums = [[_mm256_setzero_ps(); PAIR]; R];
        // SAFETY: the rows hold `depth` values. So does the block for each of its channels, where the
        // last vectors of a narrow block extend into the slack.
        unsafe {
            match self.conv.weights {
                WeightsF32::F32(w) => {
                    let w = w.as_ptr().add(n * self.depth);
                    accumulate(&mut sums, rows, self.depth, w, step, |w| _mm256_loadu_ps(w));
                }
                WeightsF32::F16(w) => {
                    let w = w.as_ptr().add(n * self.depth);
                    let load = |w: *const u16| _mm256_cvtph_ps(_mm_loadu_si128(w.cast()));
                    accumulate(&mut sums, rows, self.depth, w, step, load);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                if n + half * LANES < self.conv.output[2] {
                    // SAFETY: the pixel and this half of the block lie in the call's output.
                    unsafe { self.finish(sum, pixel + r, n + half * LANES) };
                }
            }
        }
    }

    /// Adds bias and residual, clamps and stores up to [`LANES`] channels of a pixel.
    ///
    /// # Safety
    ///
    /// Pixel and channel lie in the call's output.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn finish(&self, sum: __m256, pixel: usize, n: usize) {
        let channels = self.conv.output[2];
        let count = (channels - n).min(LANES);
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes);
        // SAFETY: the bias is padded to whole blocks; the mask covers channels that the output and the
        // residual have.
        unsafe {
            let mut sum = _mm256_add_ps(sum, _mm256_loadu_ps(self.conv.bias.as_ptr().add(n)));
            if let Some(residual) = self.conv.residual {
                let at = residual.as_ptr().add((self.first + pixel) * channels + n);
                sum = _mm256_add_ps(sum, _mm256_maskload_ps(at, mask));
            }
            let low = _mm256_max_ps(sum, _mm256_set1_ps(self.conv.lo));
            let clamped = _mm256_min_ps(low, _mm256_set1_ps(self.conv.hi));
            _mm256_maskstore_ps(self.y.add(pixel * channels + n), mask, clamped);
        }
    }
}

/// Multiplies `depth` values of `R` rows with a block.
///
/// # Safety
///
/// The rows hold `depth` values; `load` may read at both halves of each step of the weights.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn accumulate<const R: usize, W>(
    sums: &mut [[__m256; PAIR]; R],
    rows: Rows,
    depth: usize,
    mut weights: *const W,
    step: usize,
    load: impl Fn(*const W) -> __m256,
) {
    for k in 0..depth {
        // SAFETY: as the caller; past the last step, the pointer is at the end of the block.
        unsafe {
            let (low, high) = (load(weights), load(weights.add(LANES)));
            for r in 0..R {
                let x = _mm256_set1_ps(*rows.base.add(r * rows.stride + k));
                sums[r][0] = _mm256_fmadd_ps(x, low, sums[r][0]);
                sums[r][1] = _mm256_fmadd_ps(x, high, sums[r][1]);
            }
            weights = weights.add(step);
        }
    }
}
