//! Loops over windows with the channels innermost, in tiles that fit the registers.

use super::Pool;
use super::geometry::Span;
use crate::ops::vectorize::Loop;

/// Channels that are accumulated side by side.
const TILE: usize = 64;

/// How the values under a window become one.
pub(super) trait Fold: Copy {
    /// Element of the map.
    type Value: Copy;
    /// What they accumulate in.
    type Sum: Copy;

    /// Before the first value.
    fn start(self) -> Self::Sum;
    /// Takes one value in.
    fn add(self, sum: Self::Sum, value: Self::Value) -> Self::Sum;
    /// The output for `inside` values.
    fn finish(self, sum: Self::Sum, inside: usize) -> Self::Value;
}

/// Output rows `first_row..` (as many as `y` holds) of a fold over windows.
pub(super) struct Windows<'a, F: Fold> {
    pub pool: &'a Pool,
    pub fold: F,
    pub x: &'a [F::Value],
    pub first_row: usize,
    pub y: &'a mut [F::Value],
}

impl<F: Fold> Loop for Windows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Windows {
            pool,
            fold,
            x,
            first_row,
            y,
        } = self;
        let c = pool.input[2];
        let out_w = pool.output[1];
        if c == 0 || out_w == 0 {
            return;
        }
        for (i, row) in y.chunks_exact_mut(out_w * c).enumerate() {
            let ys = pool.span(0, first_row + i);
            for (ox, pixel) in row.chunks_exact_mut(c).enumerate() {
                window(pool, fold, x, ys, pool.span(1, ox), pixel);
            }
        }
    }
}

/// One output pixel.
#[inline(always)]
fn window<F: Fold>(
    pool: &Pool,
    fold: F,
    x: &[F::Value],
    ys: Span,
    xs: Span,
    pixel: &mut [F::Value],
) {
    let [_, in_w, c] = pool.input;
    let inside = ys.count * xs.count;
    for (tile, out) in pixel.chunks_mut(TILE).enumerate() {
        let mut sums = [fold.start(); TILE];
        for iy in ys.positions() {
            for ix in xs.positions() {
                let at = (iy * in_w + ix) * c + tile * TILE;
                add_values(fold, &mut sums, &x[at..at + out.len()]);
            }
        }
        for (y, &sum) in out.iter_mut().zip(&sums) {
            *y = fold.finish(sum, inside);
        }
    }
}

/// Adds one value per channel; full tiles have a constant length, which the compiler unrolls where there is room.
#[inline(always)]
fn add_values<F: Fold>(fold: F, sums: &mut [F::Sum; TILE], values: &[F::Value]) {
    let tile = match cfg!(target_os = "none") {
        true => None,
        false => values.first_chunk::<TILE>(),
    };
    if let Some(values) = tile {
        for i in 0..TILE {
            sums[i] = fold.add(sums[i], values[i]);
        }
    } else {
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum = fold.add(*sum, value);
        }
    }
}
