//! Mean, sum, maximum and minimum over a set of axes.
//!
//! The output lists the kept axes in order; whether the reduced ones stay as size 1 changes nothing
//! in memory. Float sums accumulate in double precision, in an order that depends on the shape
//! alone. The int8 mean over `n` values is
//! `round_to_code(f32(Σ (x − x_zero)) · (multiplier / f32(n)), zero, lo, hi)`.

mod kernel;
mod layout;
mod portable;
mod reference;
#[cfg(test)]
mod tests;

pub use kernel::{mean_i8, reduce_f32};
pub use reference::{mean_i8 as mean_i8_reference, reduce_f32 as reduce_f32_reference};

use crate::tensor::Shape;
use serde::{Deserialize, Serialize};

/// What many values become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReduceKind {
    /// Arithmetic mean.
    Mean,
    /// Sum.
    Sum,
    /// Largest value; NaN is skipped.
    Max,
    /// Smallest value; NaN is skipped.
    Min,
}

impl ReduceKind {
    /// Name for tables and messages.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceKind::Mean => "ReduceMean",
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Max => "ReduceMax",
            ReduceKind::Min => "ReduceMin",
        }
    }
}

/// Which axes of which shape are reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduce {
    /// Shape of the input.
    pub shape: Shape,
    /// Bit `i` is set when axis `i` is reduced.
    pub axes: u8,
}

impl Reduce {
    /// Whether axis `i` is reduced.
    pub fn is_reduced(&self, i: usize) -> bool {
        i < self.shape.rank() && self.axes >> i & 1 == 1
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        let kept = (0..self.shape.rank()).filter(|&i| !self.is_reduced(i));
        kept.map(|i| self.shape.dim(i)).product()
    }

    /// Values that become one.
    pub fn count(&self) -> usize {
        let reduced = (0..self.shape.rank()).filter(|&i| self.is_reduced(i));
        reduced.map(|i| self.shape.dim(i)).product()
    }
}

/// An int8 mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanI8 {
    /// Input shape and axes.
    pub reduce: Reduce,
    /// Zero point of the input.
    pub x_zero: i32,
    /// Scale of the input over the scale of the output.
    pub multiplier: f32,
    /// Zero point of the output.
    pub zero: i32,
    /// Smallest code.
    pub lo: i8,
    /// Largest code.
    pub hi: i8,
}
