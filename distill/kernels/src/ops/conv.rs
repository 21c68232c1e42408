//! Dense convolution as a matrix product: the windows of a map as rows.

use super::Window;

/// The windows of `x[height, width, channels]` as rows `[kernel height, kernel width, channels]`, zeros
/// where they leave the map.
pub fn windows(window: &Window, map: [usize; 3], x: &[f32], rows: &mut [f32]) {
    let (c, across) = (map[2], window.kernel[1] * map[2]);
    each_run(window, map, |row, run| {
        let to = &mut rows[row * across..][..across];
        let Some(Run { first, len, source }) = run else {
            return to.fill(0.0);
        };
        let (before, rest) = to.split_at_mut(first * c);
        let (to, after) = rest.split_at_mut(len * c);
        before.fill(0.0);
        to.copy_from_slice(&x[source * c..][..len * c]);
        after.fill(0.0);
    });
}

/// The reverse of [`windows`] for gradients: adds the rows to the pixels they came from.
pub fn add_windows(window: &Window, map: [usize; 3], rows: &[f32], x: &mut [f32]) {
    let (c, across) = (map[2], window.kernel[1] * map[2]);
    each_run(window, map, |row, run| {
        let Some(Run { first, len, source }) = run else {
            return;
        };
        let from = &rows[row * across + first * c..][..len * c];
        for (x, g) in x[source * c..][..len * c].iter_mut().zip(from) {
            *x += g;
        }
    });
}

/// The places of a row of a window that are on the map.
struct Run {
    first: usize,
    len: usize,
    /// The pixel of the first of them; the others follow it.
    source: usize,
}

/// Calls `visit` for each result's rows of the window, counted over all, with what is on the map.
#[inline(always)]
fn each_run(
    window: &Window,
    [height, width, _]: [usize; 3],
    mut visit: impl FnMut(usize, Option<Run>),
) {
    let Some([rows, columns]) = window.output([height, width]) else {
        return;
    };
    let taps = window.kernel[1];
    for y in 0..rows {
        for x in 0..columns {
            let start = x * window.stride[1];
            let first = window.pads[1].saturating_sub(start).min(taps);
            let last = (width + window.pads[1]).saturating_sub(start).min(taps);
            for ky in 0..window.kernel[0] {
                let run = window.source(0, y, ky, height).filter(|_| first < last);
                let run = run.map(|from_y| Run {
                    first,
                    len: last - first,
                    source: from_y * width + start + first - window.pads[1],
                });
                visit((y * columns + x) * window.kernel[0] + ky, run);
            }
        }
    }
}
