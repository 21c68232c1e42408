//! Axes sorted into kept and reduced ones, neighbours of the same sort merged.

use super::Reduce;
use crate::tensor::MAX_RANK;

/// Nested loops: sizes and element steps, outermost first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Nest {
    sizes: [usize; MAX_RANK],
    steps: [usize; MAX_RANK],
    rank: usize,
}

/// How the input is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Kept axes but for the innermost run.
    pub kept: Nest,
    /// Reduced axes but for the innermost run.
    pub reduced: Nest,
    /// Length of the innermost run of neighbouring elements.
    pub run: usize,
    /// Whether that run is reduced to one value.
    pub run_is_reduced: bool,
}

impl Layout {
    pub fn new(reduce: &Reduce) -> Self {
        let mut this = Layout {
            kept: Nest::default(),
            reduced: Nest::default(),
            run: 1,
            run_is_reduced: false,
        };
        let mut step = 1;
        let mut in_run = true;
        for i in (0..reduce.shape.rank()).rev() {
            let size = reduce.shape.dim(i);
            if size == 1 {
                continue;
            }
            let reduced = reduce.is_reduced(i);
            if this.run == 1 {
                this.run_is_reduced = reduced;
            }
            in_run &= reduced == this.run_is_reduced;
            if in_run {
                this.run *= size;
            } else if reduced {
                this.reduced.push_outer(size, step);
            } else {
                this.kept.push_outer(size, step);
            }
            step *= size;
        }
        this
    }
}

impl Nest {
    /// Adds a loop outside those added before, merging it where it goes on evenly.
    fn push_outer(&mut self, size: usize, step: usize) {
        if self.rank > 0 && step == self.steps[0] * self.sizes[0] {
            self.sizes[0] *= size;
            return;
        }
        self.sizes.copy_within(0..self.rank, 1);
        self.steps.copy_within(0..self.rank, 1);
        self.sizes[0] = size;
        self.steps[0] = step;
        self.rank += 1;
    }

    /// The element offset of each iteration, in row-major order.
    #[inline(always)]
    pub fn offsets(&self) -> Offsets<'_> {
        Offsets {
            nest: self,
            at: [0; MAX_RANK],
            next: Some(0),
        }
    }
}

/// Iterator over the iterations of nested loops.
pub(super) struct Offsets<'a> {
    nest: &'a Nest,
    at: [usize; MAX_RANK],
    next: Option<usize>,
}

impl Iterator for Offsets<'_> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let current = self.next?;
        let nest = self.nest;
        let mut offset = current;
        let mut d = nest.rank;
        self.next = loop {
            if d == 0 {
                break None;
            }
            d -= 1;
            self.at[d] += 1;
            offset += nest.steps[d];
            if self.at[d] < nest.sizes[d] {
                break Some(offset);
            }
            offset -= nest.steps[d] * nest.sizes[d];
            self.at[d] = 0;
        };
        Some(current)
    }
}
