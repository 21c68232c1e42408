//! Maximum and average over a sliding window, NHWC.
//!
//! Contract: the window is clipped to the map. A maximum is one of the input's codes, so input and
//! output share scale and zero point. An average over `n` positions is
//! `round_to_code(f32(Σ (x − x_zero)) · (multiplier / f32(n)), zero, lo, hi)`, where the sum runs over
//! positions inside the map and `n` counts those, or the whole kernel area when padding counts.
//! A window that lies outside the map altogether gives the smallest code (maximum) or zero (average).

mod geometry;
mod kernel;
mod portable;
mod reference;
#[cfg(test)]
mod tests;

pub use kernel::{average_pool_f32, average_pool_i8, max_pool_f32, max_pool_i8};
pub use reference::{
    average_pool_f32 as average_pool_f32_reference, average_pool_i8 as average_pool_i8_reference,
    max_pool_f32 as max_pool_f32_reference, max_pool_i8 as max_pool_i8_reference,
};

use serde::{Deserialize, Serialize};

use super::Window;

/// Which value of a window is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolKind {
    /// The maximum.
    Max,
    /// The average.
    Average,
}

impl PoolKind {
    /// Name for tables and messages.
    pub const fn name(self) -> &'static str {
        match self {
            PoolKind::Max => "MaxPool",
            PoolKind::Average => "AveragePool",
        }
    }
}

/// Geometry of a pooling operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Window geometry.
    pub window: Window,
    /// Input height, width, channels.
    pub input: [usize; 3],
    /// Output height and width; channels are the input's.
    pub output: [usize; 2],
    /// Whether padding counts as positions of value 0 in an average.
    pub include_pad: bool,
}

/// An int8 average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AveragePoolI8 {
    /// Geometry.
    pub pool: Pool,
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
