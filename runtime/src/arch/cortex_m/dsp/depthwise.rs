//! Int8 depthwise convolution: four channels at a time, their weights widened once for the whole call.

use core::arch::asm;
use core::ops::Range;

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
        let zero = i32::from(dw.input_zero);
        let bias: [i32; GROUP] = core::array::from_fn(|i| dw.bias[c + i]);
        let padding = |i: usize| zero.wrapping_mul(dw.weight_sums[c + i]);
        let group = Group {
            token,
            dw,
            finish,
            weights: &weights,
            x,
            c,
            bias,
            padded: core::array::from_fn(|i| bias[i].wrapping_add(padding(i))),
            multipliers: core::array::from_fn(|i| dw.multipliers[c + i]),
        };
        group.run(first_row, y);
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
    bias: [i32; GROUP],
    /// Sums where all taps read the zero point.
    padded: [i32; GROUP],
    multipliers: [f32; GROUP],
}

impl Group<'_, '_> {
    fn run(&self, first_row: usize, y: &mut [i8]) {
        let ([height, width, channels], out_w) = (self.dw.input, self.dw.output[1]);
        let w = &self.dw.window;
        let [kh, kw] = w.kernel.map(usize::from);
        let (step, pad) = (usize::from(w.stride[1]), usize::from(w.pad[1]));
        // Output columns whose window lies inside the map.
        let mut columns = 0..0;
        if [kh, kw] == [3, 3] && w.dilation == [1, 1] && width + pad >= kw {
            columns.start = pad.div_ceil(step).min(out_w);
            columns.end = ((width + pad - kw) / step + 1).clamp(columns.start, out_w);
        }
        for (row, y) in y.chunks_exact_mut(out_w * channels).enumerate() {
            let oy = first_row + row;
            let index = oy * out_w * channels;
            let (mut columns, mut at) = (columns.clone(), 0);
            match tap(w, 0, oy, 0) {
                Some(top) if top + kh <= height && !columns.is_empty() => {
                    at = (top * width + columns.start * step - pad) * channels + self.c;
                }
                _ => columns = 0..0,
            }
            let rows = w.taps_inside(0, oy, height);
            for (ox, y) in y.chunks_exact_mut(channels).enumerate() {
                let sums = if columns.contains(&ox) {
                    at += step * channels;
                    self.inside(at - step * channels, width * channels)
                } else {
                    self.border(oy, ox, rows.clone())
                };
                let index = index + ox * channels + self.c;
                let codes = self.finish.row(sums, &self.multipliers, index);
                if let Some(y) = y.get_mut(self.c..).and_then(|y| y.first_chunk_mut()) {
                    *y = codes;
                }
            }
        }
    }

    /// A dense 3×3 window inside the map, whose first value is at `at`; its rows are `row` values apart.
    #[inline(always)]
    fn inside(&self, at: usize, row: usize) -> [i32; GROUP] {
        let mut sums = self.bias;
        let channels = self.dw.input[2];
        assert!(at + 2 * row + 2 * channels + GROUP <= self.x.len());
        let [s0, s1, s2, s3] = &mut sums;
        // SAFETY: the instructions are of the DSP extension, which the token proves. The assertion bounds the
        // furthest of the nine words of the map that are read, which need no alignment; nine pairs of weights
        // are among the held ones.
        unsafe {
            asm!(
                ".rept 3",
                "ldr {x}, [{at}]",
                "ldrd {even}, {odd}, [{w}], #8",
                "sxtb16 {t}, {x}",
                "sxtb16 {x}, {x}, ror #8",
                "smlabb {s0}, {t}, {even}, {s0}",
                "smlatt {s2}, {t}, {even}, {s2}",
                "smlabb {s1}, {x}, {odd}, {s1}",
                "smlatt {s3}, {x}, {odd}, {s3}",
                "ldr {x}, [{at}, {c}]",
                "ldrd {even}, {odd}, [{w}], #8",
                "sxtb16 {t}, {x}",
                "sxtb16 {x}, {x}, ror #8",
                "smlabb {s0}, {t}, {even}, {s0}",
                "smlatt {s2}, {t}, {even}, {s2}",
                "smlabb {s1}, {x}, {odd}, {s1}",
                "smlatt {s3}, {x}, {odd}, {s3}",
                "ldr {x}, [{at}, {c}, lsl #1]",
                "ldrd {even}, {odd}, [{w}], #8",
                "sxtb16 {t}, {x}",
                "sxtb16 {x}, {x}, ror #8",
                "smlabb {s0}, {t}, {even}, {s0}",
                "smlatt {s2}, {t}, {even}, {s2}",
                "smlabb {s1}, {x}, {odd}, {s1}",
                "smlatt {s3}, {x}, {odd}, {s3}",
                "add {at}, {at}, {row}",
                ".endr",
                s0 = inout(reg) *s0, s1 = inout(reg) *s1, s2 = inout(reg) *s2, s3 = inout(reg) *s3,
                at = inout(reg) self.x.as_ptr().wrapping_add(at) => _,
                w = inout(reg) self.weights.as_ptr() => _,
                c = in(reg) channels, row = in(reg) row,
                x = out(reg) _, t = out(reg) _, even = out(reg) _, odd = out(reg) _,
                options(readonly, nostack),
            );
        }
        sums
    }

    /// Any window: what lies outside the map reads as the zero point, so the distances of the others from it
    /// are what counts.
    fn border(&self, oy: usize, ox: usize, rows: Range<usize>) -> [i32; GROUP] {
        let ([_, width, channels], t) = (self.dw.input, self.token);
        let w = &self.dw.window;
        let zero = self.dw.input_zero as u16 as u32;
        let zero = zero << 16 | zero;
        let mut sums = self.padded;
        let kw = usize::from(w.kernel[1]);
        let columns = w.taps_inside(1, ox, width);
        let step = usize::from(w.dilation[1]) * channels;
        for ky in rows {
            let (Some(iy), Some(ix)) = (tap(w, 0, oy, ky), tap(w, 1, ox, columns.start)) else {
                continue;
            };
            let mut at = (iy * width + ix) * channels + self.c;
            for &[even, odd] in &self.weights[ky * kw..][columns.clone()] {
                let x = word(&self.x[at..]);
                let (x_even, x_odd) = (t.subtract(t.even(x), zero), t.subtract(t.odd(x), zero));
                sums[0] = t.low(x_even, even, sums[0]);
                sums[1] = t.low(x_odd, odd, sums[1]);
                sums[2] = t.high(x_even, even, sums[2]);
                sums[3] = t.high(x_odd, odd, sums[3]);
                at += step;
            }
        }
        sums
    }
}

/// The first four bytes.
#[inline(always)]
fn word(bytes: &[i8]) -> u32 {
    match bytes.first_chunk() {
        Some(&[a, b, c, d]) => u32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8]),
        None => 0,
    }
}
