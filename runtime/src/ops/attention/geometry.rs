//! Sizes and addresses.

use core::ops::Range;

use serde::{Deserialize, Serialize};

/// Where the rows of one operand are, in elements. A row is contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct View {
    /// First element.
    pub start: u32,
    /// Distance along each outer index.
    pub outer: [u32; 4],
    /// Distance along the two indices of a token.
    pub token: [u32; 2],
}

impl View {
    /// First element of a token's row.
    pub fn row(&self, outer: [u32; 4], token: [u32; 2]) -> usize {
        let step = |s: &[u32], i: &[u32]| -> usize {
            s.iter()
                .zip(i)
                .map(|(&s, &i)| s as usize * i as usize)
                .sum()
        };
        self.start as usize + step(&self.outer, &outer) + step(&self.token, &token)
    }

    /// From the first token's row to that of another of the same outer index.
    #[inline(always)]
    pub(crate) fn step(&self, token: [usize; 2]) -> usize {
        token[0] * self.token[0] as usize + token[1] * self.token[1] as usize
    }

    /// First elements of the rows of all tokens in order, without end.
    #[inline(always)]
    pub(crate) fn rows(&self, outer: [u32; 4], columns: u32) -> Rows {
        Rows {
            next: self.row(outer, [0, 0]),
            left: columns,
            columns,
            step: self.token[1] as usize,
            // From the last column of a row to the first of the next.
            turn: (self.token[0] as usize)
                .wrapping_sub((columns as usize - 1).wrapping_mul(self.token[1] as usize)),
        }
    }

    /// Whether all rows of `width` elements lie within `len` elements.
    fn fits(&self, outer: &[u32; 4], tokens: &[u32; 2], width: u32, len: usize) -> bool {
        let sizes = outer.iter().chain(tokens);
        let steps = self.outer.iter().chain(&self.token);
        // At most 2³² + 6 · 2⁶⁴ in 128 bits.
        let last = sizes
            .zip(steps)
            .map(|(&n, &s)| u128::from(n.saturating_sub(1)) * u128::from(s))
            .sum::<u128>();
        last + u128::from(self.start) + u128::from(width) <= len as u128
    }
}

/// Iterator over the rows of a view.
pub(crate) struct Rows {
    next: usize,
    left: u32,
    columns: u32,
    step: usize,
    turn: usize,
}

impl Rows {
    /// First element of the next token's row. Past the last token it means nothing.
    #[inline(always)]
    pub(crate) fn advance(&mut self) -> usize {
        let at = self.next;
        self.left -= 1;
        if self.left == 0 {
            self.left = self.columns;
            self.next = at.wrapping_add(self.turn);
        } else {
            self.next = at.wrapping_add(self.step);
        }
        at
    }
}

/// Sizes of an attention and the views of its operands. None of the sizes is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Geometry {
    /// Independent attentions: batch, window row, window column, head, as far as there are any.
    pub outer: [u32; 4],
    /// Queries per attention, as rows and columns of tokens.
    pub queries: [u32; 2],
    /// Keys per attention, likewise.
    pub keys: [u32; 2],
    /// Values per query and key.
    pub depth: u32,
    /// Values per row of `v` and of the result.
    pub width: u32,
    /// Queries.
    pub q: View,
    /// Keys.
    pub k: View,
    /// Values.
    pub v: View,
    /// Result.
    pub y: View,
}

/// Most keys, values and largest depth: sums of products stay below 2³¹, and sizes of packed operands.
const LIMIT: usize = 1 << 15;

