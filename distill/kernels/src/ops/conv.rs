//! Dense convolution as a matrix product: the windows of a map as rows.

use super::Window;

/// The windows of `x[height, width, channels]` as rows `[kernel height, kernel width, channels]`, zeros
/// where they leave the map.
pub fn windows(window: &Window, [height, width, c]: [usize; 3], x: &[f32], rows: &mut [f32]) {
    let taps = window.taps();
    each_tap(window, [height, width], |row, tap, source| {
        let to = &mut rows[(row * taps + tap) * c..][..c];
        match source {
            Some(pixel) => to.copy_from_slice(&x[pixel * c..][..c]),
            None => to.fill(0.0),
        }
    });
}

/// The reverse of [`windows`] for gradients: adds the rows to the pixels they came from.
pub fn add_windows(window: &Window, [height, width, c]: [usize; 3], rows: &[f32], x: &mut [f32]) {
    let taps = window.taps();
    each_tap(window, [height, width], |row, tap, source| {
        if let Some(pixel) = source {
            let from = &rows[(row * taps + tap) * c..][..c];
            for (x, g) in x[pixel * c..][..c].iter_mut().zip(from) {
                *x += g;
            }
        }
    });
}

/// Calls `visit` with row, place in the window, and pixel if it is on the map.
#[inline(always)]
fn each_tap(
    window: &Window,
    [height, width]: [usize; 2],
    mut visit: impl FnMut(usize, usize, Option<usize>),
) {
    let Some([rows, columns]) = window.output([height, width]) else {
        return;
    };
    for y in 0..rows {
        for x in 0..columns {
            for ky in 0..window.kernel[0] {
                let from_y = window.source(0, y, ky, height);
                for kx in 0..window.kernel[1] {
                    let pixel = match (from_y, window.source(1, x, kx, width)) {
                        (Some(from_y), Some(from_x)) => Some(from_y * width + from_x),
                        _ => None,
                    };
                    visit(y * columns + x, ky * window.kernel[1] + kx, pixel);
                }
            }
        }
    }
}
