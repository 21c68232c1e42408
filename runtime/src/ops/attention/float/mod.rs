//! Float attention: keys packed like a convolution's weights, and tiles of a few queries whose scores
//! stay in the first-level cache.
//!
//! Every row of the result is computed in the same order of operations whatever the tile, so a result
//! does not depend on how it is split over threads.

pub(crate) mod lanes;

use core::ops::Range;

use super::bias::{LANES, shared_row};
use super::{Bias, Geometry, sizes_fit};
#[cfg(target_arch = "x86_64")]
use crate::arch::x86::attention as x86;
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::at_least;
use crate::ops::vectorize::Loop;
use lanes::{FloatLanes, Plain};

/// Queries of a tile where registers are many, and where they are few.
const WIDE_ROWS: usize = 7;
const NARROW_ROWS: usize = 5;

/// Bytes that [`attention_f32`] needs: packed keys and values, the queries of a tile and their scores.
///
/// `usize::MAX`, which nobody has, where a 32-bit `usize` can't count them.
pub fn scratch_bytes(g: &Geometry) -> usize {
    let values: u64 = Sizes::new(g).parts().iter().map(|&n| n as u64).sum();
    usize::try_from(values * size_of::<f32>() as u64).unwrap_or(usize::MAX)
}

/// Computes `y.len()` values of the result from value `first` on; multiplier and bias are in octaves.
///
/// # Errors
///
/// [`Error::Length`] when an operand, the bias or `scratch` is too short for the geometry, or when the
/// part is neither the whole nor made of [`Geometry::grain`]s.
pub fn attention_f32(
    cap: Capability,
    geometry: &Geometry,
    multiplier: f32,
    bias: Option<Bias<'_>>,
    sizes: Option<&[i32]>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    first: usize,
    y: &mut [f32],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let g = geometry;
    let short = Error::Length {
        expected: g.query_count(),
        got: y.len(),
    };
    let part = first..first.saturating_add(y.len());
    let fits = g.fits_part(q.len(), k.len(), v.len(), &part) && bias.is_none_or(|b| b.fits(g));
    if !fits || !sizes_fit(sizes, bias, g) {
        return Err(short);
    }
    let need = scratch_bytes(g);
    let padding = scratch.as_ptr().align_offset(size_of::<f32>());
    at_least(need.saturating_add(padding), scratch.len())?;
    let scratch =
        bytemuck::try_cast_slice_mut(&mut scratch[padding..padding + need]).map_err(|_| short)?;
    let call = Call {
        g,
        multiplier,
        bias,
        sizes,
        q,
        k,
        v,
        part,
        y,
        scratch,
    };
    match cap {
        #[cfg(target_arch = "x86_64")]
        Capability::Avx2(token) => call.run(x86::Floats256(token)),
        #[cfg(target_arch = "x86_64")]
        Capability::AvxVnni(token) => call.run(x86::Floats256(token.avx2())),
        #[cfg(target_arch = "x86_64")]
        Capability::Avx512Vnni(token) => call.run(x86::Floats512(token)),
        #[cfg(target_arch = "x86_64")]
        Capability::Amx(token) => call.run(x86::Floats512(token.avx512vnni())),
        _ => call.run(Plain),
    }
    Ok(())
}

/// Lengths that follow from the geometry, in values.
#[derive(Clone, Copy)]
struct Sizes {
    /// Keys, and keys rounded up to whole vectors.
    keys: usize,
    padded: usize,
    depth: usize,
    /// Values rounded up to whole vectors.
    width: usize,
    /// From one row of scores to the next: a row of a bias may write a vector more.
    stride: usize,
}

impl Sizes {
    fn new(g: &Geometry) -> Self {
        let padded = g.key_count().next_multiple_of(LANES);
        Sizes {
            keys: g.key_count(),
            padded,
            depth: g.depth as usize,
            width: (g.width as usize).next_multiple_of(LANES),
            stride: padded + LANES,
        }
    }

    /// Keys, values, queries, scores.
    fn parts(&self) -> [usize; 4] {
        [
            self.padded * self.depth,
            self.width * self.keys,
            WIDE_ROWS * self.depth,
            WIDE_ROWS * self.stride,
        ]
    }
}

