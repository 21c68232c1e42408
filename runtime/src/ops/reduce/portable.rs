//! The loops, generic in what is accumulated.

use super::layout::Layout;
use crate::ops::vectorize::Loop;

/// Outputs that are accumulated side by side.
const TILE: usize = 64;
/// Partial results of a run that becomes one value.
const LANES: usize = 16;

/// How many values become one.
pub(super) trait Fold: Copy {
    /// Element.
    type Value: Copy;
    /// What they accumulate in.
    type Sum: Copy;

    /// Before the first value.
    fn start(self) -> Self::Sum;
    /// Takes one value in.
    fn add(self, sum: Self::Sum, value: Self::Value) -> Self::Sum;
    /// Joins two partial results.
    fn merge(self, a: Self::Sum, b: Self::Sum) -> Self::Sum;
    /// The output.
    fn finish(self, sum: Self::Sum) -> Self::Value;
}

/// A whole reduction of slices whose lengths were checked.
pub(super) struct Reduction<'a, F: Fold> {
    pub layout: Layout,
    pub fold: F,
    pub x: &'a [F::Value],
    pub y: &'a mut [F::Value],
}

impl<F: Fold> Loop for Reduction<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Reduction { layout, fold, x, y } = self;
        let mut outputs = y.chunks_exact_mut(if layout.run_is_reduced { 1 } else { layout.run });
        for at in layout.kept.offsets() {
            match outputs.next() {
                Some([y]) if layout.run_is_reduced => *y = runs_to_one(&layout, fold, x, at),
                Some(row) => rows_to_row(&layout, fold, x, at, row),
                None => {}
            }
        }
    }
}

/// One output of runs that are reduced, in [`LANES`] interleaved partial results.
#[inline(always)]
fn runs_to_one<F: Fold>(layout: &Layout, fold: F, x: &[F::Value], at: usize) -> F::Value {
    let mut lanes = [fold.start(); LANES];
    for r in layout.reduced.offsets() {
        let (chunks, rest) = x[at + r..at + r + layout.run].as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = fold.add(lanes[i], chunk[i]);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            *lane = fold.add(*lane, value);
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = fold.merge(lanes[i], lanes[i + width]);
        }
    }
    fold.finish(lanes[0])
}

/// A row of outputs, each the result over the reduced axes at its place in the run.
#[inline(always)]
fn rows_to_row<F: Fold>(layout: &Layout, fold: F, x: &[F::Value], at: usize, row: &mut [F::Value]) {
    for (tile, out) in row.chunks_mut(TILE).enumerate() {
        let mut sums = [fold.start(); TILE];
        for r in layout.reduced.offsets() {
            let at = at + r + tile * TILE;
            let values = &x[at..at + out.len()];
            if let Ok(values) = <&[F::Value; TILE]>::try_from(values) {
                for i in 0..TILE {
                    sums[i] = fold.add(sums[i], values[i]);
                }
            } else {
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum = fold.add(*sum, value);
                }
            }
        }
        for (y, &sum) in out.iter_mut().zip(&sums) {
            *y = fold.finish(sum);
        }
    }
}