impl Geometry {
    /// Whether nothing is empty or too large and all rows lie within operands of those lengths, and
    /// the result has one row for each of `y` elements.
    pub fn fits(&self, q: usize, k: usize, v: usize, y: usize) -> bool {
        let sizes = [
            &self.outer[..],
            &self.queries,
            &self.keys,
            &[self.depth, self.width],
        ];
        let positive = sizes
            .iter()
            .all(|s| s.iter().all(|&n| n > 0 && n < 1 << 24));
        let count = |s: &[u32]| {
            s.iter()
                .map(|&n| n as usize)
                .try_fold(1usize, usize::checked_mul)
        };
        let written = count(&self.outer)
            .zip(count(&self.queries))
            .and_then(|(a, b)| a.checked_mul(b)?.checked_mul(self.width as usize));
        positive
            && written == Some(y)
            && count(&self.keys).is_some_and(|n| n <= LIMIT)
            && self.depth as usize <= LIMIT
            && self.width as usize <= LIMIT
            && self.q.fits(&self.outer, &self.queries, self.depth, q)
            && self.k.fits(&self.outer, &self.keys, self.depth, k)
            && self.v.fits(&self.outer, &self.keys, self.width, v)
            && self.y.fits(&self.outer, &self.queries, self.width, y)
    }

    /// [`Geometry::fits`] for operands of those lengths and a part of the result, which must be the whole or
    /// made of [`Geometry::grain`]s.
    pub(crate) fn fits_part(&self, q: usize, k: usize, v: usize, part: &Range<usize>) -> bool {
        let counts = self.outer.iter().chain(&self.queries).chain([&self.width]);
        let whole = counts.fold(1usize, |n, &count| n.saturating_mul(count as usize));
        self.fits(q, k, v, whole)
            && part.end <= whole
            && (*part == (0..whole)
                || self.grain().is_some_and(|grain| {
                    part.start % grain == 0 && (part.end % grain == 0 || part.end == whole)
                }))
    }

    /// Smallest number of values at whose multiples the result may be split: no row is cut, and of each
    /// attention a part has queries that follow each other. `None` where there is no such number.
    pub fn grain(&self) -> Option<usize> {
        let sizes = self.outer.iter().chain(&self.queries);
        let steps = self.y.outer.iter().chain(&self.y.token);
        let axes = || sizes.clone().zip(steps.clone()).filter(|(n, _)| **n > 1);
        let [down, right] = self.y.token.map(u64::from);
        let ordered = self.queries[0] <= 1 || down >= u64::from(self.queries[1] - 1) * right;
        let holds = |grain: &u32| {
            let inside = axes().filter(|(_, step)| **step % grain != 0);
            let last = inside.map(|(&n, &step)| u64::from(n - 1) * u64::from(step));
            let start = u64::from(self.y.start % grain);
            start + last.sum::<u64>() + u64::from(self.width) <= u64::from(*grain)
        };
        let steps = axes().map(|(_, &step)| step).filter(|step| *step > 0);
        let grain = steps.filter(holds).min().filter(|_| ordered)?;
        Some(grain as usize)
    }

    /// Queries of one attention whose rows lie in a part of the result.
    pub(crate) fn queries_within(&self, index: [u32; 4], part: &Range<usize>) -> Range<usize> {
        let before = |limit: usize| {
            let (mut low, mut high) = (0, self.query_count());
            while low < high {
                let middle = low.midpoint(high);
                if self.y.row(index, self.query(middle)) < limit {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
        before(part.start)..before(part.end)
    }

    /// Number of queries.
    pub fn query_count(&self) -> usize {
        self.queries.iter().map(|&n| n as usize).product()
    }

    /// Number of keys.
    pub fn key_count(&self) -> usize {
        self.keys.iter().map(|&n| n as usize).product()
    }

    /// Number of independent attentions.
    pub fn outer_count(&self) -> usize {
        self.outer.iter().map(|&n| n as usize).product()
    }

    /// The outer index of that number.
    pub fn outer_index(&self, mut number: usize) -> [u32; 4] {
        let mut index = [0; 4];
        for d in (0..4).rev() {
            let n = self.outer[d] as usize;
            (index[d], number) = ((number % n) as u32, number / n);
        }
        index
    }

    /// Row and column of a query.
    pub fn query(&self, i: usize) -> [u32; 2] {
        split(i, self.queries[1])
    }

    /// Row and column of a key.
    pub fn key(&self, j: usize) -> [u32; 2] {
        split(j, self.keys[1])
    }
}

fn split(i: usize, columns: u32) -> [u32; 2] {
    let i = i as u32;
    [i / columns, i % columns]
}
