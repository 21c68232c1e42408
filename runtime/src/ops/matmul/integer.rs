//! Int8.

use super::products;
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::requantize;
use crate::ops::vectorize::{Loop, run};
use crate::tensor::Shape;

/// Columns whose sums are held at once.
const COLUMNS: usize = 64;

/// Everything about an int8 product but shapes and data.
#[derive(Debug, Clone, Copy)]
pub struct MatMulI8 {
    /// Zero point of the left operand.
    pub a_zero: i32,
    /// Zero point of the right operand.
    pub b_zero: i32,
    /// Product of the operands' scales over the scale of the result.
    pub multiplier: f32,
    /// Zero point of the result.
    pub zero: i32,
}

/// Multiplies `a` by `b`: rows of the result, counted through all matrices, from `first` on.
///
/// # Errors
///
/// [`Error::Length`] when shapes or slices do not agree.
pub fn matmul_i8(
    cap: Capability,
    op: &MatMulI8,
    a_shape: &Shape,
    a: &[i8],
    b_shape: &Shape,
    b: &[i8],
    y_shape: &Shape,
    first: usize,
    y: &mut [i8],
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
            run(cap, Product { op, k, n, a, b, y });
        },
    )
}

struct Product<'a> {
    op: &'a MatMulI8,
    k: usize,
    n: usize,
    a: &'a [i8],
    b: &'a [i8],
    y: &'a mut [i8],
}

impl Loop for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let op = self.op;
        for (a, y) in self
            .a
            .chunks_exact(self.k)
            .zip(self.y.chunks_exact_mut(self.n))
        {
            for (start, y) in (0..).step_by(COLUMNS).zip(y.chunks_mut(COLUMNS)) {
                let mut sums = [0i32; COLUMNS];
                let width = y.len();
                for (&a, b) in a.iter().zip(self.b.chunks_exact(self.n)) {
                    let a = i32::from(a) - op.a_zero;
                    for (sum, &b) in sums.iter_mut().zip(&b[start..start + width]) {
                        *sum += a * (i32::from(b) - op.b_zero);
                    }
                }
                for (y, &sum) in y.iter_mut().zip(&sums) {
                    *y = requantize(sum, op.multiplier, op.zero, -128, 127) as i8;
                }
            }
        }
    }
}

/// The scalar truth for one pair of matrices, `[m, k]` and `[k, n]`.
pub fn matmul_i8_reference(op: &MatMulI8, k: usize, n: usize, a: &[i8], b: &[i8], y: &mut [i8]) {
    for (i, y) in y.iter_mut().enumerate() {
        let (row, column) = (i / n, i % n);
        let product = |j: usize| {
            (i32::from(a[row * k + j]) - op.a_zero) * (i32::from(b[j * n + column]) - op.b_zero)
        };
        *y = requantize((0..k).map(product).sum(), op.multiplier, op.zero, -128, 127) as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Guarded, Random, capabilities};

    #[test]
    fn int8_equals_the_reference() {
        let caps = capabilities("matmul int8");
        let mut random = Random::new(71);
        for [m, k, n] in [
            [1, 1, 1],
            [3, 7, 5],
            [4, 32, 64],
            [2, 100, 65],
            [5, 49, 130],
        ] {
            let shape = |d: &[usize]| Shape::new(d).unwrap();
            let (sa, sb, sy) = (shape(&[2, m, k]), shape(&[k, n]), shape(&[2, m, n]));
            let (a, b) = (random.codes(2 * m * k), random.codes(k * n));
            let op = MatMulI8 {
                a_zero: i32::from(random.code()),
                b_zero: i32::from(random.code()),
                multiplier: random.real(0.0, 0.01),
                zero: i32::from(random.code()),
            };
            let mut expected = std::vec![0; 2 * m * n];
            matmul_i8_reference(&op, k, n, &a, &b, &mut expected);
            for &cap in &caps {
                let mut y = Guarded::new(2 * m * n, 9);
                // In two parts, the first of which ends within a matrix.
                let (one, two) = y.get().split_at_mut(m.div_ceil(2) * n);
                for (first, part) in [(0, one), (m.div_ceil(2), two)] {
                    matmul_i8(cap, &op, &sa, &a, &sb, &b, &sy, first, part).unwrap();
                }
                assert!(
                    y.check() == expected,
                    "{m} {k} {n} with {}",
                    cap.isa().name()
                );
            }
        }
    }
}
