//! The input values under a window, gathered by little code.

use crate::ops::conv::ConvI8;
use crate::ops::depthwise::tap;

/// Copies of at least this many values are left to `memcpy`.
const CALL: usize = 32;

/// Writes the patch of output pixel `pixel`. Each line of the window is a run of the map, between paddings; where it
/// is dilated, a run for each tap.
pub(super) fn gather(conv: &ConvI8<'_>, x: &[i8], pixel: usize, patch: &mut [i8]) -> Option<()> {
    let ([height, width, channels], out_width) = (conv.input, conv.output[1]);
    let w = &conv.window;
    let (kh, kw) = (usize::from(w.kernel[0]), usize::from(w.kernel[1]));
    let dilation = usize::from(w.dilation[1]);
    let oy = pixel.checked_div(out_width)?;
    let ox = pixel - oy * out_width;
    let (rows, columns) = (w.taps_inside(0, oy, height), w.taps_inside(1, ox, width));
    // Where each line's run lies in the patch, and the first line's in the map; unused where there is none.
    let run = columns.start * channels..columns.end * channels;
    let (iy, ix) = (tap(w, 0, oy, rows.start), tap(w, 1, ox, columns.start));
    let mut at = (iy.unwrap_or(0) * width + ix.unwrap_or(0)) * channels;
    let piece = if dilation == 1 { run.len() } else { channels };
    let mut rest = patch;
    for ky in 0..kh {
        let (line, tail) = rest.split_at_mut_checked(kw * channels)?;
        rest = tail;
        let inside = rows.contains(&ky) && !run.is_empty();
        if !inside || columns.len() < kw {
            line.fill(conv.input_zero);
        }
        if !inside {
            continue;
        }
        let mut from = x.get(at..)?;
        at += usize::from(w.dilation[0]) * width * channels;
        let mut to = line.get_mut(run.clone())?;
        while !to.is_empty() {
            let (mine, others) = to.split_at_mut_checked(piece)?;
            copy(from.get(..piece)?, mine);
            from = from.get(dilation * channels..).unwrap_or_default();
            to = others;
        }
    }
    Some(())
}

/// Copies what is probably short; both are equally long.
#[inline(always)]
fn copy(from: &[i8], to: &mut [i8]) {
    if from.len() >= CALL && from.len() == to.len() {
        return to.copy_from_slice(from);
    }
    // A word at a time, where a call would take longer.
    let (words, rest) = from.as_chunks::<4>();
    let (to_words, to_rest) = to.as_chunks_mut::<4>();
    to_words.iter_mut().zip(words).for_each(|(to, w)| *to = *w);
    to_rest.iter_mut().zip(rest).for_each(|(to, v)| *to = *v);
}
