//! Weights to int8, a symmetric scale per output channel.

use ampoule_runtime::numerics;
use rayon::prelude::*;

use super::qparams::{MIN_SCALE, UNIT_SCALE};
use super::{CalibrateError, WeightMethod};

/// Largest code; −128 is not used, so that products of pairs fit 16 bits.
const LARGEST_CODE: i32 = 127;

/// [`WeightMethod::Mse`] tries scales from 1 down to this share of the min-max scale.
const SMALLEST_SHARE: f32 = 0.7;
/// Number of scales tried.
const SHARES: usize = 31;

/// A channel is never scaled more than this below the tensor's largest: codes of a dead channel would
/// only waste the range of its bias.
const FAINTEST: f32 = 1.0 / 65_536.0;

/// Int8 weights of `[rows, ..]` and the scale of every row: `w ≈ scale[row] · code`.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedWeights {
    /// Codes in `−127..=127`, laid out like the weights.
    pub codes: Vec<i8>,
    /// Scale per row; positive, finite and normal.
    pub scales: Vec<f32>,
}

impl QuantizedWeights {
    /// The weights the codes stand for.
    pub fn dequantize(&self) -> Vec<f32> {
        let row_len = (self.codes.len() / self.scales.len().max(1)).max(1);
        let rows = self.codes.chunks_exact(row_len).zip(&self.scales);
        rows.flat_map(|(row, scale)| row.iter().map(move |&c| f32::from(c) * scale))
            .collect()
    }
}

/// The smallest weight scale with which the int32 bias of a channel stays below half its range.
pub fn scale_floor_for_bias(bias: f32, input_scale: f32) -> f32 {
    const HALF_RANGE: f32 = (1u32 << 30) as f32;
    let floor = bias.abs() / (input_scale * HALF_RANGE);
    if floor.is_finite() { floor } else { 0.0 }
}

/// Quantises weights of shape `[rows, ..]`, a scale per row. A row of zeros gets the smallest scale
/// allowed beside the other rows.
///
/// # Errors
///
/// [`CalibrateError::Length`] when `weights` is not made of `rows` equal rows;
/// [`CalibrateError::Weight`] for an infinite or NaN weight.
///
/// ```
/// use ampoule_quantize::calibrate::{WeightMethod, quantize_weights};
/// let q = quantize_weights(&[0.5, -1.27, 254.0, 2.0], 2, WeightMethod::MinMax)?;
/// assert_eq!(q.codes, [50, -127, 127, 1]);
/// # Ok::<(), ampoule_quantize::calibrate::CalibrateError>(())
/// ```
pub fn quantize_weights(
    weights: &[f32],
    rows: usize,
    method: WeightMethod,
) -> Result<QuantizedWeights, CalibrateError> {
    quantize_weights_above(weights, rows, method, &vec![0.0; rows])
}

/// [`quantize_weights`] with a lower bound for the scale of every row, for example of
/// [`scale_floor_for_bias`].
///
/// # Errors
///
/// Those of [`quantize_weights`], and [`CalibrateError::Length`] unless there are `rows` floors.
pub fn quantize_weights_above(
    weights: &[f32],
    rows: usize,
    method: WeightMethod,
    floors: &[f32],
) -> Result<QuantizedWeights, CalibrateError> {
    if floors.len() != rows {
        return Err(length("scale floors", rows.to_string(), floors.len()));
    }
    if rows == 0 || weights.is_empty() || !weights.len().is_multiple_of(rows) {
        return Err(length(
            "weights",
            format!("a positive multiple of {rows} output channels"),
            weights.len(),
        ));
    }
    let row_len = weights.len() / rows;
    let largest: Vec<f32> = weights
        .par_chunks_exact(row_len)
        .map(largest_magnitude)
        .collect();
    if let Some(row) = largest.iter().position(|m| !m.is_finite()) {
        return Err(not_finite(row, &weights[row * row_len..][..row_len]));
    }
    let of_tensor = largest.iter().fold(0.0f32, |a, &b| a.max(b)) / LARGEST_CODE as f32;
    let least = if of_tensor < MIN_SCALE {
        UNIT_SCALE
    } else {
        (of_tensor * FAINTEST).max(MIN_SCALE)
    };
    let mut codes = vec![0; weights.len()];
    let row_parts = codes
        .par_chunks_exact_mut(row_len)
        .zip(weights.par_chunks_exact(row_len))
        .enumerate();
    let scales = row_parts
        .map(|(row, (codes, weights))| {
            let floor = least.max(floors[row]);
            let scale = row_scale(weights, largest[row], floor, method);
            let inverse = 1.0 / scale;
            for (code, &w) in codes.iter_mut().zip(weights) {
                *code = numerics::quantize(w, inverse, 0, -LARGEST_CODE, LARGEST_CODE) as i8;
            }
            scale
        })
        .collect();
    Ok(QuantizedWeights { codes, scales })
}

fn row_scale(row: &[f32], largest: f32, floor: f32, method: WeightMethod) -> f32 {
    let full = (largest / LARGEST_CODE as f32).max(floor);
    match method {
        WeightMethod::MinMax => full,
        WeightMethod::Mse => {
            let share = |i: usize| 1.0 - (1.0 - SMALLEST_SHARE) * i as f32 / (SHARES - 1) as f32;
            let mut best = (full, squared_error(row, full));
            for i in 1..SHARES {
                let scale = (full * share(i)).max(floor);
                let error = squared_error(row, scale);
                if error < best.1 {
                    best = (scale, error);
                }
            }
            best.0
        }
    }
}

