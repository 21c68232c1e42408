//! Convolution, NHWC × packed weights, fused with requantisation, activation and residual.
//!
//! Contract: `y[p, n] = epilogue(bias[n] + Σₖ patch(x, p)[k] · w[n, k])` for output pixel `p` and
//! output channel `n`, where `patch` lists the input values under the window in the order
//! (kernel row, kernel column, channel) and pixels outside the map read as the input's zero point.
//! The term `−zero_point · Σₖ w[n, k]` is part of `bias`, so the sum runs over raw codes.
//!
//! A linear layer is a 1×1 convolution over `rows` pixels.

pub(crate) mod kernel;
mod packing;
mod patch;
pub(crate) mod portable;
mod reference;
mod reference_f32;
#[cfg(test)]
mod tests;

pub(crate) use kernel::conv_i8_for;
pub use kernel::{conv_f32, conv_i8, scratch_bytes};
pub use packing::{PackedShape, QUAD, WEIGHT_SLACK, WIDTH, pack_i8};
pub use reference::conv_i8 as conv_i8_reference;
pub use reference_f32::conv_f32 as conv_f32_reference;

use super::Window;

/// Everything about an int8 convolution but the data that changes with each run.
#[derive(Debug, Clone, Copy)]
pub struct ConvI8<'a> {
    /// Window geometry.
    pub window: Window,
    /// Input height, width, channels.
    pub input: [usize; 3],
    /// Output height, width, channels.
    pub output: [usize; 3],
    /// Weights packed as [`PackedShape`] says, followed by at least [`WEIGHT_SLACK`] readable bytes.
    pub weights: &'a [i8],
    /// i32 bias per output channel with the input zero point folded in; padded with zeros to a
    /// multiple of [`WIDTH`].
    pub bias: &'a [i32],
    /// `Σₖ w[n, k]`, padded like `bias`. Kernels that shift activations to unsigned need it:
    /// `Σ (x + 128) · w = Σ x · w + 128 · Σ w`.
    pub weight_sums: &'a [i32],
    /// Requantisation multiplier per output channel, padded like `bias`.
    pub multipliers: &'a [f32],
    /// Code that pads the input.
    pub input_zero: i8,
    /// What happens to the accumulator.
    pub epilogue: EpilogueI8<'a>,
}

/// From accumulator to output code.
#[derive(Debug, Clone, Copy)]
pub struct EpilogueI8<'a> {
    /// Zero point of the requantised value.
    pub zero: i32,
    /// Smallest code of the requantised value (fused ReLU and the like).
    pub lo: i8,
    /// Largest code of the requantised value.
    pub hi: i8,
    /// Code-to-code table applied last, indexed by `code as u8` (two's complement bits).
    pub table: Option<&'a [i8; 256]>,
    /// Residual addend.
    pub residual: Option<Residual<'a>>,
}

/// A tensor of the output's shape that is added before rounding:
/// see [`crate::numerics::requantize_add`].
#[derive(Debug, Clone, Copy)]
pub struct Residual<'a> {
    /// Codes, same layout as the whole output.
    pub data: &'a [i8],
    /// Zero point of the codes.
    pub zero: i32,
    /// Scale of the residual over the scale of the output.
    pub multiplier: f32,
}

impl ConvI8<'_> {
    /// Length of a patch: kernel height × kernel width × input channels.
    pub fn depth(&self) -> usize {
        self.window.taps() * self.input[2]
    }

    /// Output pixels of the whole map.
    pub fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }
}

/// Weights of a float convolution, packed `[block of 16 channels][patch position][channel in
/// block]`; the last block is as wide as [`PackedShape::block_width`] says. [`WEIGHT_SLACK`]
/// readable bytes follow.
#[derive(Debug, Clone, Copy)]
pub enum WeightsF32<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision bits; widened when used.
    F16(&'a [u16]),
}

/// Everything about a float convolution but the data that changes with each run:
/// `y = clamp(bias[n] + Σₖ patch · w + residual, lo, hi)`. Padding reads as 0.
#[derive(Debug, Clone, Copy)]
pub struct ConvF32<'a> {
    /// Window geometry.
    pub window: Window,
    /// Input height, width, channels.
    pub input: [usize; 3],
    /// Output height, width, channels.
    pub output: [usize; 3],
    /// Packed weights.
    pub weights: WeightsF32<'a>,
    /// Bias per output channel, padded with zeros to a multiple of [`WIDTH`].
    pub bias: &'a [f32],
    /// Lower clamp; `-inf` for none.
    pub lo: f32,
    /// Upper clamp; `+inf` for none.
    pub hi: f32,
    /// Addend of the output's shape and layout.
    pub residual: Option<&'a [f32]>,
}
