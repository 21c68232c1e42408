//! Layer normalisation over the last axis, f32.
//!
//! Contract: `y = (x − mean) / sqrt(var + ε) · gain + offset`, biased variance, sums in f64.

use crate::error::Error;

/// Normalises each run of `gain.len()` values of `y` in place.
pub fn layer_norm_in_place(
    y: &mut [f32],
    gain: &[f32],
    offset: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    let c = gain.len();
    if c == 0 || offset.len() != c || y.len() % c != 0 {
        return Err(Error::Length {
            expected: c,
            got: y.len(),
        });
    }
    for row in y.chunks_exact_mut(c) {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / c as f64;
        let variance = row
            .iter()
            .map(|&v| (f64::from(v) - mean) * (f64::from(v) - mean))
            .sum::<f64>()
            / c as f64;
        let inverse = 1.0 / libm::sqrt(variance + f64::from(epsilon));
        for ((v, &g), &o) in row.iter_mut().zip(gain).zip(offset) {
            *v = ((f64::from(*v) - mean) * inverse) as f32 * g + o;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        let mut y = [1.0, 3.0];
        layer_norm_in_place(&mut y, &[2.0, 2.0], &[1.0, 0.0], 0.0).unwrap();
        assert_eq!(y, [-1.0, 2.0]);
    }
}
