//! Integer roundings of `f64`: `core` has none, and a math library would be a dependency.
//!
//! All of them saturate at the limits of `i64` and map NaN to zero.

/// The largest integer that is not above `v`.
pub(super) fn floor(v: f64) -> i64 {
    let truncated = v as i64;
    if truncated as f64 > v {
        truncated.saturating_sub(1)
    } else {
        truncated
    }
}

/// The smallest integer that is not below `v`.
pub(super) fn ceil(v: f64) -> i64 {
    let truncated = v as i64;
    if (truncated as f64) < v {
        truncated.saturating_add(1)
    } else {
        truncated
    }
}

/// The integer nearest to `v`; ties go to the even one.
pub(super) fn round_half_even(v: f64) -> i64 {
    let below = floor(v);
    let rest = v - below as f64;
    if rest > 0.5 || (rest == 0.5 && below & 1 == 1) {
        below.saturating_add(1)
    } else {
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roundings_agree_with_std() {
        let mut values = std::vec![
            0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1e15, -1e15, 0.1, -0.1
        ];
        for i in -4000..4000 {
            let v = f64::from(i) / 8.0;
            values.extend([v, v.next_up(), v.next_down()]);
        }
        for v in values {
            assert_eq!(floor(v), v.floor() as i64, "floor {v}");
            assert_eq!(ceil(v), v.ceil() as i64, "ceil {v}");
            assert_eq!(round_half_even(v), v.round_ties_even() as i64, "round {v}");
        }
    }

    #[test]
    fn extremes_saturate() {
        for round in [floor, ceil, round_half_even] {
            assert_eq!(round(f64::NAN), 0);
            assert_eq!(round(f64::INFINITY), i64::MAX);
            assert_eq!(round(f64::NEG_INFINITY), i64::MIN);
            assert_eq!(round(1e300), i64::MAX);
            assert_eq!(round(-1e300), i64::MIN);
        }
    }
}
