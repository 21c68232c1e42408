//! Float convolution: tiles of up to 6 pixels by a block of 16 channels.

use core::ops::Range;

use super::Simd;
use crate::arch::f32_panel::{Rows, drive};
use crate::arch::parts;
use crate::ops::conv::kernel::CallF32;
use crate::ops::conv::{ConvF32, WIDTH, WeightsF32};

/// Most rows of a tile: 24 sums, a weight and 6 activations fill 32 registers.
const ROWS: usize = 6;
/// Channels of a vector, and vectors of a block.
const LANES: usize = 4;
const VECTORS: usize = WIDTH / LANES;

/// Computes the call's pixels.
pub(crate) fn conv_f32<S: Simd>(simd: S, call: CallF32<'_, '_>) {
    let (conv, first) = (call.conv, call.first);
    drive(call, |rows, pixels, y| {
        let y = y.as_mut_ptr();
        let kernel = Kernel {
            simd,
            conv,
            first,
            y,
        };
        // SAFETY: the rows are those of the call's pixels.
        unsafe { kernel.tiles(rows, pixels) };
    });
}

struct Kernel<'a, 'c, S> {
    simd: S,
    conv: &'a ConvF32<'c>,
    first: usize,
    y: *mut f32,
}

impl<S: Simd> Kernel<'_, '_, S> {
    /// Computes the call's pixels `pixels`.
    ///
    /// # Safety
    ///
    /// The rows hold the patches of these pixels, which lie in the call's output.
    unsafe fn tiles(&self, rows: Rows, pixels: Range<usize>) {
        for n in (0..self.conv.output[2]).step_by(WIDTH) {
            for (row, count) in parts(pixels.len(), ROWS) {
                let pixel = pixels.start + row;
                // SAFETY: rows and pixels are among those of the caller, and the block exists.
                unsafe {
                    let base = rows.base.add(row * rows.stride);
                    let rows = Rows { base, ..rows };
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
    unsafe fn tile<const R: usize>(&self, rows: Rows, pixel: usize, n: usize) {
        let (simd, depth) = (self.simd, self.conv.depth());
        let step = (self.conv.output[2] - n).next_multiple_of(4).min(WIDTH);
        let mut sums = [[simd.splat(0.0); VECTORS]; R];
        // SAFETY: the rows hold `depth` values. So does the block for each of its channels, where the last
        // vectors of a narrow block extend into the slack.
        unsafe {
            match self.conv.weights {
                WeightsF32::F32(w) => {
                    let w = w.as_ptr().add(n * depth);
                    self.accumulate(&mut sums, rows, w, step, |w| simd.floats(&*w.cast()));
                }
                WeightsF32::F16(w) => {
                    let w = w.as_ptr().add(n * depth);
                    self.accumulate(&mut sums, rows, w, step, |w| simd.half_floats(&*w.cast()));
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                if n + v * LANES < self.conv.output[2] {
                    // SAFETY: the pixel and these channels lie in the call's output.
                    unsafe { self.finish(sum, pixel + r, n + v * LANES) };
                }
            }
        }
    }

    /// Multiplies `R` rows with a block, four values at a time.
    ///
    /// # Safety
    ///
    /// The rows hold `depth` values; `load` may read all vectors of each step of the weights.
    #[inline(always)]
    unsafe fn accumulate<const R: usize, W>(
        &self,
        sums: &mut [[S::Floats; VECTORS]; R],
        rows: Rows,
        mut weights: *const W,
        step: usize,
        load: impl Fn(*const W) -> S::Floats,
    ) {
        let (simd, depth) = (self.simd, self.conv.depth());
        let mut k = 0;
        // SAFETY: as the caller; past the last step, the pointer is at the end of the block.
        unsafe {
            while k + 4 <= depth {
                let mut x = [[simd.splat(0.0); 4]; R];
                for r in 0..R {
                    x[r] = simd.spread(simd.floats(&*rows.base.add(r * rows.stride + k).cast()));
                }
                for i in 0..4 {
                    for v in 0..VECTORS {
                        let w = load(weights.add(v * LANES));
                        for r in 0..R {
                            sums[r][v] = simd.fma(sums[r][v], w, x[r][i]);
                        }
                    }
                    weights = weights.add(step);
                }
                k += 4;
            }
            while k < depth {
                for v in 0..VECTORS {
                    let w = load(weights.add(v * LANES));
                    for r in 0..R {
                        let x = simd.splat(*rows.base.add(r * rows.stride + k));
                        sums[r][v] = simd.fma(sums[r][v], w, x);
                    }
                }
                weights = weights.add(step);
                k += 1;
            }
        }
    }

    /// Adds bias and residual, clamps and stores up to [`LANES`] channels of a pixel.
    ///
    /// # Safety
    ///
    /// Pixel and channel lie in the call's output.
    #[inline(always)]
    unsafe fn finish(&self, sum: S::Floats, pixel: usize, n: usize) {
        let simd = self.simd;
        let channels = self.conv.output[2];
        let count = (channels - n).min(LANES);
        let at = pixel * channels + n;
        // SAFETY: the bias is padded to whole blocks; no more values are read and written than the output
        // and the residual have.
        unsafe {
            let bias = &*self.conv.bias.as_ptr().add(n).cast();
            let mut sum = simd.add(sum, simd.floats(bias));
            let mut part = [0.0; LANES];
            if let Some(residual) = self.conv.residual {
                let from = residual.as_ptr().add(self.first * channels + at);
                let addend = if count == LANES {
                    simd.floats(&*from.cast())
                } else {
                    part.as_mut_ptr().copy_from_nonoverlapping(from, count);
                    simd.floats(&part)
                };
                sum = simd.add(sum, addend);
            }
            let low = simd.max(sum, simd.splat(self.conv.lo));
            let sum = simd.min(low, simd.splat(self.conv.hi));
            let to = self.y.add(at);
            if count == LANES {
                simd.store_floats(sum, &mut *to.cast());
            } else {
                simd.store_floats(sum, &mut part);
                to.copy_from_nonoverlapping(part.as_ptr(), count);
            }
        }
    }
}
