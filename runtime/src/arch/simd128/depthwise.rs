//! Int8 depthwise convolution: 16 channels of a few neighbouring pixels at a time.
//!
//! Products of bytes are 16-bit integers. Two of them can be added before they are widened unless both
//! weights are −128, which a well-formed artifact has none of; where there are some, each is widened.

use super::Simd;
use crate::numerics::MAGIC;
use crate::ops::depthwise::DepthwiseI8;

/// Channels of a vector.
const LANES: usize = 16;
/// Pixels that are computed at once.
const PIXELS: usize = 4;
/// Largest window.
const TAPS: usize = 64;
/// Most channels: a pixel of padding has as many.
const CHANNELS: usize = 2048;

/// Whole output rows `first_row..` of `y`, before the table. All slices have been checked against the
/// geometry.
pub(crate) struct Job<'a, 'b> {
    /// The operator.
    pub dw: &'a DepthwiseI8<'b>,
    /// The whole input map.
    pub x: &'a [i8],
    /// First output row.
    pub first_row: usize,
    /// Output rows.
    pub y: &'a mut [i8],
}

/// Where the taps of some pixels read.
type Taps = [[*const i8; PIXELS]; TAPS];

/// Runs the job; `false` when channels are too few or too many, or the window too large.
pub(crate) fn depthwise_i8<S: Simd>(simd: S, job: Job<'_, '_>) -> bool {
    let Job {
        dw,
        x,
        first_row,
        y,
    } = job;
    let (channels, taps) = (dw.input[2], dw.window.taps());
    if !(LANES..=CHANNELS).contains(&channels) || taps == 0 || taps > TAPS {
        return false;
    }
    let e = &dw.epilogue;
    let kernel = Kernel {
        simd,
        dw,
        x,
        padding: [dw.input_zero; CHANNELS],
        base: simd.splat(MAGIC + e.zero as f32),
        lo: simd.splat(MAGIC + f32::from(e.lo)),
        hi: simd.splat(MAGIC + f32::from(e.hi)),
    };
    let row = dw.output[1] * channels;
    let paired = !simd.contains(&dw.weights[..taps * channels], i8::MIN);
    for (i, y) in y.chunks_exact_mut(row).enumerate() {
        match (paired, e.residual.is_some()) {
            (true, true) => kernel.row::<true, true>(first_row + i, y),
            (true, false) => kernel.row::<true, false>(first_row + i, y),
            (false, true) => kernel.row::<false, true>(first_row + i, y),
            (false, false) => kernel.row::<false, false>(first_row + i, y),
        }
    }
    true
}

struct Kernel<'a, 'b, S: Simd> {
    simd: S,
    dw: &'a DepthwiseI8<'b>,
    x: &'a [i8],
    /// A pixel of padding.
    padding: [i8; CHANNELS],
    base: S::Floats,
    lo: S::Floats,
    hi: S::Floats,
}

impl<S: Simd> Kernel<'_, '_, S> {
    /// One output row, adding products in `PAIRED` taps, and the residual if there is one to `ADD`.
    #[inline(never)]
    fn row<const PAIRED: bool, const ADD: bool>(&self, oy: usize, y: &mut [i8]) {
        let (channels, width) = (self.dw.input[2], self.dw.output[1]);
        let count = self.dw.window.taps();
        let mut taps = [[self.padding.as_ptr(); PIXELS]; TAPS];
        for ox in (0..width).step_by(PIXELS) {
            // The last group computes some pixels again, and the last block some channels.
            let ox = ox.min(width.saturating_sub(PIXELS));
            self.set(&mut taps, oy, ox);
            for block in (0..channels).step_by(LANES) {
                let c = block.min(channels - LANES);
                // SAFETY: the taps are those of these pixels.
                let sums = unsafe { self.sums::<PAIRED>(&taps[..count], c) };
                self.finish::<ADD>(sums, [oy, ox], c, y);
            }
        }
    }

