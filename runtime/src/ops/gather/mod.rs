//! Slices selected by indices: embedding tables, the pick of one token.
//!
//! Contract: with `x[outer, axis, inner]`, `y[o, i, ..] = x[o, indices[i], ..]` for every `o` and `i`.
//! An index outside `0..axis` is an error, and `y` is then undefined.

use crate::error::Error;
use crate::ops::length::expect;

/// Copies the selected slices of `inner` bytes each, from `x[.., axis, inner]` to
/// `y[.., indices.len(), inner]`.
///
/// # Errors
///
/// [`Error::Length`] when the lengths disagree, [`Error::IndexOutOfRange`] with the first bad index.
pub fn gather(
    x: &[u8],
    axis: usize,
    inner: usize,
    indices: &[i32],
    y: &mut [u8],
) -> Result<(), Error> {
    let (from, to) = (axis * inner, indices.len() * inner);
    if from == 0 || to == 0 {
        return Err(Error::Length {
            expected: y.len(),
            got: 0,
        });
    }
    let outer = x.len() / from;
    expect(outer * from, x.len())?;
    expect(outer * to, y.len())?;
    for (x, y) in x.chunks_exact(from).zip(y.chunks_exact_mut(to)) {
        for (&index, slice) in indices.iter().zip(y.chunks_exact_mut(inner)) {
            let at = usize::try_from(index).ok().filter(|&i| i < axis);
            let at = at.ok_or(Error::IndexOutOfRange(index))? * inner;
            slice.copy_from_slice(&x[at..at + inner]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_rows_and_columns() {
        let x = [10, 11, 20, 21, 30, 31];
        let mut rows = [0; 6];
        gather(&x, 3, 2, &[2, 0, 2], &mut rows).unwrap();
        assert_eq!(rows, [30, 31, 10, 11, 30, 31]);
        let mut column = [0; 3];
        gather(&x, 2, 1, &[1], &mut column).unwrap();
        assert_eq!(column, [11, 21, 31]);
    }

    #[test]
    fn refuses_what_is_outside() {
        let (x, mut y) = ([0; 6], [0; 2]);
        for index in [-1, 3, i32::MIN, i32::MAX] {
            let got = gather(&x, 3, 2, &[index], &mut y);
            assert_eq!(got, Err(Error::IndexOutOfRange(index)));
        }
        assert!(gather(&x, 3, 2, &[0], &mut [0; 3]).is_err());
        assert!(gather(&x, 0, 2, &[0], &mut y).is_err());
        assert!(gather(&x, 3, 2, &[], &mut []).is_err());
    }
}
