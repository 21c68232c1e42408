//! Scale and zero point.

use std::fmt;

use ampoule_runtime::numerics;
use serde::{Deserialize, Serialize};

/// Width of the codes of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeWidth {
    /// `−128..=127`, asymmetric.
    I8,
    /// `−32767..=32767`, symmetric.
    I16,
}

impl fmt::Display for CodeWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CodeWidth::I8 => "int8",
            CodeWidth::I16 => "int16",
        })
    }
}

/// Scale of a tensor in which nothing but zeros was seen, and of one too faint for [`MIN_SCALE`].
pub(super) const UNIT_SCALE: f32 = 1.0;

/// Smallest scale ever chosen: products of three such scales are still normal numbers, and so is the
/// inverse.
pub(super) const MIN_SCALE: f32 = 1.0 / (1u64 << 40) as f32;

/// Real value of a code: `scale · (code − zero_point)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QParams {
    /// Size of a step; positive, finite and normal.
    pub scale: f32,
    /// Code of 0.
    pub zero_point: i32,
    /// Width of the codes.
    pub width: CodeWidth,
}

impl QParams {
    /// Int8 parameters for values in `lo..=hi`, extended to include 0.
    ///
    /// The zero point is rounded to a code, so one end may be clipped by half a step at most. A range
    /// that is empty, faint or not a number gives scale 1.
    pub fn from_range(lo: f32, hi: f32) -> QParams {
        // `min` and `max` drop NaN; the differences fit in double precision.
        let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
        let scale = sane_scale((hi - lo) / 255.0);
        let zero = (-128.0 - lo / f64::from(scale)).round_ties_even();
        QParams {
            scale,
            zero_point: zero.clamp(-128.0, 127.0) as i32,
            width: CodeWidth::I8,
        }
    }

    /// Int16 parameters for magnitudes up to `max_abs`, zero point 0.
    pub fn symmetric_i16(max_abs: f32) -> QParams {
        let scale = sane_scale(f64::from(max_abs.abs()) / 32767.0);
        QParams {
            scale,
            zero_point: 0,
            width: CodeWidth::I16,
        }
    }

    /// Parameters of that width for values in `lo..=hi`.
    pub fn of_width(width: CodeWidth, lo: f32, hi: f32) -> QParams {
        match width {
            CodeWidth::I8 => QParams::from_range(lo, hi),
            CodeWidth::I16 => QParams::symmetric_i16(lo.abs().max(hi.abs())),
        }
    }

    /// Smallest and largest code.
    pub fn codes(&self) -> (i32, i32) {
        match self.width {
            CodeWidth::I8 => (-128, 127),
            CodeWidth::I16 => (-32767, 32767),
        }
    }

    /// Smallest and largest representable value.
    pub fn extent(&self) -> (f32, f32) {
        let (lo, hi) = self.codes();
        (self.dequantize(lo), self.dequantize(hi))
    }

    /// The code of `value`, exactly as the runtime computes it.
    pub fn quantize(&self, value: f32) -> i32 {
        let (lo, hi) = self.codes();
        numerics::quantize(value, 1.0 / self.scale, self.zero_point, lo, hi)
    }

    /// The value of `code`.
    pub fn dequantize(&self, code: i32) -> f32 {
        self.scale * (code - self.zero_point) as f32
    }

    /// The representable value that stands for `value`.
    pub fn round_trip(&self, value: f32) -> f32 {
        self.dequantize(self.quantize(value))
    }

    /// The int8 codes of `values`.
    pub fn quantize_i8(&self, values: &[f32]) -> Vec<i8> {
        let inverse = 1.0 / self.scale;
        values
            .iter()
            .map(|&v| numerics::quantize(v, inverse, self.zero_point, -128, 127) as i8)
            .collect()
    }

    /// The values of int8 codes.
    pub fn dequantize_i8(&self, codes: &[i8]) -> Vec<f32> {
        codes
            .iter()
            .map(|&c| self.dequantize(i32::from(c)))
            .collect()
    }
}

/// `scale` in single precision, or [`UNIT_SCALE`] where it cannot serve as one.
fn sane_scale(scale: f64) -> f32 {
    let scale = scale as f32;
    if scale >= MIN_SCALE && scale.is_finite() {
        scale
    } else {
        UNIT_SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;

    #[test]
    fn ranges_by_hand() {
        let p = QParams::from_range(0.0, 255.0);
        assert_eq!((p.scale, p.zero_point), (1.0, -128));
        assert_eq!(
            (
                p.quantize(0.0),
                p.quantize(255.0),
                p.quantize(300.0),
                p.quantize(2.5)
            ),
            (-128, 127, 127, -126)
        );
        let p = QParams::from_range(-1.0, 1.5);
        assert_eq!((p.scale, p.zero_point), (2.5 / 255.0, -26)); // 102 steps below zero
        let p = QParams::from_range(-5.0, -1.0); // 0 comes in
        assert_eq!((p.scale, p.zero_point), (5.0 / 255.0, 127));
        let p = QParams::symmetric_i16(32767.0);
        assert_eq!(
            (
                p.scale,
                p.zero_point,
                p.quantize(-40000.0),
                p.quantize(12.0)
            ),
            (1.0, 0, -32767, 12)
        );
    }

    #[test]
    fn degenerate_ranges_give_a_usable_scale() {
        let nothing = [
            (0.0, 0.0),
            (f32::NAN, f32::NAN),
            (-1e-42, 1e-42),
            (f32::NEG_INFINITY, f32::INFINITY),
        ];
        for (lo, hi) in nothing {
            let p = QParams::from_range(lo, hi);
            assert_eq!(p.scale, 1.0, "{lo} {hi}");
            assert_eq!(p.round_trip(0.0), 0.0);
        }
        let wide = QParams::from_range(f32::MIN, f32::MAX);
        assert!(wide.scale.is_finite() && wide.scale > 1e36);
        assert_eq!(QParams::symmetric_i16(0.0).scale, 1.0);
        assert_eq!(QParams::from_range(3.0, 3.0).round_trip(3.0), 3.0); // a constant is exact
    }

    #[test]
    fn zero_is_exact_and_errors_stay_below_a_step() {
        let mut rng = Lcg(3);
        for _ in 0..2000 {
            let magnitude = 2f32.powi((rng.next() % 50) as i32 - 25);
            let (a, b) = (rng.gaussian() * magnitude, rng.gaussian() * magnitude);
            let (lo, hi) = (a.min(b), a.max(b));
            for p in [
                QParams::from_range(lo, hi),
                QParams::of_width(CodeWidth::I16, lo, hi),
            ] {
                assert_eq!(p.round_trip(0.0), 0.0, "{lo} {hi}");
                let (min, max) = p.codes();
                assert!((min..=max).contains(&p.zero_point));
                for _ in 0..10 {
                    let v = lo + (hi - lo) * rng.uniform();
                    assert!(
                        (p.round_trip(v) - v).abs() <= p.scale * 1.001,
                        "{v} in {lo} {hi}: {p:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn slices_agree_with_single_values() {
        let p = QParams::from_range(-1.5, 2.5);
        let values: Vec<f32> = (-40..60).map(|i| i as f32 * 0.05).collect();
        let codes = p.quantize_i8(&values);
        assert!(
            values
                .iter()
                .zip(&codes)
                .all(|(&v, &c)| p.quantize(v) == i32::from(c))
        );
        assert!(
            values
                .iter()
                .zip(p.dequantize_i8(&codes))
                .all(|(&v, d)| p.round_trip(v) == d)
        );
    }
}