    /// The taps of the pixels from `[oy, ox]` on, the last of which repeats where the row ends: each can be
    /// read for all channels.
    #[inline(always)]
    fn set(&self, taps: &mut Taps, oy: usize, ox: usize) {
        let dw = self.dw;
        let w = &dw.window;
        let [height, width, channels] = dw.input;
        let [down, across] = w.kernel.map(usize::from);
        let at = |axis: usize, o: usize, k: usize| {
            (o * usize::from(w.stride[axis]) + k * usize::from(w.dilation[axis]))
                .wrapping_sub(w.pad[axis].into())
        };
        let columns: [usize; PIXELS] =
            core::array::from_fn(|p| at(1, (ox + p).min(dw.output[1] - 1), 0));
        for ky in 0..down {
            let iy = at(0, oy, ky);
            let row = (iy < height).then(|| &self.x[iy * width * channels..][..width * channels]);
            for kx in 0..across {
                let step = kx * usize::from(w.dilation[1]);
                for p in 0..PIXELS {
                    let ix = columns[p].wrapping_add(step);
                    taps[ky * across + kx][p] = match row {
                        Some(row) if ix < width => row[ix * channels..].as_ptr(),
                        _ => self.padding.as_ptr(),
                    };
                }
            }
        }
    }

    /// The sums of channels `c..c + 16` of each pixel.
    ///
    /// # Safety
    ///
    /// Each tap can be read for these channels, which exist.
    #[inline(always)]
    unsafe fn sums<const PAIRED: bool>(
        &self,
        taps: &[[*const i8; PIXELS]],
        c: usize,
    ) -> [[S::Ints; 4]; PIXELS] {
        let simd = self.simd;
        let channels = self.dw.input[2];
        let bias = self.dw.bias[c..c + LANES].as_chunks::<4>().0;
        let bias = [bias[0], bias[1], bias[2], bias[3]].map(|b| simd.ints(&b));
        let mut sums = [bias; PIXELS];
        let mut weights = self.dw.weights[c..].as_ptr();
        // SAFETY: as the caller, for taps; there is a vector of weights for each tap.
        unsafe {
            let (pairs, last) = if PAIRED {
                taps.as_chunks::<2>()
            } else {
                (&[][..], taps)
            };
            for [first, second] in pairs {
                let w0 = simd.bytes(&*weights.cast());
                let w1 = simd.bytes(&*weights.add(channels).cast());
                for p in 0..PIXELS {
                    let x0 = simd.bytes(&*first[p].add(c).cast());
                    let x1 = simd.bytes(&*second[p].add(c).cast());
                    let products = simd.add_products(simd.products(x0, w0), x1, w1);
                    sums[p] = simd.accumulate(sums[p], products);
                }
                weights = weights.wrapping_add(2 * channels);
            }
            for tap in last {
                let w = simd.bytes(&*weights.cast());
                for p in 0..PIXELS {
                    let x = simd.bytes(&*tap[p].add(c).cast());
                    sums[p] = simd.accumulate(sums[p], simd.products(x, w));
                }
                weights = weights.wrapping_add(channels);
            }
        }
        sums
    }

    /// Requantises and stores the sums of channels `c..c + 16` of the pixels from `[oy, ox]` on, as many as
    /// the row `y` has.
    #[inline(always)]
    fn finish<const ADD: bool>(
        &self,
        sums: [[S::Ints; 4]; PIXELS],
        [oy, ox]: [usize; 2],
        c: usize,
        y: &mut [i8],
    ) {
        let simd = self.simd;
        let channels = self.dw.input[2];
        let four = self.dw.multipliers[c..c + LANES].as_chunks::<4>().0;
        let multipliers = [four[0], four[1], four[2], four[3]].map(|m| simd.floats(&m));
        for p in 0..PIXELS {
            let at = (ox + p) * channels + c;
            let Some(y) = y.get_mut(at..).and_then(|y| y.first_chunk_mut()) else {
                return;
            };
            let mut codes = sums[p];
            for v in 0..4 {
                codes[v] = simd.bits(simd.mul(simd.convert(codes[v]), multipliers[v]));
            }
            if ADD && let Some(r) = &self.dw.epilogue.residual {
                let at = oy * self.dw.output[1] * channels + at;
                let Some(addends) = r.data[at..].first_chunk() else {
                    return;
                };
                let addends = simd.widen(simd.bytes(addends));
                for v in 0..4 {
                    let addend = simd.convert(simd.sub_i32(addends[v], simd.splat_i32(r.zero)));
                    let addend = simd.mul(addend, simd.splat(r.multiplier));
                    codes[v] = simd.bits(simd.add(simd.floats_of(codes[v]), addend));
                }
            }
            for v in 0..4 {
                let sum = simd.add(simd.floats_of(codes[v]), self.base);
                codes[v] = simd.bits(simd.min(simd.max(sum, self.lo), self.hi));
            }
            simd.store(simd.narrow(codes), y);
        }
    }
}
