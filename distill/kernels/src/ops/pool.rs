//! Averages and largest values over pixels, and factors per channel.

use super::Window;
use crate::isa::kernel;

/// Average over the pixels of each window that are on the map.
pub fn average(window: &Window, [height, width, c]: [usize; 3], x: &[f32], y: &mut [f32]) {
    y.fill(0.0);
    each_pixel(window, [height, width], |result, pixel, share| {
        for (y, x) in y[result * c..][..c].iter_mut().zip(&x[pixel * c..][..c]) {
            *y += share * x;
        }
    });
}

/// Gradient of [`average`] with respect to `x`, from `d`, that with respect to `y`.
pub fn average_gradient(window: &Window, [height, width, c]: [usize; 3], d: &[f32], x: &mut [f32]) {
    x.fill(0.0);
    each_pixel(window, [height, width], |result, pixel, share| {
        for (x, d) in x[pixel * c..][..c].iter_mut().zip(&d[result * c..][..c]) {
            *x += share * d;
        }
    });
}

/// Largest value of the pixels of each window that are on the map. Not a number stays so.
pub fn largest(window: &Window, [height, width, c]: [usize; 3], x: &[f32], y: &mut [f32]) {
    y.fill(f32::NEG_INFINITY);
    each_pixel(window, [height, width], |result, pixel, _| {
        for (y, &x) in y[result * c..][..c].iter_mut().zip(&x[pixel * c..][..c]) {
            if x > *y || x.is_nan() {
                *y = x;
            }
        }
    });
}

/// Gradient of [`largest`] with respect to `x`, from `y`, its result, and `d`, that with respect to `y`: all
/// of it goes to the first pixel of a window that has the largest value, as in PyTorch. Clears `y` where it has
/// gone.
pub fn largest_gradient(
    window: &Window,
    [height, width, c]: [usize; 3],
    x: &[f32],
    y: &mut [f32],
    d: &[f32],
    of_x: &mut [f32],
) {
    of_x.fill(0.0);
    each_pixel(window, [height, width], |result, pixel, _| {
        for i in 0..c {
            let (result, pixel) = (result * c + i, pixel * c + i);
            if x[pixel] == y[result] {
                of_x[pixel] += d[result];
                y[result] = f32::NAN;
            }
        }
    });
}

/// Calls `visit` with result, pixel, and one over the number of pixels of that result.
fn each_pixel(
    window: &Window,
    [height, width]: [usize; 2],
    mut visit: impl FnMut(usize, usize, f32),
) {
    let Some([rows, columns]) = window.output([height, width]) else {
        return;
    };
    let range = |axis: usize, at: usize, size: usize| {
        let start = at * window.stride[axis];
        let end = (start + window.kernel[axis]).saturating_sub(window.pads[axis]);
        start.saturating_sub(window.pads[axis])..end.min(size)
    };
    for y in 0..rows {
        for x in 0..columns {
            let (down, right) = (range(0, y, height), range(1, x, width));
            let share = 1.0 / (down.len() * right.len()).max(1) as f32;
            for from_y in down {
                for from_x in right.clone() {
                    visit(y * columns + x, from_y * width + from_x, share);
                }
            }
        }
    }
}

kernel! {
    /// Mean of the rows of `x[rows, channels]`.
    pub fn mean<'a, S, simd>(x: &'a [f32], y: &'a mut [f32]) {
        let c = y.len();
        y.fill(0.0);
        for row in x.chunks_exact(c) {
            for (y, x) in y.iter_mut().zip(row) {
                *y += x;
            }
        }
        let share = c as f32 / x.len() as f32;
        y.iter_mut().for_each(|y| *y *= share);
    }
}

kernel! {
    /// Gradient of [`mean`] with respect to `x`, from `d`, that with respect to `y`.
    pub fn mean_gradient<'a, S, simd>(d: &'a [f32], x: &'a mut [f32]) {
        let c = d.len();
        let share = c as f32 / x.len() as f32;
        for row in x.chunks_exact_mut(c) {
            for (x, d) in row.iter_mut().zip(d) {
                *x = share * d;
            }
        }
    }
}

kernel! {
    /// `y = x · gate` with one factor per channel.
    pub fn gate<'a, S, simd>(x: &'a [f32], gate: &'a [f32], y: &'a mut [f32]) {
        let c = gate.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            for i in 0..c {
                y[i] = x[i] * gate[i];
            }
        }
    }
}

kernel! {
    /// Gradients of [`gate`] with respect to `x` and `gate`, from `d`, that with respect to `y`.
    pub fn gate_gradients<'a, S, simd>(
        x: &'a [f32],
        gate: &'a [f32],
        d: &'a [f32],
        of_x: &'a mut [f32],
        of_gate: &'a mut [f32],
    ) {
        let c = gate.len();
        let of_gate = &mut of_gate[..c];
        of_gate.fill(0.0);
        for (at, of_x) in of_x.chunks_exact_mut(c).enumerate() {
            let (x, d) = (&x[at * c..][..c], &d[at * c..][..c]);
            for i in 0..c {
                of_x[i] = d[i] * gate[i];
                of_gate[i] = simd.mul_add(d[i], x[i], of_gate[i]);
            }
        }
    }
}

kernel! {
    /// `y = factor · x`, or added to what is there.
    pub fn scaled<'a, S, simd>(factor: f32, x: &'a [f32], accumulate: bool, y: &'a mut [f32]) {
        if accumulate {
            for (y, x) in y.iter_mut().zip(x) {
                *y = simd.mul_add(factor, *x, *y);
            }
        } else {
            for (y, x) in y.iter_mut().zip(x) {
                *y = factor * x;
            }
        }
    }
}

kernel! {
    /// `y = a · b`, or added to what is there.
    pub fn product<'a, S, simd>(a: &'a [f32], b: &'a [f32], accumulate: bool, y: &'a mut [f32]) {
        let n = y.len();
        let (a, b) = (&a[..n], &b[..n]);
        if accumulate {
            for i in 0..n {
                y[i] = simd.mul_add(a[i], b[i], y[i]);
            }
        } else {
            for i in 0..n {
                y[i] = a[i] * b[i];
            }
        }
    }
}
