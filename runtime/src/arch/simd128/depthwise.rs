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

/// Where a tap of a window reads.
#[derive(Clone, Copy)]
struct Tap {
    at: *const i8,
    /// From one output pixel to the next.
    step: usize,
    /// The bits of a channel's number that count: all, or none in the padding.
    mask: usize,
}

/// Runs the job; `false` when channels are too few or the window too large.
pub(crate) fn depthwise_i8<S: Simd>(simd: S, job: Job<'_, '_>) -> bool {
    let Job {
        dw,
        x,
        first_row,
        y,
    } = job;
    let (channels, taps) = (dw.input[2], dw.window.taps());
    if channels < LANES || taps == 0 || taps > TAPS {
        return false;
    }
    let e = &dw.epilogue;
    let kernel = Kernel {
        simd,
        dw,
        x,
        padding: [dw.input_zero; LANES],
        base: simd.splat(MAGIC + e.zero as f32),
        lo: simd.splat(MAGIC + f32::from(e.lo)),
        hi: simd.splat(MAGIC + f32::from(e.hi)),
    };
    let width = dw.output[1];
    let paired = !dw.weights[..taps * channels].contains(&i8::MIN);
    for (i, y) in y.chunks_exact_mut(width * channels).enumerate() {
        if paired {
            kernel.row::<true>(first_row + i, y);
        } else {
            kernel.row::<false>(first_row + i, y);
        }
    }
    true
}

struct Kernel<'a, 'b, S: Simd> {
    simd: S,
    dw: &'a DepthwiseI8<'b>,
    x: &'a [i8],
    padding: [i8; LANES],
    base: S::Floats,
    lo: S::Floats,
    hi: S::Floats,
}

impl<S: Simd> Kernel<'_, '_, S> {
    /// One output row.
    fn row<const PAIRED: bool>(&self, oy: usize, y: &mut [i8]) {
        let dw = self.dw;
        let w = &dw.window;
        let (channels, width) = (dw.input[2], dw.output[1]);
        let [stride, pad, dilation, across] =
            [w.stride[1], w.pad[1], w.dilation[1], w.kernel[1]].map(usize::from);
        // Pixels whose window lies between the left and the right border.
        let stride = stride.max(1);
        let reach = (across - 1) * dilation + 1;
        let start = pad.div_ceil(stride).min(width);
        let end = match (dw.input[1] + pad).checked_sub(reach) {
            Some(room) => (room / stride + 1).clamp(start, width),
            None => start,
        };
        let mut ox = 0;
        while ox < width {
            let left = end.saturating_sub(ox);
            let inside = ox >= start && left > 0;
            // The last group computes some pixels again.
            let first = if inside && left < PIXELS && end - start >= PIXELS {
                end - PIXELS
            } else {
                ox
            };
            let group = if inside && end - first >= PIXELS {
                PIXELS
            } else {
                1
            };
            let taps = &self.taps(oy, first)[..w.taps()];
            let out = &mut y[first * channels..][..group * channels];
            let at = (oy * width + first) * channels;
            for block in (0..channels).step_by(LANES) {
                // So does the last block.
                let c = block.min(channels - LANES);
                // SAFETY: the taps of a group are those of all its pixels: rows are the same, and columns
                // lie inside. Each reads 16 channels from `c` on.
                unsafe {
                    if group == PIXELS {
                        self.group::<PIXELS, PAIRED>(taps, c, at, out);
                    } else {
                        self.group::<1, PAIRED>(taps, c, at, out);
                    }
                }
            }
            ox = first + group;
        }
    }

