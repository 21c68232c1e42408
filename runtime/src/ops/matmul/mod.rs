//! Batched product of two activations.
//!
//! Contract: `y[.., m, n] = Σₖ a[.., m, k] · b[.., k, n]`, leading dimensions broadcast from the right.
//! For int8, `requantize(Σₖ (a − z_a) · (b − z_b), s_a·s_b/s_y, z_y, −128, 127)`.

mod integer;

pub use integer::{MatMulI8, matmul_i8, matmul_i8_reference};

use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::{at_least, expect};
use crate::ops::vectorize::{Loop, run};
use crate::tensor::{MAX_RANK, Shape};

/// Multiplies `a` by `b`: rows of the result, counted through all matrices, from `first` on.
///
/// # Errors
///
/// [`Error::Length`] when shapes or slices do not agree.
pub fn matmul(
    cap: Capability,
    a_shape: &Shape,
    a: &[f32],
    b_shape: &Shape,
    b: &[f32],
    y_shape: &Shape,
    first: usize,
    y: &mut [f32],
) -> Result<(), Error> {
    products(
        a_shape,
        a,
        b_shape,
        b,
        y_shape,
        first,
        y,
        |[k, n], a, b, y| {
            run(cap, Product { k, n, a, b, y });
        },
    )
}

struct Product<'a> {
    k: usize,
    n: usize,
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
}

impl Loop for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let rows = self.a.chunks_exact(self.k);
        for (row, out) in rows.zip(self.y.chunks_exact_mut(self.n)) {
            out.fill(0.0);
            for (&s, b_row) in row.iter().zip(self.b.chunks_exact(self.n)) {
                for (o, &v) in out.iter_mut().zip(b_row) {
                    *o += s * v;
                }
            }
        }
    }
}

/// Calls `f` with inner dimension and columns, rows of `a`, a matrix of `b` and rows of the result, for
/// each matrix that the rows of `y` from `first` on belong to.
fn products<A, B, Y>(
    a_shape: &Shape,
    a: &[A],
    b_shape: &Shape,
    b: &[B],
    y_shape: &Shape,
    first: usize,
    mut y: &mut [Y],
    mut f: impl FnMut([usize; 2], &[A], &[B], &mut [Y]),
) -> Result<(), Error> {
    let whole = y_shape.elements();
    let [m, k, n] = sizes(a_shape, a.len(), b_shape, b.len(), y_shape, whole)?;
    let mut row = first;
    at_least(first.saturating_mul(n).saturating_add(y.len()), whole)?;
    expect(y.len().checked_div(n).unwrap_or(0) * n, y.len())?;
    while !y.is_empty() {
        let (batch, from) = (row / m, row % m);
        let rows = (m - from).min(y.len() / n);
        let (part, rest) = y.split_at_mut(rows * n);
        let a = &a[(offset(a_shape, y_shape, batch) * m + from) * k..][..rows * k];
        let b = &b[offset(b_shape, y_shape, batch) * k * n..][..k * n];
        f([k, n], a, b, part);
        (row, y) = (row + rows, rest);
    }
    Ok(())
}

/// Rows, inner dimension and columns of operands that fit.
fn sizes(
    a: &Shape,
    a_len: usize,
    b: &Shape,
    b_len: usize,
    y: &Shape,
    y_len: usize,
) -> Result<[usize; 3], Error> {
    let lengths = [(a, a_len), (b, b_len), (y, y_len)];
    if !shapes_agree(a, b, y) || lengths.iter().any(|(s, len)| s.elements() != *len) {
        return Err(Error::Length {
            expected: y.elements(),
            got: y_len,
        });
    }
    let (m, k, n) = (a.dim(a.rank() - 2), a.last(), b.last());
    Ok([m, k, n])
}

/// Whether the three shapes satisfy the contract.
pub fn shapes_agree(a: &Shape, b: &Shape, y: &Shape) -> bool {
    let (ra, rb, ry) = (a.rank(), b.rank(), y.rank());
    if ra < 2 || rb < 2 || ry != ra.max(rb) {
        return false;
    }
    let inner = a.dim(ra - 1) == b.dim(rb - 2);
    let outer = y.dim(ry - 2) == a.dim(ra - 2) && y.dim(ry - 1) == b.dim(rb - 1);
    let leading = (0..ry - 2).all(|i| {
        let at = |s: &Shape| (i + s.rank()).checked_sub(ry).map_or(1, |j| s.dim(j));
        let (da, db, dy) = (at(a), at(b), y.dim(i));
        (da == dy || da == 1) && (db == dy || db == 1) && dy == da.max(db)
    });
    inner && outer && leading
}

/// Index of the matrix of `s` that goes with matrix `batch` of `y`.
fn offset(s: &Shape, y: &Shape, batch: usize) -> usize {
    let (rs, ry) = (s.rank(), y.rank());
    let mut rest = batch;
    let mut index = [0usize; MAX_RANK];
    for i in (0..ry - 2).rev() {
        index[i] = rest % y.dim(i);
        rest /= y.dim(i);
    }
    (0..rs - 2).fold(0, |at, j| {
        let i = index[j + ry - rs];
        at * s.dim(j) + if s.dim(j) == 1 { 0 } else { i }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_with_broadcast() {
        let (a, b, y) = (
            Shape::new(&[2, 1, 2]).unwrap(),
            Shape::new(&[2, 2]).unwrap(),
            Shape::new(&[2, 1, 2]).unwrap(),
        );
        let mut out = [0.0; 4];
        matmul(
            Capability::Portable,
            &a,
            &[1.0, 2.0, 3.0, 4.0],
            &b,
            &[1.0, 0.0, 0.0, 10.0],
            &y,
            0,
            &mut out,
        )
        .unwrap();
        assert_eq!(out, [1.0, 20.0, 3.0, 40.0]);
        assert!(!shapes_agree(&a, &Shape::new(&[3, 2]).unwrap(), &y));
    }
}
