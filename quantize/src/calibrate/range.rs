//! Choosing the range of an activation.

use serde::{Deserialize, Serialize};

use super::density::Density;
use super::entropy::Divergence;
use super::search::search;
use super::{CalibrateError, CodeWidth, Histogram, QParams, RangeMethod};

/// Levels of an int8 code.
const LEVELS: usize = 256;

/// The values that codes have to represent; contains 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Smallest, 0 or less.
    pub lo: f32,
    /// Largest, 0 or more.
    pub hi: f32,
}

impl Range {
    /// The parameters of that width for the range.
    pub fn params(self, width: CodeWidth) -> QParams {
        QParams::of_width(width, self.lo, self.hi)
    }

    fn symmetric(self) -> Range {
        let m = self.hi.max(-self.lo);
        Range { lo: -m, hi: m }
    }
}

/// Chooses the range of `tensor` from what was seen of it.
///
/// Int16 ranges are symmetric, and since 65,535 codes leave no loss worth clipping for,
/// [`RangeMethod::Mse`] and [`RangeMethod::Entropy`] take everything seen there.
///
/// # Errors
///
/// Nothing seen, infinities or NaN among what was seen, or a percentage out of range.
pub fn select(
    tensor: &str,
    histogram: &Histogram,
    method: RangeMethod,
    width: CodeWidth,
) -> Result<Range, CalibrateError> {
    histogram.check(tensor)?;
    method.check()?;
    let seen = Range {
        lo: histogram.min().unwrap_or(0.0).min(0.0),
        hi: histogram.max().unwrap_or(0.0).max(0.0),
    };
    let range = match (method, width) {
        (RangeMethod::Percentile(p), _) => percentile(histogram, seen, p),
        (RangeMethod::MinMax, _) | (_, CodeWidth::I16) => seen,
        (RangeMethod::Mse, CodeWidth::I8) => least_squares(histogram, seen),
        (RangeMethod::Entropy, CodeWidth::I8) => least_divergence(histogram, seen),
    };
    Ok(match width {
        CodeWidth::I8 => range,
        CodeWidth::I16 => range.symmetric(),
    })
}

/// Clips `(100 − p)/2` percent at each end, unless nothing but zeros would be left.
fn percentile(histogram: &Histogram, seen: Range, p: f64) -> Range {
    let outside = histogram.finite() as f64 * (100.0 - p) / 200.0;
    let (down, up) = Density::of(histogram).tails(outside);
    match (down, up) {
        (0.0, 0.0) => seen,
        _ => Range {
            lo: (-down as f32).max(seen.lo),
            hi: (up as f32).min(seen.hi),
        },
    }
}

/// Least expected squared error of the codes the range leads to.
fn least_squares(histogram: &Histogram, seen: Range) -> Range {
    let density = Density::of(histogram);
    narrow(seen, 2, |lo, hi| {
        density.mean_squared_error(&QParams::from_range(lo as f32, hi as f32))
    })
}

/// Least Kullback–Leibler divergence.
fn least_divergence(histogram: &Histogram, seen: Range) -> Range {
    let divergence = Divergence::of(histogram);
    // Jagged, because levels hold whole bins: it takes a finer grid.
    narrow(seen, 4, |lo, hi| divergence.of_range(lo, hi, LEVELS))
}

fn narrow(seen: Range, per_octave: i32, cost: impl Fn(f64, f64) -> f64) -> Range {
    let (lo, hi) = search(f64::from(seen.lo), f64::from(seen.hi), per_octave, cost);
    Range {
        lo: lo as f32,
        hi: hi as f32,
    }
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
