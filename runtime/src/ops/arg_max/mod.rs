//! Index of the largest element along an axis.
//!
//! Contract: with `x[outer, axis, inner]`, `y[o, i]` is the first index `a` (the last one when `last` is
//! set) at which `x[o, a, i]` is largest. NaN is smaller than everything.

use core::cmp::Ordering;

use crate::error::Error;
use crate::ops::length::expect;

/// Writes the indices of the largest of `x[.., axis, inner]` to `y[.., inner]`.
///
/// # Errors
///
/// [`Error::Length`] when the lengths disagree.
pub fn arg_max<T: PartialOrd + Copy>(
    x: &[T],
    axis: usize,
    inner: usize,
    last: bool,
    y: &mut [i32],
) -> Result<(), Error> {
    let block = axis * inner;
    if block == 0 {
        return Err(Error::Length {
            expected: y.len(),
            got: 0,
        });
    }
    let outer = x.len() / block;
    expect(outer * block, x.len())?;
    expect(outer * inner, y.len())?;
    for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(inner)) {
        for (i, y) in y.iter_mut().enumerate() {
            let mut best = 0;
            for a in 1..axis {
                let (largest, x) = (x[best * inner + i], x[a * inner + i]);
                let replaces = match x.partial_cmp(&largest) {
                    Some(order) => order == Ordering::Greater || (last && order == Ordering::Equal),
                    // One of them is NaN: not `x` if that compares with itself.
                    None => x.partial_cmp(&x).is_some(),
                };
                if replaces {
                    best = a;
                }
            }
            *y = best as i32;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    fn of(x: &[f32], axis: usize, inner: usize, last: bool) -> Vec<i32> {
        let mut y = vec![0; x.len() / axis];
        arg_max(x, axis, inner, last, &mut y).unwrap();
        y
    }

    #[test]
    fn finds_the_largest_along_the_axis() {
        assert_eq!(of(&[1.0, 3.0, 2.0, 9.0, 0.0, 9.0], 3, 1, false), [1, 0]);
        assert_eq!(of(&[1.0, 3.0, 2.0, 9.0, 0.0, 9.0], 3, 1, true), [1, 2]);
        assert_eq!(of(&[1.0, 3.0, 2.0, 2.0, 0.0, 9.0], 3, 2, false), [1, 2]);
    }

    #[test]
    fn nan_never_wins() {
        assert_eq!(of(&[f32::NAN, -1.0, f32::NAN, 0.5], 4, 1, false), [3]);
        assert_eq!(of(&[f32::NAN, f32::NAN], 2, 1, false), [0]);
    }

    #[test]
    fn lengths_must_fit() {
        assert!(arg_max(&[1i8, 2, 3], 2, 1, false, &mut [0]).is_err());
        assert!(arg_max(&[1i8, 2], 0, 1, false, &mut []).is_err());
    }
}