/// A call whose operands fit.
struct Call<'a> {
    g: &'a Geometry,
    multiplier: f32,
    bias: Option<Bias<'a>>,
    sizes: Option<&'a [i32]>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    part: Range<usize>,
    y: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Call<'_> {
    /// All windows and heads.
    fn run<L: FloatLanes>(self, lanes: L) {
        let (g, sizes) = (self.g, Sizes::new(self.g));
        let [keys, values, queries, _] = sizes.parts();
        let (keys, rest) = self.scratch.split_at_mut(keys);
        let (values, rest) = rest.split_at_mut(values);
        let (queries, scores) = rest.split_at_mut(queries);
        for number in 0..g.outer_count() {
            let index = g.outer_index(number);
            let range = g.queries_within(index, &self.part);
            if range.is_empty() {
                continue;
            }
            pack_keys(&sizes, keys, |j| &self.k[g.k.row(index, g.key(j))..]);
            pack_values(&sizes, g.width as usize, values, |j| {
                &self.v[g.v.row(index, g.key(j))..]
            });
            let mut tile = Tile {
                lanes,
                sizes,
                keys,
                values,
                queries,
                scores,
            };
            let rows = if L::WIDE { WIDE_ROWS } else { NARROW_ROWS };
            let rows = if range.len() < rows { 1 } else { rows };
            for i in range.clone().step_by(rows) {
                // The last tile computes some queries again.
                let i = i.min(range.end - rows);
                for r in 0..rows {
                    let row = &self.q[g.q.row(index, g.query(i + r))..][..sizes.depth];
                    let to = &mut tile.queries[r * sizes.depth..][..sizes.depth];
                    let pairs = to.iter_mut().zip(row);
                    pairs.for_each(|(to, &q)| *to = q * self.multiplier);
                    let scores = &mut tile.scores[r * sizes.stride..][..sizes.stride];
                    match &self.bias {
                        Some(bias) => bias.row(g, index, i + r, scores),
                        None => shared_row(self.sizes, sizes.keys, scores),
                    }
                }
                let width = g.width as usize;
                let y = &mut *self.y;
                let mut store = |r: usize, column: usize, values: &[f32]| {
                    let at = g.y.row(index, g.query(i + r)) - self.part.start + column;
                    let count = values.len().min(width - column);
                    y[at..at + count].copy_from_slice(&values[..count]);
                };
                match rows {
                    WIDE_ROWS => tile.compute::<WIDE_ROWS>(&mut store),
                    NARROW_ROWS => tile.compute::<NARROW_ROWS>(&mut store),
                    _ => tile.compute::<1>(&mut store),
                }
            }
        }
    }
}

/// Packs rows of keys as `[block of 16][depth][key in block]`; keys that do not exist are 0.
fn pack_keys<'k>(s: &Sizes, to: &mut [f32], key: impl Fn(usize) -> &'k [f32]) {
    const SIDE: usize = 4;
    for (b, block) in to.chunks_exact_mut(s.depth * LANES).enumerate() {
        let lines = block.as_chunks_mut::<LANES>().0;
        for start in (0..LANES).step_by(SIDE) {
            let rows: [&[f32]; SIDE] = core::array::from_fn(|i| {
                let j = b * LANES + start + i;
                if j < s.keys { &key(j)[..s.depth] } else { &[] }
            });
            // Squares of 4 × 4 are transposed in registers.
            let mut done = 0;
            if rows.iter().all(|row| row.len() == s.depth) {
                let [a, b, c, d] = rows.map(|row| row.as_chunks::<SIDE>().0);
                let lines = lines.as_chunks_mut::<SIDE>().0;
                for ((((lines, a), b), c), d) in lines.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    for (i, line) in lines.iter_mut().enumerate() {
                        line[start..start + SIDE].copy_from_slice(&[a[i], b[i], c[i], d[i]]);
                    }
                }
                done = s.depth - s.depth % SIDE;
            }
            for (depth, line) in lines.iter_mut().enumerate().skip(done) {
                for (lane, row) in line[start..].iter_mut().zip(rows) {
                    *lane = row.get(depth).copied().unwrap_or(0.0);
                }
            }
        }
    }
}

/// Packs rows of values as `[block of 16][key][value in block]`; values that do not exist are 0.
fn pack_values<'v>(s: &Sizes, width: usize, to: &mut [f32], value: impl Fn(usize) -> &'v [f32]) {
    for j in 0..s.keys {
        let row = &value(j)[..width];
        for start in (0..width).step_by(LANES) {
            let to = &mut to[start * s.keys + j * LANES..][..LANES];
            match row[start..].first_chunk::<LANES>() {
                Some(chunk) => to.copy_from_slice(chunk),
                None => {
                    let rest = &row[start..];
                    to[..rest.len()].copy_from_slice(rest);
                    to[rest.len()..].fill(0.0);
                }
            }
        }
    }
}

/// Packed operands and the scores of a few queries, which hold the bias at first.
struct Tile<'t, L> {
    lanes: L,
    sizes: Sizes,
    keys: &'t [f32],
    values: &'t [f32],
    queries: &'t mut [f32],
    scores: &'t mut [f32],
}

impl<L: FloatLanes> Tile<'_, L> {
    /// Computes `R` queries and hands out their results in runs: `(row, column, values)`.
    fn compute<const R: usize>(&mut self, store: &mut impl FnMut(usize, usize, &[f32])) {
        let (lanes, s) = (self.lanes, self.sizes);
        for (block, blocks) in runs::<L>(s.padded / LANES) {
            let body = Scores::<L, R, 1> {
                lanes,
                queries: self.queries,
                depth: s.depth,
                keys: &self.keys[block * LANES * s.depth..],
                scores: &mut self.scores[block * LANES..],
                stride: s.stride,
            };
            match blocks {
                3 => lanes.call(body.blocks::<3>()),
                2 => lanes.call(body.blocks::<2>()),
                _ => lanes.call(body),
            }
        }
        let factors = lanes.call(Weights::<L, R> {
            lanes,
            scores: self.scores,
            keys: s.padded,
            stride: s.stride,
        });
        for (block, blocks) in runs::<L>(s.width / LANES) {
            let body = Results::<L, R, 1> {
                lanes,
                weights: self.scores,
                stride: s.stride,
                values: &self.values[block * LANES * s.keys..],
                keys: s.keys,
                factors,
            };
            let column = block * LANES;
            let mut hand_out = |r: usize, values: &[f32]| store(r, column, values);
            match blocks {
                3 => each(&lanes.call(body.blocks::<3>()), &mut hand_out),
                2 => each(&lanes.call(body.blocks::<2>()), &mut hand_out),
                _ => each(&lanes.call(body), &mut hand_out),
            }
        }
    }
}

