//! Gathers the input values under a window into a contiguous row.

use core::ops::Range;

use super::{ConvF32, ConvI8};
use crate::ops::Window;

/// Values that one step of a short copy moves.
const CHUNK: usize = 16;
/// The same where there are no vectors.
const CALL: usize = 32;
/// Copies of at least this many values are left to `memcpy`.
const LONG: usize = 256;

/// The patches of one input map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patches<'a, T> {
    window: Window,
    input: [usize; 3],
    out_width: usize,
    x: &'a [T],
    pad: T,
}

impl<'a> Patches<'a, i8> {
    /// Patches of an int8 convolution over `x`.
    pub(crate) fn of_i8(conv: &ConvI8<'_>, x: &'a [i8]) -> Self {
        let (window, input, out_width) = (conv.window, conv.input, conv.output[1]);
        Patches {
            window,
            input,
            out_width,
            x,
            pad: conv.input_zero,
        }
    }
}

impl<'a> Patches<'a, f32> {
    /// Patches of a float convolution over `x`.
    pub(crate) fn of_f32(conv: &ConvF32<'_>, x: &'a [f32]) -> Self {
        let (window, input, out_width) = (conv.window, conv.input, conv.output[1]);
        Patches {
            window,
            input,
            out_width,
            x,
            pad: 0.0,
        }
    }
}

impl<T: Copy> Patches<'_, T> {
    /// Writes the patches of output pixels `first..first + count` to `rows`, one every `stride`
    /// values. What lies behind a patch in its row may be overwritten too: short runs are copied in
    /// whole chunks where there is room.
    pub(crate) fn gather_rows(&self, first: usize, count: usize, rows: &mut [T], stride: usize) {
        let mut done = 0;
        while done < count {
            let (y, x) = (
                (first + done) / self.out_width,
                (first + done) % self.out_width,
            );
            let pixels = (self.out_width - x).min(count - done);
            self.gather_line(y, x..x + pixels, &mut rows[done * stride..], stride);
            done += pixels;
        }
    }

    /// The patches of some pixels of output line `y`: line by line of the window, which leaves only a
    /// copy for the inner loop. Chunks reach into the next line's place, which is filled later.
    fn gather_line(&self, y: usize, pixels: Range<usize>, rows: &mut [T], stride: usize) {
        let [height, width, channels] = self.input;
        let w = &self.window;
        let (step, pad, reach) = (
            w.stride[1] as usize,
            w.pad[1] as usize,
            w.kernel[1] as usize,
        );
        let run = reach * channels;
        // Pixels whose window lies between the left and the right border.
        let inner = if w.dilation[1] == 1 && width + pad >= reach {
            let start = pad.div_ceil(step).clamp(pixels.start, pixels.end);
            start..((width + pad - reach) / step + 1).clamp(start, pixels.end)
        } else {
            pixels.start..pixels.start
        };
        for ky in 0..w.kernel[0] as usize {
            let iy = (y * w.stride[0] as usize + ky * w.dilation[0] as usize)
                .wrapping_sub(w.pad[0] as usize);
            let line = if iy < height {
                &self.x[iy * width * channels..]
            } else {
                &[]
            };
            let room = stride - (ky * run).min(stride);
            let row = |x: usize| (x - pixels.start) * stride + ky * run;
            for x in (pixels.start..inner.start).chain(inner.end..pixels.end) {
                self.gather_border(line, x, &mut rows[row(x)..]);
            }
            if line.is_empty() {
                inner
                    .clone()
                    .for_each(|x| rows[row(x)..][..run].fill(self.pad));
            } else if !inner.is_empty() {
                let from = &line[(inner.start * step - pad) * channels..];
                copy_runs(
                    from,
                    step * channels,
                    &mut rows[row(inner.start)..],
                    stride,
                    run,
                    room,
                    inner.len(),
                );
            }
        }
    }

    /// One line of the window of pixel `x` of an output line, at a border or dilated; an empty line is
    /// padding.
    fn gather_border(&self, line: &[T], x: usize, row: &mut [T]) {
        let [_, width, channels] = self.input;
        let w = &self.window;
        for (kx, values) in row
            .chunks_exact_mut(channels)
            .take(w.kernel[1] as usize)
            .enumerate()
        {
            let ix = (x * w.stride[1] as usize + kx * w.dilation[1] as usize)
                .wrapping_sub(w.pad[1] as usize);
            if ix < width && !line.is_empty() {
                copy_short(&line[ix * channels..][..channels], values);
            } else {
                values.fill(self.pad);
            }
        }
    }
}

/// Copies what is probably short; both are equally long.
#[inline(always)]
fn copy_short<T: Copy>(from: &[T], to: &mut [T]) {
    if cfg!(not(arm_dsp)) || from.len() >= CALL {
        return to.copy_from_slice(from);
    }
    // A word at a time, where a call would take longer.
    let (words, rest) = from.as_chunks::<4>();
    let (to_words, to_rest) = to.as_chunks_mut::<4>();
    to_words.iter_mut().zip(words).for_each(|(to, w)| *to = *w);
    to_rest.iter_mut().zip(rest).for_each(|(to, v)| *to = *v);
}

/// Copies `count` runs, which start every `from_step` and `to_step` values; of those in `to`, `room`
/// may be written.
fn copy_runs<T: Copy>(
    from: &[T],
    from_step: usize,
    to: &mut [T],
    to_step: usize,
    run: usize,
    room: usize,
    count: usize,
) {
    #[cfg(arm_mve)]
    if let Some(token) = crate::arch::cortex_m::Mve::detect() {
        use crate::arch::cortex_m::mve::copy::copy;
        for i in 0..count {
            copy(
                token,
                &from[i * from_step..][..run],
                &mut to[i * to_step..][..run],
            );
        }
        return;
    }
    if cfg!(arm_dsp) {
        // Chunks would be calls of iterators where the program is compiled for size.
        for i in 0..count {
            let from = &from[i * from_step..][..run];
            copy_short(from, &mut to[i * to_step..][..run]);
        }
        return;
    }
    let whole = run.next_multiple_of(CHUNK);
    // Runs whose chunks end within both slices.
    let inside = |len: usize, step: usize| len.checked_sub(whole).map_or(0, |rest| rest / step + 1);
    let chunked = if run >= LONG || whole > room {
        0
    } else {
        count
            .min(inside(from.len(), from_step))
            .min(inside(to.len(), to_step))
    };
    for at in (0..whole).step_by(CHUNK) {
        let from = from[at.min(from.len())..].windows(CHUNK).step_by(from_step);
        let start = at.min(to.len());
        let to = to[start..].chunks_mut(to_step);
        for (from, to) in from.zip(to).take(chunked) {
            if let (Some(from), Some(to)) = (from.first_chunk::<CHUNK>(), to.first_chunk_mut()) {
                *to = *from;
            }
        }
    }
    for i in chunked..count {
        to[i * to_step..][..run].copy_from_slice(&from[i * from_step..][..run]);
    }
}
