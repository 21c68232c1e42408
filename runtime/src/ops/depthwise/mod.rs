//! Depthwise convolution (one filter per channel), NHWC, fused with requantisation and activation.
//!
//! Contract: `y[p, c] = epilogue(bias[c] + Σ_taps x[p + tap, c] · w[tap, c])`, taps in the order
//! (kernel row, kernel column), weights row-major `[tap][channel]`. Padding reads as the input's
//! zero point, whose contribution is folded into `bias`.

mod float;
pub(crate) mod in_place;
mod kernel;
mod portable;
mod reference;
mod reference_f32;
#[cfg(test)]
mod tests;

pub use float::{DepthwiseF32, depthwise_f32};
pub use in_place::in_place_bytes;
pub use kernel::depthwise_i8;
pub(crate) use kernel::depthwise_i8_for;
#[cfg(arm_dsp)]
pub(crate) use portable::tap;
pub use reference::depthwise_i8 as depthwise_i8_reference;
pub use reference_f32::depthwise_f32 as depthwise_f32_reference;

use super::Window;
use super::conv::EpilogueI8;

/// Everything about an int8 depthwise convolution but the data that changes with each run.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseI8<'a> {
    /// Window geometry.
    pub window: Window,
    /// Input height, width, channels.
    pub input: [usize; 3],
    /// Output height and width; channels are the input's.
    pub output: [usize; 2],
    /// Weights `[tap][channel]`, followed by at least [`super::conv::WEIGHT_SLACK`] readable bytes.
    pub weights: &'a [i8],
    /// As in [`super::conv::ConvI8::bias`], padded to a multiple of 16 channels.
    pub bias: &'a [i32],
    /// `Σ_taps w[tap, c]`, padded like `bias`.
    pub weight_sums: &'a [i32],
    /// Requantisation multiplier per channel, padded like `bias`.
    pub multipliers: &'a [f32],
    /// Code that pads the input.
    pub input_zero: i8,
    /// What happens to the accumulator.
    pub epilogue: EpilogueI8<'a>,
}
