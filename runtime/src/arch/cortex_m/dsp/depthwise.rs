//! Int8 depthwise convolution: four channels at a time, their weights widened once for the whole call.

use super::epilogue::{Finish, clamp};
use crate::arch::cortex_m::Dsp;
use crate::ops::depthwise::{DepthwiseI8, tap};

/// Channels side by side.
const GROUP: usize = 4;
/// Taps whose widened weights are held.
const TAPS: usize = 32;

/// Runs whole output rows `first_row..` of `y`; `false` when the window has too many taps, or there are too
/// few channels. The lengths are checked.
pub(crate) fn depthwise_i8(
    token: Dsp,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> bool {
    let channels = dw.input[2];
    if dw.window.taps() > TAPS || channels < GROUP {
        return false;
    }
    let finish = Finish::new(token, &dw.epilogue);
    let mut weights = [[0; 2]; TAPS];
    for group in 0..channels.div_ceil(GROUP) {
        // The last group may repeat channels of the one before it.
        let c = (group * GROUP).min(channels - GROUP);
        for (tap, to) in weights.iter_mut().enumerate().take(dw.window.taps()) {
            let word = word(&dw.weights[tap * channels + c..]);
            *to = [token.even(word), token.odd(word)];
        }
        Group {
            token,
            dw,
            finish,
            weights: &weights,
            x,
            c,
        }
        .run(first_row, y);
    }
    clamp(token, &dw.epilogue, y);
    true
}

struct Group<'a, 'b> {
    token: Dsp,
    dw: &'a DepthwiseI8<'b>,
    finish: Finish<'b>,
    weights: &'a [[u32; 2]; TAPS],
    x: &'a [i8],
    /// First channel.
    c: usize,
}

impl Group<'_, '_> {
    fn run(&self, first_row: usize, y: &mut [i8]) {
        let ([height, width, channels], out_w) = (self.dw.input, self.dw.output[1]);
        let bias: [i32; GROUP] = core::array::from_fn(|i| self.dw.bias[self.c + i]);
        let multipliers: [f32; GROUP] = core::array::from_fn(|i| self.dw.multipliers[self.c + i]);
        let w = &self.dw.window;
        let [kh, kw] = w.kernel.map(usize::from);
        let plain = [kh, kw] == [3, 3] && w.dilation == [1, 1];
        for (row, y) in y.chunks_exact_mut(out_w * channels).enumerate() {
            let oy = first_row + row;
            let top = tap(w, 0, oy, 0);
            let rows_inside = top.is_some_and(|top| top + kh <= height);
            for (ox, y) in y.chunks_exact_mut(channels).enumerate() {
                let mut sums = bias;
                match (top, tap(w, 1, ox, 0)) {
                    (Some(top), Some(left)) if plain && rows_inside && left + kw <= width => {
                        self.inside(
                            &mut sums,
                            (top * width + left) * channels + self.c,
                            width * channels,
                        );
                    }
                    _ => self.border(&mut sums, oy, ox),
                }
                let index = (oy * out_w + ox) * channels + self.c;
                for i in 0..GROUP {
                    y[self.c + i] = self.finish.code(sums[i], multipliers[i], index + i);
                }
            }
        }
    }

    /// A dense 3×3 window inside the map, whose first value is at `at`.
    #[inline(always)]
    fn inside(&self, sums: &mut [i32; GROUP], at: usize, row: usize) {
        let channels = self.dw.input[2];
        for ky in 0..3 {
            for kx in 0..3 {
                let word = word(&self.x[at + ky * row + kx * channels..]);
                self.multiply(sums, word, self.weights[ky * 3 + kx]);
            }
        }
    }

    /// Any window, tap by tap; what is outside the map reads as the zero point.
    fn border(&self, sums: &mut [i32; GROUP], oy: usize, ox: usize) {
        let [height, width, channels] = self.dw.input;
        let w = &self.dw.window;
        let padding = u32::from_ne_bytes([self.dw.input_zero as u8; GROUP]);
        let [kh, kw] = w.kernel.map(usize::from);
        for ky in 0..kh {
            let iy = tap(w, 0, oy, ky).filter(|&iy| iy < height);
            for kx in 0..kw {
                let ix = tap(w, 1, ox, kx).filter(|&ix| ix < width);
                let word = match (iy, ix) {
                    (Some(iy), Some(ix)) => word(&self.x[(iy * width + ix) * channels + self.c..]),
                    _ => padding,
                };
                self.multiply(sums, word, self.weights[ky * kw + kx]);
            }
        }
    }

    #[inline(always)]
    fn multiply(&self, sums: &mut [i32; GROUP], x: u32, [even, odd]: [u32; 2]) {
        let t = self.token;
        let (x_even, x_odd) = (t.even(x), t.odd(x));
        sums[0] = t.low(x_even, even, sums[0]);
        sums[1] = t.low(x_odd, odd, sums[1]);
        sums[2] = t.high(x_even, even, sums[2]);
        sums[3] = t.high(x_odd, odd, sums[3]);
    }
}

/// The first four bytes.
#[inline(always)]
fn word(bytes: &[i8]) -> u32 {
    bytes
        .first_chunk::<GROUP>()
        .map_or(0, |b| u32::from_ne_bytes(b.map(|c| c as u8)))
}
