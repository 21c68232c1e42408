//! Register tiles of `MR` rows and two vectors of columns.

use super::{Packed, Panels, Start};
use crate::isa::{self, Simd};

/// Rows of `A` that stay in the second-level cache while the panels of `B` pass.
const ROWS: usize = 96;

/// Columns of a tile on this processor.
pub(super) fn width() -> usize {
    2 * isa::lanes()
}

/// A tile: `MR` rows of two vectors.
struct Tile<S: Simd, const MR: usize>([[S::Vector; 2]; MR]);

impl<S: Simd, const MR: usize> Tile<S, MR> {
    #[inline(always)]
    fn zero(simd: S) -> Self {
        Tile([[simd.splat(0.0); 2]; MR])
    }

    /// Adds the product of a column and a row.
    #[inline(always)]
    fn add(&mut self, simd: S, column: [f32; MR], row: &[f32]) {
        let row = [simd.load(row), simd.load(&row[S::LANES..])];
        for (sums, x) in self.0.iter_mut().zip(column) {
            let x = simd.splat(x);
            sums[0] = simd.fused(x, row[0], sums[0]);
            sums[1] = simd.fused(x, row[1], sums[1]);
        }
    }

    /// Writes row `i`.
    #[inline(always)]
    fn store(&self, simd: S, i: usize, start: Start<'_>, c: &mut [f32]) {
        let mut whole = [0.0; 32];
        let [left, right] = self.0[i];
        if c.len() == 2 * S::LANES {
            let [left, right] = match start {
                Start::Zero => [left, right],
                Start::Bias(bias) => [
                    simd.add(left, simd.load(bias)),
                    simd.add(right, simd.load(&bias[S::LANES..])),
                ],
                Start::Destination => [
                    simd.add(left, simd.load(c)),
                    simd.add(right, simd.load(&c[S::LANES..])),
                ],
            };
            simd.store(left, c);
            simd.store(right, &mut c[S::LANES..]);
            return;
        }
        simd.store(left, &mut whole);
        simd.store(right, &mut whole[S::LANES..]);
        let sums = &whole[..c.len()];
        match start {
            Start::Zero => c.copy_from_slice(sums),
            Start::Bias(bias) => {
                for ((c, s), b) in c.iter_mut().zip(sums).zip(bias) {
                    *c = s + b;
                }
            }
            Start::Destination => {
                for (c, s) in c.iter_mut().zip(sums) {
                    *c += s;
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn product<S: Simd, const MR: usize>(
    simd: S,
    m: usize,
    a: &[f32],
    lda: usize,
    b: &Packed,
    start: Start<'_>,
    c: &mut [f32],
    ldc: usize,
) {
    let (k, n, width) = (b.k, b.n, 2 * S::LANES);
    assert!(b.width == width || n == 0, "not packed");
    for first in (0..m).step_by(ROWS) {
        let last = m.min(first + ROWS);
        for (p, panel) in b.panels.chunks_exact((k * width).max(1)).enumerate() {
            let column = p * width;
            let columns = width.min(n - column);
            let start = match start {
                Start::Bias(bias) => Start::Bias(&bias[column..column + columns]),
                other => other,
            };
            let mut row = first;
            while row < last {
                let (a, c) = (&a[row * lda..], &mut c[row * ldc + column..]);
                row += match last - row {
                    left if left >= MR => {
                        one::<S, MR>(simd, k, a, lda, panel, start, c, ldc, columns)
                    }
                    4.. => one::<S, 4>(simd, k, a, lda, panel, start, c, ldc, columns),
                    2.. => one::<S, 2>(simd, k, a, lda, panel, start, c, ldc, columns),
                    _ => one::<S, 1>(simd, k, a, lda, panel, start, c, ldc, columns),
                };
            }
        }
    }
}

/// One tile; gives its rows.
#[inline(always)]
fn one<S: Simd, const MR: usize>(
    simd: S,
    k: usize,
    a: &[f32],
    lda: usize,
    panel: &[f32],
    start: Start<'_>,
    c: &mut [f32],
    ldc: usize,
    columns: usize,
) -> usize {
    let mut rows = [&a[..k]; MR];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &a[i * lda..][..k];
    }
    let mut tile = Tile::<S, MR>::zero(simd);
    for (l, b) in panel.chunks_exact(2 * S::LANES).take(k).enumerate() {
        let mut column = [0.0; MR];
        for (x, row) in column.iter_mut().zip(rows) {
            *x = row[l];
        }
        tile.add(simd, column, b);
    }
    for i in 0..MR {
        tile.store(simd, i, start, &mut c[i * ldc..][..columns]);
    }
    MR
}

#[inline(always)]
pub(super) fn accumulate_transposed<S: Simd, const MR: usize, const NR: usize>(
    simd: S,
    rows: usize,
    a: &[f32],
    [m, lda]: [usize; 2],
    b: &[f32],
    [n, ldb]: [usize; 2],
    c: &mut [f32],
    panels: &mut Panels,
) {
    for column in (0..n).step_by(NR) {
        let columns = NR.min(n - column);
        let b = pack::<NR>(rows, &b[column..], [columns, ldb], panels);
        let mut row = 0;
        while row < m {
            let c = &mut c[row * n + column..];
            let a = &a[row..];
            row += match m - row {
                left if left >= MR => one_transposed::<S, MR, NR>(simd, a, lda, b, c, [n, columns]),
                4.. => one_transposed::<S, 4, NR>(simd, a, lda, b, c, [n, columns]),
                2.. => one_transposed::<S, 2, NR>(simd, a, lda, b, c, [n, columns]),
                _ => one_transposed::<S, 1, NR>(simd, a, lda, b, c, [n, columns]),
            };
        }
    }
}

/// One tile; gives its rows.
#[inline(always)]
fn one_transposed<S: Simd, const MR: usize, const NR: usize>(
    simd: S,
    a: &[f32],
    lda: usize,
    b: &[f32],
    c: &mut [f32],
    [ldc, columns]: [usize; 2],
) -> usize {
    let mut tile = Tile::<S, MR>::zero(simd);
    for (a, b) in a.chunks(lda).zip(b.chunks_exact(NR)) {
        if let Some(a) = a.first_chunk() {
            tile.add(simd, *a, b);
        }
    }
    for i in 0..MR {
        tile.store(simd, i, Start::Destination, &mut c[i * ldc..][..columns]);
    }
    MR
}

/// Copies `[rows, columns]`, at most `W` columns, to `[rows, W]`, filled up with zeros.
#[inline(always)]
fn pack<'a, const W: usize>(
    rows: usize,
    x: &[f32],
    [columns, ld]: [usize; 2],
    panels: &'a mut Panels,
) -> &'a [f32] {
    let panel = &mut panels.0;
    if panel.len() < rows * W {
        panel.resize(rows * W, 0.0);
    }
    let panel = &mut panel[..rows * W];
    for (from, to) in x.chunks(ld).zip(panel.as_chunks_mut::<W>().0) {
        match from.first_chunk::<W>() {
            Some(from) if columns == W => *to = *from,
            _ => {
                *to = [0.0; W];
                to[..columns].copy_from_slice(&from[..columns]);
            }
        }
    }
    panel
}
