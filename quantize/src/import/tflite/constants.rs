//! Data of constant tensors.

use half::f16;
use tract_tflite::tflite::TensorType;

use super::file::Tensor;
use crate::import::symmetric;

impl Tensor<'_> {
    /// Real values of a constant; `None` where it has no data or a type that holds none.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let data = self.data?;
        Some(match self.kind {
            TensorType::FLOAT32 => data
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            TensorType::FLOAT16 => {
                let halves = data.as_chunks().0.iter();
                halves.map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            TensorType::INT8 | TensorType::UINT8 => {
                let steps = self.steps.as_ref()?;
                let inner: usize = self.shape[(steps.axis + 1).min(self.shape.len())..]
                    .iter()
                    .product();
                let n = steps.scales.len();
                let real = |(i, code): (usize, i32)| {
                    let at = i / inner.max(1) % n;
                    steps.scales[at] * (code - steps.zeros[at]) as f32
                };
                self.codes()?.into_iter().enumerate().map(real).collect()
            }
            TensorType::INT32 | TensorType::INT64 => {
                self.integers()?.iter().map(|&v| v as f32).collect()
            }
            _ => return None,
        })
    }

    /// Codes of a constant of 8-bit codes, as the file has them.
    pub fn codes(&self) -> Option<Vec<i32>> {
        let data = self.data?;
        match self.kind {
            TensorType::INT8 => Some(data.iter().map(|&b| i32::from(b as i8)).collect()),
            TensorType::UINT8 => Some(data.iter().map(|&b| i32::from(b)).collect()),
            _ => None,
        }
    }

    /// Values of a constant of integers.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let data = self.data?;
        match self.kind {
            TensorType::INT32 => {
                let words = data.as_chunks().0.iter();
                Some(words.map(|b| i64::from(i32::from_le_bytes(*b))).collect())
            }
            TensorType::INT64 => Some(
                data.as_chunks()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b))
                    .collect(),
            ),
            _ => None,
        }
    }
}

/// Weights that kernels can use: symmetric codes, one step for each output channel.
pub(super) struct Weights {
    /// Real values, `[output channel][..]`.
    pub values: Vec<f32>,
    /// Steps per output channel.
    pub steps: Vec<f32>,
    /// Output channels whose codes do not fit in ±127 around their zero point and got a wider step.
    pub widened: usize,
}

/// Real weights and their steps, from rows of `row` codes for each output channel: `at` is the place in the
/// file of an element of a row.
pub(super) fn weights(
    tensor: &Tensor<'_>,
    channels: usize,
    row: usize,
    at: impl Fn(usize, usize) -> usize,
) -> Option<Weights> {
    let (codes, steps) = (tensor.codes()?, tensor.steps.as_ref()?);
    let mut found = Weights {
        values: Vec::with_capacity(codes.len()),
        steps: Vec::with_capacity(channels),
        widened: 0,
    };
    for n in 0..channels {
        let of = if steps.scales.len() == 1 { 0 } else { n };
        let (scale, zero) = (*steps.scales.get(of)?, *steps.zeros.get(of)?);
        let mut centred = Vec::with_capacity(row);
        for i in 0..row {
            centred.push(codes.get(at(n, i))? - zero);
        }
        let largest = centred.iter().map(|c| c.abs()).max().unwrap_or(0);
        let step = symmetric::step(scale, largest);
        found.widened += usize::from(step != scale);
        let reals = centred.iter().map(|&c| symmetric::real(c, scale, step));
        found.values.extend(reals);
        found.steps.push(step);
    }
    Some(found)
}
