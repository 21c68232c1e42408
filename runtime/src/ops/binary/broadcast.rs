//! Two shapes aligned at the last dimension, reduced to rows.

use crate::error::Error;
use crate::ops::length::expect;
use crate::tensor::{MAX_RANK, Shape};

/// How the elements of two operands pair up.
///
/// Neighbouring dimensions along which both operands advance alike are merged, so tensors of the
/// same shape are one row, and a per-channel vector against a map is one row per pixel.
///
/// ```
/// use ampoule_runtime::{Shape, ops::binary::Broadcast};
/// let map = Shape::new(&[1, 7, 7, 32]).unwrap();
/// let gate = Shape::new(&[1, 1, 1, 32]).unwrap();
/// assert_eq!(Broadcast::new(&map, &gate).unwrap().output(), map);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broadcast {
    output: Shape,
    a_len: usize,
    b_len: usize,
    /// Merged dimensions, outermost first; the last one is the row.
    dims: [usize; MAX_RANK],
    /// Elements by which `a` and `b` advance along each merged dimension, 0 where they repeat.
    a_steps: [usize; MAX_RANK],
    b_steps: [usize; MAX_RANK],
    rank: usize,
}

/// One row of paired elements: offsets of its first element in each tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub a: usize,
    pub b: usize,
    pub y: usize,
}

impl Broadcast {
    /// Pairs two shapes; `None` when they don't broadcast.
    pub fn new(a: &Shape, b: &Shape) -> Option<Self> {
        let rank = a.rank().max(b.rank());
        let mut sizes = [1usize; MAX_RANK];
        let mut this = Broadcast {
            output: *a,
            a_len: a.elements(),
            b_len: b.elements(),
            dims: [1; MAX_RANK],
            a_steps: [0; MAX_RANK],
            b_steps: [0; MAX_RANK],
            rank: 0,
        };
        let (mut a_step, mut b_step) = (1, 1);
        for i in (0..rank).rev() {
            let (da, db) = (aligned(a, rank, i), aligned(b, rank, i));
            if da != db && da != 1 && db != 1 {
                return None;
            }
            sizes[i] = da.max(db);
            this.push_outer(
                sizes[i],
                if da == 1 { 0 } else { a_step },
                if db == 1 { 0 } else { b_step },
            );
            a_step *= da;
            b_step *= db;
        }
        this.rank = this.rank.max(1);
        this.dims[..this.rank].reverse();
        this.a_steps[..this.rank].reverse();
        this.b_steps[..this.rank].reverse();
        this.output = Shape::new(&sizes[..rank])?;
        Some(this)
    }

    /// Adds a dimension outside those added before, merging it where both operands go on evenly.
    fn push_outer(&mut self, size: usize, a_step: usize, b_step: usize) {
        if size == 1 {
            return;
        }
        if let Some(i) = self.rank.checked_sub(1) {
            let inner = self.dims[i];
            if a_step == self.a_steps[i] * inner && b_step == self.b_steps[i] * inner {
                self.dims[i] *= size;
                return;
            }
        }
        self.dims[self.rank] = size;
        self.a_steps[self.rank] = a_step;
        self.b_steps[self.rank] = b_step;
        self.rank += 1;
    }

    /// The output's shape.
    pub fn output(&self) -> Shape {
        self.output
    }

    /// Whether `a` has the output's shape up to dimensions of size 1, so that the output may
    /// replace it.
    pub fn in_place(&self) -> bool {
        self.a_len == self.output.elements()
    }

    /// Elements of a row.
    pub(crate) fn row_len(&self) -> usize {
        self.dims[self.rank - 1]
    }

    /// Whether `a` and `b` repeat one element along a row.
    pub(crate) fn repeats(&self) -> (bool, bool) {
        (
            self.a_steps[self.rank - 1] == 0,
            self.b_steps[self.rank - 1] == 0,
        )
    }

    /// Checks the lengths of the operands and of the output.
    pub(crate) fn check(&self, a: usize, b: usize, y: usize) -> Result<(), Error> {
        expect(self.a_len, a)?;
        expect(self.b_len, b)?;
        expect(self.output.elements(), y)
    }

    /// Calls `f` for each row, in the order of the output.
    #[inline(always)]
    pub(crate) fn for_each_row(&self, mut f: impl FnMut(Row)) {
        let outer = self.rank - 1;
        let mut at = [0usize; MAX_RANK];
        let mut row = Row { a: 0, b: 0, y: 0 };
        loop {
            f(row);
            row.y += self.row_len();
            let mut d = outer;
            loop {
                if d == 0 {
                    return;
                }
                d -= 1;
                at[d] += 1;
                row.a += self.a_steps[d];
                row.b += self.b_steps[d];
                if at[d] < self.dims[d] {
                    break;
                }
                row.a -= self.a_steps[d] * self.dims[d];
                row.b -= self.b_steps[d] * self.dims[d];
                at[d] = 0;
            }
        }
    }
}

/// Size of dimension `i` of `rank` when the shape is aligned at the last one.
fn aligned(shape: &Shape, rank: usize, i: usize) -> usize {
    (i + shape.rank())
        .checked_sub(rank)
        .map_or(1, |i| shape.dim(i))
}
