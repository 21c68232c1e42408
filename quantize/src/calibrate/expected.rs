//! What a range costs, for reports.

use super::density::Density;
use super::{Histogram, QParams};

/// Expected squared error per value of clipping and rounding with these parameters.
pub fn expected_mse(histogram: &Histogram, params: &QParams) -> f64 {
    Density::of(histogram).mean_squared_error(params)
}

/// Expected signal-to-quantisation-noise ratio in decibels; infinite without noise.
pub fn expected_sqnr_db(histogram: &Histogram, params: &QParams) -> f64 {
    let density = Density::of(histogram);
    match density.mean_squared_error(params) {
        noise if noise > 0.0 => 10.0 * (density.mean_square() / noise).log10(),
        _ => f64::INFINITY,
    }
}

/// Share of the values outside what the parameters represent.
pub fn clipped_share(histogram: &Histogram, params: &QParams) -> f64 {
    let (lo, hi) = params.extent();
    let half = f64::from(params.scale) / 2.0; // values that round to the last code are not clipped
    Density::of(histogram).share_outside(f64::from(lo) - half, f64::from(hi) + half)
}
