//! The scalar truth.

use crate::numerics::round_to_code;

/// Softmax of each row of `row` codes.
pub fn softmax_i8(table: &[u32; 256], row: usize, x: &[i8], y: &mut [i8]) {
    for (x, y) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)) {
        let max = x.iter().copied().max().unwrap_or(0);
        let e = |code: i8| table[(i32::from(max) - i32::from(code)) as usize];
        let sum: u64 = x.iter().map(|&code| u64::from(e(code))).sum();
        let r = 256.0 / sum as f32;
        for (&code, y) in x.iter().zip(y) {
            *y = round_to_code(e(code) as f32 * r, -128, -128, 127) as i8;
        }
    }
}

/// Softmax of each row of `row` values, in double precision.
pub fn softmax_f32(row: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)) {
        let (max, sum) = max_and_sum(x);
        for (&v, y) in x.iter().zip(y) {
            *y = (libm::exp(f64::from(v) - max) / sum) as f32;
        }
    }
}

/// Logarithm of the softmax of each row of `row` values, in double precision.
pub fn log_softmax_f32(row: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)) {
        let (max, sum) = max_and_sum(x);
        for (&v, y) in x.iter().zip(y) {
            *y = (f64::from(v) - max - libm::log(sum)) as f32;
        }
    }
}

/// The largest value, and the sum of the exponentials of the differences from it.
fn max_and_sum(x: &[f32]) -> (f64, f64) {
    let max = x
        .iter()
        .fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
    (max, x.iter().map(|&v| libm::exp(f64::from(v) - max)).sum())
}
