//! The values of constants that arithmetic relies on.

use super::Bound;
use super::lookup::is_multiplier;
use crate::operators::{Kind, Operators};
use crate::ops::attention::{Bias, Geometry};
use crate::ops::conv::{PackedShape, QUAD};
use crate::tensor::DType;

/// Largest integer bias.
const MAX_BIAS: i32 = 1 << 30;

impl Bound<'_> {
    /// Checks the values of constants that arithmetic relies on: nothing overflows an i32, no
    /// multiplier is infinite, weight sums are true, weights past the patch are 0, blocks are in their places.
    pub fn check_constants<O: Operators>(&self) -> Option<()> {
        match self {
            Bound::ConvI8 { conv, .. } if O::SET.has(Kind::Conv, DType::I8) => {
                let (channels, depth) = (conv.output[2], conv.depth());
                let packed = PackedShape::new(channels, depth);
                let weight = |n, k| i32::from(conv.weights[packed.index(n, k)]);
                let sums = (0..channels)
                    .all(|n| (0..depth).map(|k| weight(n, k)).sum::<i32>() == conv.weight_sums[n]);
                // Kernels that shift codes to unsigned multiply these by 128.
                let padding = (0..channels)
                    .all(|n| (depth..packed.quads() * QUAD).all(|k| weight(n, k) == 0));
                (sums && padding && requantisation_is_sound(conv.bias, conv.multipliers))
                    .then_some(())
            }
            Bound::DepthwiseI8 { op, .. } if O::SET.has(Kind::Depthwise, DType::I8) => {
                let c = op.input[2];
                let taps = op.window.taps();
                let sums = (0..c).all(|ch| {
                    (0..taps)
                        .map(|t| i32::from(op.weights[t * c + ch]))
                        .sum::<i32>()
                        == op.weight_sums[ch]
                });
                (sums && requantisation_is_sound(op.bias, op.multipliers)).then_some(())
            }
            Bound::Sparse { op, .. } if O::SET.has(Kind::Sparse, DType::I8) => {
                let (conv, channels) = (&op.conv, op.conv.output[2]);
                let sum = |n| -> i32 {
                    let weights = op.blocks.of(n).1.as_flattened();
                    weights.iter().map(|&w| i32::from(w)).sum()
                };
                (op.blocks.are_sound(channels, conv.depth())
                    && (0..channels).all(|n| sum(n) == conv.weight_sums[n])
                    && requantisation_is_sound(conv.bias, conv.multipliers))
                .then_some(())
            }
            Bound::ConvI16 { conv, .. } if O::SET.has(Kind::Conv, DType::I16) => {
                requantisation_is_sound(conv.bias, conv.multipliers).then_some(())
            }
            Bound::LayerNorm { op, .. } if O::SET.any(Kind::LayerNorm) => {
                let finite = |v: &[f32]| v.iter().all(|v| v.is_finite());
                (finite(op.gain) && finite(op.offset)).then_some(())
            }
            Bound::AttentionI8(op) if O::SET.any(Kind::Attention) => {
                bias_is_sound(op.bias, &op.geometry)
            }
            Bound::AttentionF32 { geometry, bias, .. } if O::SET.any(Kind::Attention) => {
                bias_is_sound(*bias, geometry)
            }
            _ => Some(()),
        }
    }
}

fn bias_is_sound(bias: Option<Bias<'_>>, geometry: &Geometry) -> Option<()> {
    bias.is_none_or(|b| b.is_sound(geometry)).then_some(())
}

fn requantisation_is_sound(bias: &[i32], multipliers: &[f32]) -> bool {
    bias.iter().all(|b| (-MAX_BIAS..=MAX_BIAS).contains(b))
        && multipliers.iter().all(|&m| is_multiplier(m))
}
