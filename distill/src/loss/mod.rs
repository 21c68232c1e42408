//! Losses with their gradients, as functions over slices.
//!
//! Each function gives the loss and overwrites the gradient with respect to what the student computes.
//! Sums are taken in `f64`. `tests/fixtures/losses` has them computed by numpy, gradients by finite
//! differences.
//!
//! ```
//! use ampoule_distill::loss::label_cross_entropy;
//! let mut gradient = [0.0; 2];
//! let loss = label_cross_entropy(&[0.0, 0.0], 1, 0.0, &mut gradient)?;
//! assert!((loss - 2f64.ln()).abs() < 1e-9);
//! assert_eq!(gradient, [0.5, -0.5]);
//! # Ok::<(), ampoule_distill::loss::LossError>(())
//! ```

mod classes;
mod maps;
mod pairs;
mod ranking;
#[cfg(test)]
mod tests;
mod vectors;

use thiserror::Error;

pub use classes::{dense_distillation, label_cross_entropy, sparse_cross_entropy};
pub use maps::{View, attention_maps, mimicking};
pub use pairs::{Contrast, TeacherPairs, grouped_info_nce, info_nce, relational};
pub use ranking::{dynamic_contrast, hardest};
pub use vectors::{cosine_distance, mean_squared_error};

/// Slices that do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}: expected {expected}, got {got}")]
pub struct LossError {
    /// Which number.
    pub what: &'static str,
    /// What the other arguments make it.
    pub expected: usize,
    /// What it is.
    pub got: usize,
}

fn check(what: &'static str, expected: usize, got: usize) -> Result<(), LossError> {
    match expected == got {
        true => Ok(()),
        false => Err(LossError {
            what,
            expected,
            got,
        }),
    }
}

fn log_softmax(values: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = values.clone().map(|v| (v - largest).exp()).sum();
    values.map(|v| v - largest - sum.ln()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
