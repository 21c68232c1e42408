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

    /// The rows, in the order of the output.
    #[inline(always)]
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows {
            layout: self,
            at: [0; MAX_RANK],
            next: Some(Row { a: 0, b: 0, y: 0 }),
        }
    }
}

/// Iterator over the rows. (An iterator, since a loop body is compiled with the features of the
/// function around it, a closure need not be.)
pub(crate) struct Rows<'a> {
    layout: &'a Broadcast,
    at: [usize; MAX_RANK],
    next: Option<Row>,
}

impl Iterator for Rows<'_> {
    type Item = Row;

    #[inline(always)]
    fn next(&mut self) -> Option<Row> {
        let current = self.next?;
        let layout = self.layout;
        let mut row = Row {
            y: current.y + layout.row_len(),
            ..current
        };
        let mut d = layout.rank - 1;
        self.next = loop {
            if d == 0 {
                break None;
            }
            d -= 1;
            self.at[d] += 1;
            row.a += layout.a_steps[d];
            row.b += layout.b_steps[d];
            if self.at[d] < layout.dims[d] {
                break Some(row);
            }
            row.a -= layout.a_steps[d] * layout.dims[d];
            row.b -= layout.b_steps[d] * layout.dims[d];
            self.at[d] = 0;
        };
        Some(current)
    }
}

/// Size of dimension `i` of `rank` when the shape is aligned at the last one.
fn aligned(shape: &Shape, rank: usize, i: usize) -> usize {
    (i + shape.rank())
        .checked_sub(rank)
        .map_or(1, |i| shape.dim(i))
}