    /// The taps of pixel `[oy, ox]`; what is behind them means nothing.
    fn taps(&self, oy: usize, ox: usize) -> [Tap; TAPS] {
        let dw = self.dw;
        let w = &dw.window;
        let [height, width, channels] = dw.input;
        let [down, across] = w.kernel.map(usize::from);
        let at = |axis: usize, o: usize, k: usize| {
            (o * usize::from(w.stride[axis]) + k * usize::from(w.dilation[axis]))
                .wrapping_sub(w.pad[axis].into())
        };
        let padding = Tap {
            at: self.padding.as_ptr(),
            step: 0,
            mask: 0,
        };
        let mut taps = [padding; TAPS];
        for ky in 0..down {
            let iy = at(0, oy, ky);
            for kx in 0..across {
                let ix = at(1, ox, kx);
                if iy < height && ix < width {
                    taps[ky * across + kx] = Tap {
                        at: self.x[(iy * width + ix) * channels..].as_ptr(),
                        step: usize::from(w.stride[1]) * channels,
                        mask: usize::MAX,
                    };
                }
            }
        }
        taps
    }

    /// Channels `c..c + 16` of `P` pixels, whose first value is at `at` of the whole output.
    ///
    /// # Safety
    ///
    /// Each tap can be read for 16 channels from `c` on in `P` pixels, and the channels exist.
    #[inline(always)]
    unsafe fn group<const P: usize, const PAIRED: bool>(
        &self,
        taps: &[Tap],
        c: usize,
        at: usize,
        out: &mut [i8],
    ) {
        let simd = self.simd;
        let channels = self.dw.input[2];
        let bias = self.dw.bias[c..c + LANES].as_chunks::<4>().0;
        let bias = [bias[0], bias[1], bias[2], bias[3]].map(|b| simd.ints(&b));
        let mut sums = [bias; P];
        // SAFETY: as the caller, for taps; there is a vector of weights for each tap.
        let x = |tap: &Tap, p: usize| unsafe {
            simd.bytes(&*tap.at.add((c & tap.mask) + p * tap.step).cast())
        };
        let weights = self.dw.weights[c..].as_ptr();
        // SAFETY: as above.
        let w = |tap: usize| unsafe { simd.bytes(&*weights.add(tap * channels).cast()) };
        let mut tap = 0;
        while PAIRED && tap + 2 <= taps.len() {
            let (w0, w1) = (w(tap), w(tap + 1));
            for p in 0..P {
                let products = simd.products(x(&taps[tap], p), w0);
                let products = simd.add_products(products, x(&taps[tap + 1], p), w1);
                sums[p] = simd.accumulate(sums[p], products);
            }
            tap += 2;
        }
        while tap < taps.len() {
            let w = w(tap);
            for p in 0..P {
                let products = simd.products(x(&taps[tap], p), w);
                sums[p] = simd.accumulate(sums[p], products);
            }
            tap += 1;
        }
        for (p, sums) in sums.into_iter().enumerate() {
            let start = p * channels + c;
            self.finish(sums, c, at + start, &mut out[start..start + LANES]);
        }
    }

    /// Requantises and stores the sums of channels `c..c + 16` of one pixel; `at` is their position in the
    /// whole output.
    #[inline(always)]
    fn finish(&self, sums: [S::Ints; 4], c: usize, at: usize, out: &mut [i8]) {
        let (simd, e) = (self.simd, &self.dw.epilogue);
        let multipliers = self.dw.multipliers[c..c + LANES].as_chunks::<4>().0;
        let mut addends = [simd.splat_i32(0); 4];
        if let Some(r) = &e.residual
            && let Some(codes) = r.data[at..].first_chunk()
        {
            addends = simd.widen(simd.bytes(codes));
        }
        let mut codes = sums;
        for v in 0..4 {
            let mut t = simd.mul(simd.convert(sums[v]), simd.floats(&multipliers[v]));
            if let Some(r) = &e.residual {
                let addend = simd.sub_i32(addends[v], simd.splat_i32(r.zero));
                t = simd.add(t, simd.mul(simd.convert(addend), simd.splat(r.multiplier)));
            }
            let sum = simd.min(simd.max(simd.add(t, self.base), self.lo), self.hi);
            codes[v] = simd.bits(sum);
        }
        if let Some(out) = out.first_chunk_mut() {
            simd.store(simd.narrow(codes), out);
        }
    }
}