/// `Σ (w − ŵ)²` in a fixed order.
fn squared_error(row: &[f32], scale: f32) -> f64 {
    const LANES: usize = 16;
    let inverse = 1.0 / scale;
    let square = |w: f32| {
        let code = numerics::quantize(w, inverse, 0, -LARGEST_CODE, LARGEST_CODE);
        let error = w - code as f32 * scale;
        error * error
    };
    let mut total = 0.0;
    for part in row.chunks(64 * LANES) {
        let mut sums = [0.0f32; LANES];
        let chunks = part.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().map(|&w| square(w)).sum();
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += square(chunk[lane]);
            }
        }
        total += sums.iter().map(|&s| f64::from(s)).sum::<f64>() + f64::from(rest);
    }
    total
}

/// Largest magnitude; infinite when a weight is infinite or NaN.
fn largest_magnitude(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |largest: f32, w| {
        if w.is_finite() {
            largest.max(w.abs())
        } else {
            f32::INFINITY
        }
    })
}

fn not_finite(row: usize, weights: &[f32]) -> CalibrateError {
    let index = weights.iter().position(|w| !w.is_finite()).unwrap_or(0);
    CalibrateError::Weight {
        row,
        index,
        value: weights[index],
    }
}

fn length(what: &str, expected: String, got: usize) -> CalibrateError {
    CalibrateError::Length {
        tensor: what.to_owned(),
        expected,
        got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;

    fn error(weights: &[f32], q: &QuantizedWeights) -> f64 {
        weights
            .iter()
            .zip(q.dequantize())
            .map(|(w, d)| f64::from(w - d).powi(2))
            .sum()
    }

    #[test]
    fn codes_by_hand() {
        let q = quantize_weights(
            &[1.0, -2.0, 0.0, 127.0, 63.5, -64.5],
            2,
            WeightMethod::MinMax,
        )
        .unwrap();
        assert_eq!(q.codes, [64, -127, 0, 127, 64, -64]); // 63.5 and −64.5 tie to even
        assert_eq!(q.scales, [2.0 / 127.0, 1.0]);
        assert_eq!(q.dequantize()[3], 127.0);
    }

    #[test]
    fn least_squares_is_never_worse() {
        let weights = Lcg(4).gaussians(64 * 300);
        let q = |m| quantize_weights(&weights, 64, m).unwrap();
        let (all, least) = (q(WeightMethod::MinMax), q(WeightMethod::Mse));
        assert!(error(&weights, &least) < error(&weights, &all));
        for row in 0..64 {
            let part = &weights[row * 300..][..300];
            assert!(squared_error(part, least.scales[row]) <= squared_error(part, all.scales[row]));
            assert!(
                least.scales[row] <= all.scales[row]
                    && least.scales[row] >= all.scales[row] * 0.699
            );
        }
    }

    #[test]
    fn dead_rows_are_guarded() {
        let zeros = quantize_weights(&[0.0; 6], 2, WeightMethod::Mse).unwrap();
        assert_eq!((zeros.codes, zeros.scales), (vec![0; 6], vec![1.0; 2]));
        let mixed =
            quantize_weights(&[127.0, 1.0, 0.0, 0.0, 1e-30, 0.0], 3, WeightMethod::Mse).unwrap();
        assert_eq!(mixed.codes[2..], [0; 4]);
        assert_eq!(mixed.scales[1..], [1.0 / 65536.0; 2]);
        let denormal = quantize_weights(&[1e-40, 0.0], 1, WeightMethod::Mse).unwrap();
        assert_eq!((denormal.codes, denormal.scales), (vec![0, 0], vec![1.0]));
    }

    #[test]
    fn floors_hold() {
        let q = quantize_weights_above(&[1.27, 1.27], 2, WeightMethod::Mse, &[0.0, 0.1]).unwrap();
        assert_eq!((q.scales[1], q.codes[1]), (0.1, 13));
        let floor = scale_floor_for_bias(-8.0, 0.01);
        assert!((8.0 / (0.01 * floor) - 2f32.powi(30)).abs() < 1000.0);
        assert_eq!(scale_floor_for_bias(0.0, 0.1), 0.0);
    }

    #[test]
    fn bad_weights_are_named() {
        let refuse = |w: &[f32], rows| {
            quantize_weights(w, rows, WeightMethod::Mse)
                .unwrap_err()
                .to_string()
        };
        assert!(refuse(&[1.0, 2.0, 3.0, f32::NAN], 2).contains("channel 1: weight 1 is NaN"));
        assert!(refuse(&[1.0; 5], 2).contains("multiple of 2"));
        assert!(refuse(&[], 2).contains("got 0") && refuse(&[1.0], 0).contains("got 1"));
        assert!(quantize_weights_above(&[1.0; 4], 2, WeightMethod::Mse, &[0.0]).is_err());
    }

    #[test]
    #[ignore = "measures; run with --release -- --ignored --nocapture"]
    fn speed() {
        let weights = Lcg(1).gaussians(1024 * 4096);
        for method in [WeightMethod::MinMax, WeightMethod::Mse] {
            let start = std::time::Instant::now();
            let q = quantize_weights(&weights, 1024, method).unwrap();
            let rate = weights.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
            println!("{method}: {rate:.0} M weights/s ({})", q.scales[0]);
        }
    }
}
