//! Names of the methods, as the command line and reports spell them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::CalibrateError;

/// How the range of an activation is chosen from its histogram.
///
/// ```
/// use ampoule_quantize::calibrate::RangeMethod;
/// assert_eq!("percentile:99.9".parse(), Ok(RangeMethod::Percentile(99.9)));
/// assert_eq!(RangeMethod::Mse.to_string(), "mse");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeMethod {
    /// Everything seen.
    MinMax,
    /// The central percentage of what was seen: `(100 − p)/2` percent are clipped at each end.
    Percentile(f64),
    /// The range with the least expected squared error of clipping and rounding.
    #[default]
    Mse,
    /// The range whose codes keep most of the distribution's information (least Kullback–Leibler
    /// divergence, as TensorRT does it).
    Entropy,
}

/// How the scale of a row of weights is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightMethod {
    /// The largest magnitude gets the largest code.
    MinMax,
    /// The scale with the least squared error, clipping at most 30 % of the range.
    #[default]
    Mse,
}

/// Percentage of [`RangeMethod::Percentile`] when none is given.
const DEFAULT_PERCENTAGE: f64 = 99.99;

impl RangeMethod {
    /// Passes unless the parameter is out of range.
    pub(super) fn check(self) -> Result<(), CalibrateError> {
        match self {
            RangeMethod::Percentile(p) if !(p > 50.0 && p <= 100.0) => {
                Err(CalibrateError::Method {
                    what: "percentage",
                    expected: "a number above 50 and at most 100",
                    got: p.to_string(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for RangeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeMethod::MinMax => f.write_str("min-max"),
            RangeMethod::Percentile(p) => write!(f, "percentile:{p}"),
            RangeMethod::Mse => f.write_str("mse"),
            RangeMethod::Entropy => f.write_str("entropy"),
        }
    }
}

impl FromStr for RangeMethod {
    type Err = CalibrateError;

    fn from_str(text: &str) -> Result<Self, CalibrateError> {
        let unknown = || CalibrateError::Method {
            what: "range method",
            expected: "min-max, percentile[:P], mse or entropy",
            got: text.to_owned(),
        };
        let method = match text.split_once(':') {
            None if text == "min-max" => RangeMethod::MinMax,
            None if text == "percentile" => RangeMethod::Percentile(DEFAULT_PERCENTAGE),
            None if text == "mse" => RangeMethod::Mse,
            None if text == "entropy" => RangeMethod::Entropy,
            Some(("percentile", p)) => RangeMethod::Percentile(p.parse().map_err(|_| unknown())?),
            _ => return Err(unknown()),
        };
        method.check()?;
        Ok(method)
    }
}

impl fmt::Display for WeightMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WeightMethod::MinMax => "min-max",
            WeightMethod::Mse => "mse",
        })
    }
}

impl FromStr for WeightMethod {
    type Err = CalibrateError;

    fn from_str(text: &str) -> Result<Self, CalibrateError> {
        match text {
            "min-max" => Ok(WeightMethod::MinMax),
            "mse" => Ok(WeightMethod::Mse),
            _ => Err(CalibrateError::Method {
                what: "weight method",
                expected: "min-max or mse",
                got: text.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        let all = [
            RangeMethod::MinMax,
            RangeMethod::Percentile(99.5),
            RangeMethod::Mse,
            RangeMethod::Entropy,
        ];
        for method in all {
            assert_eq!(method.to_string().parse(), Ok(method));
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(serde_json::from_str::<RangeMethod>(&json).unwrap(), method);
        }
        for method in [WeightMethod::MinMax, WeightMethod::Mse] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert_eq!("percentile".parse(), Ok(RangeMethod::Percentile(99.99)));
    }

    #[test]
    fn bad_names_say_what_is_accepted() {
        for bad in [
            "",
            "kl",
            "mse:3",
            "percentile:",
            "percentile:x",
            "percentile:50",
            "percentile:101",
            "percentile:nan",
        ] {
            let message = bad.parse::<RangeMethod>().unwrap_err().to_string();
            assert!(message.contains("expected"), "{bad}: {message}");
        }
        assert!(
            "kl".parse::<WeightMethod>()
                .unwrap_err()
                .to_string()
                .contains("min-max or mse")
        );
    }
}