/// Calls `f` with the number and the values of each row.
fn each<const R: usize, const B: usize>(
    rows: &[[[f32; LANES]; B]; R],
    f: &mut impl FnMut(usize, &[f32]),
) {
    for (r, row) in rows.iter().enumerate() {
        f(r, row.as_flattened());
    }
}

/// Runs of blocks, `(first, count)`, as many at a time as the registers hold.
fn runs<L: FloatLanes>(blocks: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = if L::WIDE { 3 } else { 1 };
    (0..blocks)
        .step_by(most)
        .map(move |first| (first, most.min(blocks - first)))
}

/// Adds products of `R` queries with `B` blocks of keys to the scores.
struct Scores<'t, L, const R: usize, const B: usize> {
    lanes: L,
    queries: &'t [f32],
    depth: usize,
    keys: &'t [f32],
    scores: &'t mut [f32],
    stride: usize,
}

impl<'t, L, const R: usize> Scores<'t, L, R, 1> {
    fn blocks<const B: usize>(self) -> Scores<'t, L, R, B> {
        let Scores {
            lanes,
            queries,
            depth,
            keys,
            scores,
            stride,
        } = self;
        Scores {
            lanes,
            queries,
            depth,
            keys,
            scores,
            stride,
        }
    }
}

impl<L: FloatLanes, const R: usize, const B: usize> Loop for Scores<'_, L, R, B> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let lanes = self.lanes;
        let mut start = [[lanes.splat(0.0); B]; R];
        for r in 0..R {
            let row = self.scores[r * self.stride..].as_chunks::<LANES>().0;
            for b in 0..B {
                start[r][b] = lanes.load(&row[b]);
            }
        }
        let sums = lanes.products(self.queries, self.depth, self.keys, self.depth, start);
        for r in 0..R {
            let row = self.scores[r * self.stride..].as_chunks_mut::<LANES>().0;
            for b in 0..B {
                lanes.store(sums[r][b], &mut row[b]);
            }
        }
    }
}

/// Turns scores of `R` queries into weights; gives what the weighted sums are to be multiplied by.
struct Weights<'t, L, const R: usize> {
    lanes: L,
    scores: &'t mut [f32],
    keys: usize,
    stride: usize,
}

impl<L: FloatLanes, const R: usize> Loop for Weights<'_, L, R> {
    type Output = [f32; R];

    #[inline(always)]
    fn run(self) -> [f32; R] {
        let lanes = self.lanes;
        let mut factors = [0.0; R];
        for r in 0..R {
            let row = &mut self.scores[r * self.stride..][..self.keys];
            let row = row.as_chunks_mut::<LANES>().0;
            let mut max = lanes.splat(f32::NEG_INFINITY);
            for scores in row.iter() {
                max = lanes.max(max, lanes.load(scores));
            }
            let max = lanes.splat(lanes.largest(max));
            let mut sum = lanes.splat(0.0);
            for scores in row.iter_mut() {
                let weights = lanes.exp2(lanes.sub(lanes.load(scores), max));
                sum = lanes.add(sum, weights);
                lanes.store(weights, scores);
            }
            factors[r] = 1.0 / lanes.sum(sum);
        }
        factors
    }
}

/// Weighted sums of `B` blocks of values for `R` queries.
struct Results<'t, L, const R: usize, const B: usize> {
    lanes: L,
    weights: &'t [f32],
    stride: usize,
    values: &'t [f32],
    keys: usize,
    factors: [f32; R],
}

impl<'t, L, const R: usize> Results<'t, L, R, 1> {
    fn blocks<const B: usize>(self) -> Results<'t, L, R, B> {
        let Results {
            lanes,
            weights,
            stride,
            values,
            keys,
            factors,
        } = self;
        Results {
            lanes,
            weights,
            stride,
            values,
            keys,
            factors,
        }
    }
}

impl<L: FloatLanes, const R: usize, const B: usize> Loop for Results<'_, L, R, B> {
    type Output = [[[f32; LANES]; B]; R];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let lanes = self.lanes;
        let start = [[lanes.splat(0.0); B]; R];
        let sums = lanes.products(self.weights, self.stride, self.values, self.keys, start);
        let mut out = [[[0.0; LANES]; B]; R];
        for r in 0..R {
            let factor = lanes.splat(self.factors[r]);
            for b in 0..B {
                lanes.store(lanes.mul(sums[r][b], factor), &mut out[r][b]);
            }
        }
        out
    }
}
