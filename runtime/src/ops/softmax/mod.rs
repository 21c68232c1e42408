//! Softmax over the last axis.
//!
//! The int8 contract, for a row with the largest code `m`: `e[i] = table[m − x[i]]`, where
//! [`softmax_table`] holds `rne(exp(−scale · d) · 2¹⁶)`; `r = 256 / f32(Σ e)`; the code is
//! `round_to_code(f32(e[i]) · r, −128, −128, 127)`, which stands for steps of 1/256.

mod float;
mod kernel;
mod reference;
#[cfg(test)]
mod tests;

pub use float::{log_softmax_f32, softmax_f32};
pub use kernel::{softmax_i8, softmax_i8_in_place};
pub use reference::{
    log_softmax_f32 as log_softmax_f32_reference, softmax_f32 as softmax_f32_reference,
    softmax_i8 as softmax_i8_reference,
};

use crate::error::Error;
use crate::ops::length::expect;

/// `rne(exp(−scale · d) · 2¹⁶)` for the differences 0..=255 of two input codes.
///
/// ```
/// let table = ampoule_runtime::ops::softmax::softmax_table(0.1);
/// assert_eq!((table[0], table[10]), (65536, 24109));
/// ```
pub fn softmax_table(scale: f32) -> [u32; 256] {
    core::array::from_fn(|d| libm::rint(libm::exp(-f64::from(scale) * d as f64) * 65536.0) as u32)
}

/// Checks that `len` elements are whole rows.
fn check_rows(len: usize, row: usize) -> Result<(), Error> {
    expect(len.checked_div(row).unwrap_or(0) * row, len)
}
