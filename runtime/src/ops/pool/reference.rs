//! The scalar truth.

use super::{AveragePoolI8, Pool};
use crate::numerics::round_to_code;

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn max_pool_i8(pool: &Pool, x: &[i8], first_row: usize, y: &mut [i8]) {
    for_each_output(pool, first_row, y, |ch, visit| {
        let mut best = i8::MIN;
        visit(&mut |at| best = best.max(x[at + ch]));
        best
    });
}

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn max_pool_f32(pool: &Pool, x: &[f32], first_row: usize, y: &mut [f32]) {
    for_each_output(pool, first_row, y, |ch, visit| {
        let mut best = f32::NEG_INFINITY;
        visit(&mut |at| best = if x[at + ch] > best { x[at + ch] } else { best });
        best
    });
}

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn average_pool_i8(op: &AveragePoolI8, x: &[i8], first_row: usize, y: &mut [i8]) {
    for_each_output(&op.pool, first_row, y, |ch, visit| {
        let (mut sum, mut inside) = (0i32, 0usize);
        visit(&mut |at| {
            sum += i32::from(x[at + ch]) - op.x_zero;
            inside += 1;
        });
        let n = if op.pool.include_pad {
            op.pool.window.taps()
        } else {
            inside.max(1)
        };
        let t = sum as f32 * (op.multiplier / n as f32);
        round_to_code(t, op.zero, i32::from(op.lo), i32::from(op.hi)) as i8
    });
}

/// Computes output rows `first_row..` (as many as `y` holds) into `y`.
pub fn average_pool_f32(pool: &Pool, x: &[f32], first_row: usize, y: &mut [f32]) {
    for_each_output(pool, first_row, y, |ch, visit| {
        let (mut sum, mut inside) = (0f64, 0usize);
        visit(&mut |at| {
            sum += f64::from(x[at + ch]);
            inside += 1;
        });
        let n = if pool.include_pad {
            pool.window.taps()
        } else {
            inside.max(1)
        };
        (sum / n as f64) as f32
    });
}

/// Sets each output from its channel and a function that visits the offsets of the pixels inside
/// the map under the window.
fn for_each_output<T>(
    pool: &Pool,
    first_row: usize,
    y: &mut [T],
    f: impl Fn(usize, &dyn Fn(&mut dyn FnMut(usize))) -> T,
) {
    let [in_h, in_w, c] = pool.input;
    let [_, out_w] = pool.output;
    let w = &pool.window;
    for (i, pixel) in y.chunks_exact_mut(c).enumerate() {
        let (oy, ox) = (first_row + i / out_w, i % out_w);
        let visit = |each: &mut dyn FnMut(usize)| {
            for ky in 0..usize::from(w.kernel[0]) {
                for kx in 0..usize::from(w.kernel[1]) {
                    let iy = (oy * usize::from(w.stride[0]) + ky * usize::from(w.dilation[0]))
                        .wrapping_sub(usize::from(w.pad[0]));
                    let ix = (ox * usize::from(w.stride[1]) + kx * usize::from(w.dilation[1]))
                        .wrapping_sub(usize::from(w.pad[1]));
                    if iy < in_h && ix < in_w {
                        each((iy * in_w + ix) * c);
                    }
                }
            }
        };
        for (ch, out) in pixel.iter_mut().enumerate() {
            *out = f(ch, &visit);
        }
    }
}
