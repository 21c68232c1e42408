//! Shares of right answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MetricError;
use super::error::same_length;

/// Hits among trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rate {
    /// Trials that succeeded.
    pub hits: u64,
    /// All trials.
    pub total: u64,
}

impl Rate {
    /// Counts one trial.
    pub fn add(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.total += 1;
    }

    /// Adds the trials of `other`.
    pub fn merge(&mut self, other: Rate) {
        self.hits += other.hits;
        self.total += other.total;
    }

    /// Hits over trials; 0 without trials.
    pub fn value(&self) -> f64 {
        self.hits as f64 / self.total.max(1) as f64
    }

    /// Wilson's 95 % confidence interval; everything without trials.
    pub fn wilson(&self) -> (f64, f64) {
        const Z: f64 = 1.959_963_984_540_054; // 97.5 % quantile of the normal distribution
        if self.total == 0 {
            return (0.0, 1.0);
        }
        let (n, p) = (self.total as f64, self.value());
        let denominator = 1.0 + Z * Z / n;
        let centre = (p + Z * Z / (2.0 * n)) / denominator;
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / denominator;
        ((centre - half).max(0.0), (centre + half).min(1.0))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lo, hi) = self.wilson();
        let [rate, lo, hi] = [self.value(), lo, hi].map(|v| v * 100.0);
        write!(
            f,
            "{rate:.2} % (95 %: {lo:.2}..{hi:.2}, n = {})",
            self.total
        )
    }
}

/// Number of classes in an output of this shape, which must be one row: all other dimensions are 1.
pub fn classes(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().product();
    shape.contains(&count).then_some(count)
}

/// Index of the largest value, the first of equal ones; NaN is never the largest. `None` when there is
/// nothing but NaN.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let numbers = values.iter().enumerate().filter(|(_, v)| !v.is_nan());
    numbers
        .reduce(|best, v| if v.1 > best.1 { v } else { best })
        .map(|(i, _)| i)
}

/// Whether `class` is among the `k` largest values; of equal ones the first count as larger. A NaN
/// never is, and neither is a class that does not exist.
pub fn in_top_k(values: &[f32], class: usize, k: usize) -> bool {
    let Some(&value) = values.get(class).filter(|v| !v.is_nan()) else {
        return false;
    };
    let above = |(i, &v): (usize, &f32)| v > value || (v == value && i < class);
    values.iter().enumerate().filter(|&v| above(v)).count() < k
}

/// Top-k accuracy of rows of `classes` values each.
///
/// # Errors
///
/// [`MetricError::Length`] unless there are as many rows as labels.
pub fn top_k(
    values: &[f32],
    classes: usize,
    labels: &[usize],
    k: usize,
) -> Result<Rate, MetricError> {
    same_length("top-k accuracy", labels.len() * classes, values.len())?;
    let mut rate = Rate::default();
    for (row, &label) in values.chunks_exact(classes.max(1)).zip(labels) {
        rate.add(in_top_k(row, label, k));
    }
    Ok(rate)
}

/// Share of positions at which two lists of answers agree.
///
/// # Errors
///
/// [`MetricError::Length`] unless they are equally long.
pub fn agreement<T: PartialEq>(a: &[T], b: &[T]) -> Result<Rate, MetricError> {
    same_length("agreement", a.len(), b.len())?;
    let mut rate = Rate::default();
    a.iter().zip(b).for_each(|(a, b)| rate.add(a == b));
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_published_values() {
        let close = |rate: Rate, lo: f64, hi: f64| {
            let got = rate.wilson();
            assert!(
                (got.0 - lo).abs() < 1e-4 && (got.1 - hi).abs() < 1e-4,
                "{got:?}"
            );
        };
        close(
            Rate {
                hits: 81,
                total: 263,
            },
            0.2553,
            0.3662,
        ); // Newcombe 1998, table I
        close(
            Rate {
                hits: 15,
                total: 148,
            },
            0.0624,
            0.1605,
        );
        close(Rate { hits: 0, total: 20 }, 0.0, 0.1611);
        close(Rate { hits: 1, total: 29 }, 0.0061, 0.1718);
        assert_eq!(Rate::default().wilson(), (0.0, 1.0));
        assert_eq!(
            Rate {
                hits: 29,
                total: 29
            }
            .wilson()
            .1,
            1.0
        );
    }

    #[test]
    fn one_row_is_classes() {
        assert_eq!(classes(&[1, 10]), Some(10));
        assert_eq!(classes(&[1, 10, 1, 1]), Some(10));
        assert_eq!(classes(&[1, 1]), Some(1));
        assert_eq!((classes(&[1, 8, 8]), classes(&[])), (None, None));
    }

    #[test]
    fn ranks_by_hand() {
        let v = [1.0, 3.0, 3.0, f32::NAN, -2.0];
        assert_eq!(argmax(&v), Some(1));
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), Some(1));
        assert_eq!((argmax(&[]), argmax(&[f32::NAN])), (None, None));
        assert!(in_top_k(&v, 1, 1) && !in_top_k(&v, 2, 1) && in_top_k(&v, 2, 2));
        assert!(!in_top_k(&v, 0, 2) && in_top_k(&v, 0, 3) && in_top_k(&v, 4, 4));
        assert!(!in_top_k(&v, 3, 5) && !in_top_k(&v, 9, 5) && !in_top_k(&v, 1, 0));
    }

    #[test]
    fn accuracy_and_agreement_by_hand() {
        let logits = [1.0, 2.0, 3.0, 9.0, 8.0, 7.0];
        assert_eq!(
            top_k(&logits, 3, &[2, 2], 1),
            Ok(Rate { hits: 1, total: 2 })
        );
        assert_eq!(
            top_k(&logits, 3, &[1, 1], 2),
            Ok(Rate { hits: 2, total: 2 })
        );
        assert!(
            top_k(&logits, 3, &[2], 1)
                .unwrap_err()
                .to_string()
                .contains("expected 3 values, got 6")
        );
        assert_eq!(
            agreement(&[1, 2, 3], &[1, 5, 3]),
            Ok(Rate { hits: 2, total: 3 })
        );
        assert!(agreement(&[1], &[1, 2]).is_err());
        let mut sum = Rate { hits: 1, total: 2 };
        sum.merge(Rate { hits: 3, total: 4 });
        assert_eq!(sum, Rate { hits: 4, total: 6 });
    }
}
