//! Int8 depthwise convolution: four channels at a time, their weights widened once for the whole call.

use core::arch::asm;
use core::ops::Range;

use super::epilogue::{Finish, clamp};
use crate::arch::cortex_m::Dsp;
use crate::arch::cortex_m::repeat::thrice;
use crate::ops::depthwise::{DepthwiseI8, tap};

/// Products of the four channels at an address with the next weights.
macro_rules! products {
    ($address:literal) => {
        concat!(
            "ldr {x}, ",
            $address,
            "\nldrd {even}, {odd}, [{w}], #8\n",
            "sxtb16 {t}, {x}\nsxtb16 {x}, {x}, ror #8\n",
            "smlabb {s0}, {t}, {even}, {s0}\nsmlatt {s2}, {t}, {even}, {s2}\n",
            "smlabb {s1}, {x}, {odd}, {s1}\nsmlatt {s3}, {x}, {odd}, {s3}"
        )
    };
}

/// Channels side by side.
const GROUP: usize = 4;
/// Taps whose widened weights are held.
const TAPS: usize = 32;

/// Runs whole output rows `first_row..` of `y`; `None` when the window has too many taps, there are too few channels,
/// or a slice is too short.
pub(crate) fn depthwise_i8(
    token: Dsp,
    dw: &DepthwiseI8<'_>,
    x: &[i8],
    first_row: usize,
    y: &mut [i8],
) -> Option<()> {
    let channels = dw.input[2];
    let taps = dw.window.taps();
    if taps > TAPS || channels < GROUP {
        return None;
    }
    let finish = Finish::new(token, &dw.epilogue);
    let zero = i32::from(dw.input_zero);
    let mut weights = [[0; 2]; TAPS];
    let mut next = 0;
    while next < channels {
        // The last group may repeat channels of the one before it.
        let c = next.min(channels - GROUP);
        for (tap, to) in weights.iter_mut().enumerate().take(taps) {
            let word = word(dw.weights, tap * channels + c)?;
            *to = [token.even(word), token.odd(word)];
        }
        let bias = group(dw.bias, c)?;
        let sums = group(dw.weight_sums, c)?;
        let group = Group {
            token,
            dw,
            finish,
            weights: &weights,
            x,
            c,
            bias,
            padded: core::array::from_fn(|i| bias[i].wrapping_add(zero.wrapping_mul(sums[i]))),
            multipliers: group(dw.multipliers, c)?,
        };
        group.run(first_row, y)?;
        next += GROUP;
    }
    clamp(token, &dw.epilogue, y);
    Some(())
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
    fn run(&self, first_row: usize, y: &mut [i8]) -> Option<()> {
        let ([height, width, channels], out_w) = (self.dw.input, self.dw.output[1]);
        let w = &self.dw.window;
        let (kh, kw) = (usize::from(w.kernel[0]), usize::from(w.kernel[1]));
        let (step, pad) = (usize::from(w.stride[1]), usize::from(w.pad[1]));
        // Output columns whose window lies inside the map.
        let mut inner = 0..0;
        if (kh, kw) == (3, 3) && w.dilation == [1, 1] && width + pad >= kw {
            inner.start = pad.div_ceil(step).min(out_w);
            inner.end = ((width + pad - kw) / step + 1).clamp(inner.start, out_w);
        }
        let row = out_w * channels;
        let (first, mut place) = (first_row * row, self.c);
        for oy in first_row..first_row + y.len().checked_div(row)? {
            let rows = w.taps_inside(0, oy, height);
            let columns = if rows.len() == kh {
                inner.clone()
            } else {
                0..0
            };
            // Of the first of these columns; `border` has none.
            let mut at = 0;
            if !columns.is_empty() {
                at = (tap(w, 0, oy, 0)? * width + columns.start * step - pad) * channels + self.c;
            }
            let mut ox = 0;
            while ox < out_w {
                if ox == columns.start && !columns.is_empty() {
                    for _ in columns.clone() {
                        let sums = self.inside(at, width * channels)?;
                        self.finish(sums, first, place, y)?;
                        (at, place) = (at + step * channels, place + channels);
                    }
                    ox = columns.end;
                } else {
                    self.border([oy, ox], rows.clone(), [first, place], y)?;
                    (ox, place) = (ox + 1, place + channels);
                }
            }
        }
        Some(())
    }

    /// Writes the codes of a pixel to `place` of `y`, which begins at `first` of the whole map.
    #[inline(always)]
    fn finish(&self, sums: [i32; GROUP], first: usize, place: usize, y: &mut [i8]) -> Option<()> {
        let codes = self.finish.row(sums, &self.multipliers, first + place);
        *y.get_mut(place..)?.first_chunk_mut()? = codes;
        Some(())
    }

    /// A dense 3×3 window inside the map, whose first value is at `at`; its rows are `row` values apart.
    #[inline(always)]
    fn inside(&self, at: usize, row: usize) -> Option<[i32; GROUP]> {
        let mut sums = self.bias;
        let channels = self.dw.input[2];
        (at + 2 * row + 2 * channels + GROUP <= self.x.len()).then_some(())?;
        let [s0, s1, s2, s3] = &mut sums;
        // SAFETY: the instructions are of the DSP extension, which the token proves. The question bounds the
        // furthest of the nine words of the map that are read, which need no alignment; nine pairs of weights
        // are among the held ones.
        unsafe {
            asm!(
                thrice!(
                    products!("[{at}]"),
                    products!("[{at}, {c}]"),
                    products!("[{at}, {c}, lsl #1]"),
                    "add {at}, {at}, {row}"
                ),
                s0 = inout(reg) *s0, s1 = inout(reg) *s1, s2 = inout(reg) *s2, s3 = inout(reg) *s3,
                at = inout(reg) self.x.as_ptr().wrapping_add(at) => _,
                w = inout(reg) self.weights.as_ptr() => _,
                c = in(reg) channels, row = in(reg) row,
                x = out(reg) _, t = out(reg) _, even = out(reg) _, odd = out(reg) _,
                options(readonly, nostack),
            );
        }
        Some(sums)
    }

    /// A pixel of any window: what lies outside the map reads as the zero point, so the distances of the others from it
    /// are what counts. A call, so that what it needs takes no registers from the other windows.
    #[inline(never)]
    fn border(
        &self,
        [oy, ox]: [usize; 2],
        rows: Range<usize>,
        [to, place]: [usize; 2],
        y: &mut [i8],
    ) -> Option<()> {
        let ([_, width, channels], t) = (self.dw.input, self.token);
        let w = &self.dw.window;
        let zero = self.dw.input_zero as u16 as u32;
        let zero = zero << 16 | zero;
        let mut sums = self.padded;
        let kw = usize::from(w.kernel[1]);
        let columns = w.taps_inside(1, ox, width);
        if rows.is_empty() || columns.is_empty() {
            return self.finish(sums, to, place, y);
        }
        let line = usize::from(w.dilation[0]) * width * channels;
        let step = usize::from(w.dilation[1]) * channels;
        let (iy, ix) = (tap(w, 0, oy, rows.start)?, tap(w, 1, ox, columns.start)?);
        let mut start = (iy * width + ix) * channels + self.c;
        let mut first = rows.start * kw + columns.start;
        for _ in rows {
            let mut at = start;
            for &[even, odd] in self.weights.get(first..first + columns.len())? {
                let x = word(self.x, at)?;
                let (x_even, x_odd) = (t.subtract(t.even(x), zero), t.subtract(t.odd(x), zero));
                sums[0] = t.low(x_even, even, sums[0]);
                sums[1] = t.low(x_odd, odd, sums[1]);
                sums[2] = t.high(x_even, even, sums[2]);
                sums[3] = t.high(x_odd, odd, sums[3]);
                at += step;
            }
            start += line;
            first += kw;
        }
        self.finish(sums, to, place, y)
    }
}

/// The four bytes from `at` on.
#[inline(always)]
fn word(bytes: &[i8], at: usize) -> Option<u32> {
    let &[a, b, c, d] = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8]))
}

/// Values of the channels of a group.
fn group<T: Copy>(values: &[T], c: usize) -> Option<[T; GROUP]> {
    values.get(c..)?.first_chunk().copied()
}
