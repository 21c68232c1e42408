//! Gathers the input values under a window into a contiguous row.

use super::{ConvF32, ConvI8};
use crate::ops::Window;

/// Values that one step of a short copy moves.
const CHUNK: usize = 16;
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
        Patches { window, input, out_width, x, pad: conv.input_zero }
    }
}

impl<'a> Patches<'a, f32> {
    /// Patches of a float convolution over `x`.
    pub(crate) fn of_f32(conv: &ConvF32<'_>, x: &'a [f32]) -> Self {
        let (window, input, out_width) = (conv.window, conv.input, conv.output[1]);
        Patches { window, input, out_width, x, pad: 0.0 }
    }
}

impl<T: Copy> Patches<'_, T> {

    /// Writes the patch of output pixel `pixel` to the front of `row`. What lies behind it in `row`
    /// may be overwritten too: short runs are copied in whole chunks where there is room.
    pub(crate) fn gather(&self, pixel: usize, row: &mut [T]) {
        let [height, width, channels] = self.input;
        let w = &self.window;
        let (kh, kw) = (w.kernel[0] as usize, w.kernel[1] as usize);
        let top = (pixel / self.out_width * w.stride[0] as usize) as isize - w.pad[0] as isize;
        let left = (pixel % self.out_width * w.stride[1] as usize) as isize - w.pad[1] as isize;
        let mut row = &mut row[..];
        for ky in 0..kh {
            let iy = top + (ky * w.dilation[0] as usize) as isize;
            let line = if iy >= 0 && (iy as usize) < height {
                self.x.get(iy as usize * width * channels..).unwrap_or(&[])
            } else {
                &[]
            };
            if w.dilation[1] == 1 {
                self.gather_run(line, left, kw, row);
            } else {
                for kx in 0..kw {
                    let ix = left + (kx * w.dilation[1] as usize) as isize;
                    self.gather_run(line, ix, 1, &mut row[kx * channels..]);
                }
            }
            row = &mut row[kw * channels..];
        }
    }

    /// Writes `count` neighbouring pixels of a line, from column `left` on; an empty line is padding.
    #[inline(always)]
    fn gather_run(&self, line: &[T], left: isize, count: usize, row: &mut [T]) {
        let [_, width, channels] = self.input;
        let before = if line.is_empty() { count } else { (-left).clamp(0, count as isize) as usize };
        let end = (width as isize - left).clamp(before as isize, count as isize) as usize;
        if before > 0 {
            row[..before * channels].fill(self.pad);
        }
        if before < end {
            let from = (left + before as isize) as usize * channels;
            copy(&line[from..], &mut row[before * channels..], (end - before) * channels);
        }
        if end < count {
            row[end * channels..count * channels].fill(self.pad);
        }
    }
}

/// Copies the first `n` values of `src` to `dst`, in whole chunks where both have room for that.
#[inline(always)]
fn copy<T: Copy>(src: &[T], dst: &mut [T], n: usize) {
    let whole = n.next_multiple_of(CHUNK);
    if n < LONG && whole <= src.len() && whole <= dst.len() {
        let chunks = dst[..whole].chunks_exact_mut(CHUNK).zip(src[..whole].chunks_exact(CHUNK));
        chunks.for_each(|(d, s)| d.copy_from_slice(s));
    } else {
        dst[..n].copy_from_slice(&src[..n]);
    }
}
