//! Matrix products of `f32`.
//!
//! Two forms cover the forward and the backward pass: [`product`] is `C = A·B` with `A` row-major as it
//! lies in memory and `B`, the weights, packed once per step; [`accumulate_transposed`] is `C += Aᵀ·B`
//! over the rows of two activations, the gradient of weights. The tiles are plain loops over arrays of
//! constant size, which the compiler keeps in registers.

mod tile;

use crate::isa::{self, Loop, Simd, kernel};

/// `B[k, n]`, cut into panels of as many columns as a tile has.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    k: usize,
    n: usize,
    /// Columns of a panel.
    width: usize,
    /// Panels one after the other, each `[k, width]`, the last filled up with zeros.
    panels: Vec<f32>,
}

impl Packed {
    /// Packs `b`, where the element of row `i` and column `j` is `b[i · strides[0] + j · strides[1]]`.
    pub fn pack(&mut self, b: &[f32], [k, n]: [usize; 2], strides: [usize; 2]) {
        let width = tile::width();
        self.panels.clear();
        self.panels.resize(n.div_ceil(width) * width * k, 0.0);
        (self.k, self.n, self.width) = (k, n, width);
        if k == 0 {
            return;
        }
        for (p, panel) in self.panels.chunks_exact_mut(k * width).enumerate() {
            let first = p * width;
            let columns = width.min(n - first);
            let source = &b[first * strides[1]..];
            if strides[1] == 1 {
                for (i, row) in panel.chunks_exact_mut(width).enumerate() {
                    row[..columns].copy_from_slice(&source[i * strides[0]..][..columns]);
                }
            } else {
                turn(source, [columns, k], strides, panel, width);
            }
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.k, self.n]
    }
}

kernel! {
    /// Writes `k` rows of a panel from as many columns of `b`, four by four.
    fn turn<'a, S, simd>(
        b: &'a [f32],
        size: [usize; 2],
        strides: [usize; 2],
        panel: &'a mut [f32],
        width: usize,
    ) {
        let ([columns, k], [down, right]) = (size, strides);
        let whole = if down == 1 { [columns - columns % 4, k - k % 4] } else { [0; 2] };
        for j in (0..whole[0]).step_by(4) {
            for i in (0..whole[1]).step_by(4) {
                let from: [[f32; 4]; 4] = std::array::from_fn(|c| {
                    let from = &b[(j + c) * right + i..][..4];
                    [from[0], from[1], from[2], from[3]]
                });
                for r in 0..4 {
                    let to = &mut panel[(i + r) * width + j..][..4];
                    to.copy_from_slice(&from.map(|f| f[r]));
                }
            }
        }
        for j in 0..columns {
            let done = if j < whole[0] { whole[1] } else { 0 };
            for i in done..k {
                panel[i * width + j] = b[i * down + j * right];
            }
        }
    }
}

/// What a product does with what its destination holds.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Overwrites it.
    Zero,
    /// Overwrites it, with `bias[n]` added to each row.
    Bias(&'a [f32]),
    /// Adds to it.
    Destination,
}

/// `C[m, n] = A[m, k] · B[k, n]`, rows of `a` and `c` being `lda` and `ldc` elements apart.
///
/// # Panics
///
/// When a slice is too short.
pub fn product(
    m: usize,
    a: &[f32],
    lda: usize,
    b: &Packed,
    start: Start<'_>,
    c: &mut [f32],
    ldc: usize,
) {
    struct Body<'a>(
        usize,
        &'a [f32],
        usize,
        &'a Packed,
        Start<'a>,
        &'a mut [f32],
        usize,
    );
    impl Loop for Body<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let Body(m, a, lda, b, start, c, ldc) = self;
            match S::LANES {
                16 => tile::product::<S, 8>(simd, m, a, lda, b, start, c, ldc),
                8 => tile::product::<S, 6>(simd, m, a, lda, b, start, c, ldc),
                _ => tile::product::<S, 4>(simd, m, a, lda, b, start, c, ldc),
            }
        }
    }
    isa::run(Body(m, a, lda, b, start, c, ldc));
}

/// Scratch of [`accumulate_transposed`]: columns of `B` that stay in the first-level cache.
#[derive(Debug, Default)]
pub struct Panels(Vec<f32>);

/// `C[m, n] += A[rows, m]ᵀ · B[rows, n]`, rows of `a` and `b` being `lda` and `ldb` elements apart.
///
/// # Panics
///
/// When a slice is too short.
pub fn accumulate_transposed(
    rows: usize,
    a: &[f32],
    [m, lda]: [usize; 2],
    b: &[f32],
    [n, ldb]: [usize; 2],
    c: &mut [f32],
    panels: &mut Panels,
) {
    struct Body<'a>(
        usize,
        &'a [f32],
        [usize; 2],
        &'a [f32],
        [usize; 2],
        &'a mut [f32],
        &'a mut Panels,
    );
    impl Loop for Body<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let Body(rows, a, m, b, n, c, panels) = self;
            match S::LANES {
                16 => tile::accumulate_transposed::<S, 8, 32>(simd, rows, a, m, b, n, c, panels),
                8 => tile::accumulate_transposed::<S, 6, 16>(simd, rows, a, m, b, n, c, panels),
                _ => tile::accumulate_transposed::<S, 4, 8>(simd, rows, a, m, b, n, c, panels),
            }
        }
    }
    isa::run(Body(rows, a, [m, lda], b, [n, ldb], c, panels));
}

#[cfg(test)]
mod tests;
