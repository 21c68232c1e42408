//! One kernel for every instruction set with 16 lanes' worth of operations ([`Lanes`]).
//!
//! Per window and head, keys and values are packed like a convolution's weights, which makes both
//! products the same kernel. Queries go through in tiles: scores, weights, values.

use core::ops::Range;

use super::bias::{BARRED, LANES};
use super::lanes::{Lanes, Plain};
use super::scratch::{Scratch, Sizes, scratch_bytes};
use super::{AttentionI8, EXP2, LOWEST};
#[cfg(target_arch = "x86_64")]
use crate::arch::x86::attention as x86;
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::MAGIC;
use crate::ops::conv::QUAD;
use crate::ops::length::at_least;

/// Rows of a tile where registers are many, and where they are few.
const WIDE_ROWS: usize = 7;
const NARROW_ROWS: usize = 4;

/// Computes `y.len()` values of the result from value `first` on.
///
/// # Errors
///
/// [`Error::Length`] when an operand, the bias or `scratch` is too short for the geometry, or when the
/// part is neither the whole nor made of [`Geometry::grain`](super::Geometry::grain)s.
pub fn attention_i8(
    cap: Capability,
    op: &AttentionI8<'_>,
    q: &[i8],
    k: &[i8],
    v: &[i8],
    first: usize,
    y: &mut [i8],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let g = &op.geometry;
    let part = first..first.saturating_add(y.len());
    let fits = g.fits_part(q.len(), k.len(), v.len(), &part) && op.bias.is_none_or(|b| b.fits(g));
    if !fits {
        return Err(Error::Length {
            expected: g.query_count(),
            got: y.len(),
        });
    }
    at_least(scratch_bytes(g), scratch.len())?;
    let call = Call {
        op,
        q,
        k,
        v,
        part,
        y,
        scratch,
    };
    match cap {
        #[cfg(target_arch = "x86_64")]
        Capability::Avx2(token) => x86::avx2(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::AvxVnni(token) => x86::avxvnni(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::Avx512Vnni(token) => x86::avx512vnni(token, call),
        #[cfg(target_arch = "x86_64")]
        Capability::Amx(token) => x86::avx512vnni(token.avx512vnni(), call),
        _ => call.run(Plain),
    }
    Ok(())
}

/// A call whose operands fit.
pub(crate) struct Call<'a, 'c> {
    op: &'a AttentionI8<'c>,
    q: &'a [i8],
    k: &'a [i8],
    v: &'a [i8],
    part: Range<usize>,
    y: &'a mut [i8],
    scratch: &'a mut [u8],
}

impl Call<'_, '_> {
    /// All windows and heads.
    #[inline(always)]
    pub(crate) fn run<L: Lanes>(self, lanes: L) {
        let Call {
            op,
            q,
            k,
            v,
            part,
            y,
            scratch,
        } = self;
        let g = &op.geometry;
        let sizes = Sizes::new(g);
        let Some(scratch) = Scratch::new(&sizes, scratch) else {
            return;
        };
        let mut work = Work {
            lanes,
            op,
            sizes,
            scratch,
            first: part.start,
        };
        if op.bias.is_none() {
            let keys = g.key_count();
            for row in work.scratch.bias.chunks_exact_mut(sizes.keys) {
                row[..keys].fill(0.0);
                row[keys..].fill(BARRED);
            }
        }
        for number in 0..g.outer_count() {
            let index = g.outer_index(number);
            let queries = g.queries_within(index, &part);
            if queries.is_empty() {
                continue;
            }
            work.pack_keys(k, index);
            work.pack_values(v, index);
            let rows = if L::WIDE { WIDE_ROWS } else { NARROW_ROWS };
            if queries.len() < rows {
                for i in queries {
                    work.tile::<1>(q, y, index, i);
                }
                continue;
            }
            for i in queries.clone().step_by(rows) {
                // The last tile computes some queries again.
                let i = i.min(queries.end - rows);
                if L::WIDE {
                    work.tile::<WIDE_ROWS>(q, y, index, i);
                } else {
                    work.tile::<NARROW_ROWS>(q, y, index, i);
                }
            }
        }
    }
}

struct Work<'a, 'c, 's, L> {
    lanes: L,
    op: &'a AttentionI8<'c>,
    sizes: Sizes,
    scratch: Scratch<'s>,
    /// First value of the part.
    first: usize,
}

impl<L: Lanes> Work<'_, '_, '_, L> {
    /// Packs the keys of one attention, and what their sums take off the scores.
    #[inline(always)]
    fn pack_keys(&mut self, k: &[i8], index: [u32; 4]) {
        let g = &self.op.geometry;
        let (depth, quads) = (g.depth as usize, self.sizes.depth_quads);
        let shifted_zero = i32::from(self.op.q_zero) + 128;
        let mut rows = g.k.rows(index, g.keys[1]);
        let block_bytes = quads * QUAD * LANES;
        for (b, block) in self.scratch.keys.chunks_exact_mut(block_bytes).enumerate() {
            let block = block.as_chunks_mut::<{ QUAD * LANES }>().0;
            for lane in 0..LANES {
                let (j, slot) = (b * LANES + lane, lane * QUAD..(lane + 1) * QUAD);
                if j >= g.key_count() {
                    block
                        .iter_mut()
                        .for_each(|quads| quads[slot.clone()].fill(0));
                    self.scratch.offsets[j] = 0;
                    continue;
                }
                let row = &k[rows.advance()..][..depth];
                let sum: i32 = row.iter().map(|&k| i32::from(k)).sum();
                self.scratch.offsets[j] = -shifted_zero * sum;
                let (whole, rest) = row.as_chunks::<QUAD>();
                for (quads, quad) in block.iter_mut().zip(whole) {
                    quads[slot.clone()].copy_from_slice(quad);
                }
                if let (false, Some(quads)) = (rest.is_empty(), block.last_mut()) {
                    let (to, padding) = quads[slot].split_at_mut(rest.len());
                    to.copy_from_slice(rest);
                    padding.fill(0);
                }
            }
        }
    }

    /// Packs the values of one attention.
    #[inline(always)]
    fn pack_values(&mut self, v: &[i8], index: [u32; 4]) {
        let g = &self.op.geometry;
        let (width, keys, quads) = (g.width as usize, g.key_count(), self.sizes.key_quads);
        let block_bytes = quads * QUAD * LANES;
        let mut starts = g.v.rows(index, g.keys[1]);
        for quad in 0..quads {
            let mut rows = [&[][..]; QUAD];
            for (i, row) in rows.iter_mut().enumerate() {
                let j = quad * QUAD + i;
                if j < keys {
                    *row = &v[starts.advance()..][..width];
                }
            }
            for b in 0..self.sizes.value_blocks {
                let mut parts = [[0; LANES]; QUAD];
                for (part, row) in parts.iter_mut().zip(rows) {
                    chunk(row, b * LANES, part);
                }
                let at = b * block_bytes + quad * QUAD * LANES;
                if let Some(to) = self.scratch.values[at..].first_chunk_mut() {
                    self.lanes.interleave(&parts, to);
                }
            }
        }
    }

    /// `R` queries from `i` on.
    #[inline(always)]
    fn tile<const R: usize>(&mut self, q: &[i8], y: &mut [i8], index: [u32; 4], i: usize) {
        let g = &self.op.geometry;
        let depth = g.depth as usize;
        for r in 0..R {
            let row = &q[g.q.row(index, g.query(i + r))..][..depth];
            let to = &mut self.scratch.queries[r * self.sizes.query_stride..][..depth];
            to.iter_mut()
                .zip(row)
                .for_each(|(to, &q)| *to = q as u8 ^ 0x80);
        }
        // Long before they are read: each load sees several of the stores.
        if let Some(bias) = self.op.bias {
            for r in 0..R {
                let row = &mut self.scratch.bias[r * self.sizes.keys..];
                bias.row(g, index, i + r, row);
            }
        }
        let max = self.scores::<R>();
        let mut totals = [0; R];
        for r in 0..R {
            totals[r] = self.weights(r, max[r]);
        }
        self.results::<R>(totals, y, index, i);
    }

    /// Scores in octaves, and the largest of each lane.
    #[inline(always)]
    fn scores<const R: usize>(&mut self) -> [L::Float; R] {
        let blocks = self.sizes.keys / LANES;
        let mut max = [self.lanes.splat(f32::NEG_INFINITY); R];
        let mut block = 0;
        if L::WIDE {
            while block + 2 <= blocks {
                self.score_blocks::<R, 2>(block, &mut max);
                block += 2;
            }
        }
        while block < blocks {
            self.score_blocks::<R, 1>(block, &mut max);
            block += 1;
        }
        max
    }

    /// Scores of `B` blocks of keys.
    #[inline(always)]
    fn score_blocks<const R: usize, const B: usize>(
        &mut self,
        block: usize,
        max: &mut [L::Float; R],
    ) {
        let (lanes, s) = (self.lanes, &self.sizes);
        let block_bytes = s.depth_quads * QUAD * LANES;
        let offsets = &self.scratch.offsets.as_chunks::<LANES>().0[block..block + B];
        let mut start = [lanes.splat_i32(0); B];
        for b in 0..B {
            start[b] = lanes.ints(&offsets[b]);
        }
        let keys = &self.scratch.keys[block * block_bytes..];
        let queries = &self.scratch.queries[..];
        let sums = lanes.products::<R, B>(queries, s.query_stride, keys, s.depth_quads, start);
        let multiplier = lanes.splat(self.op.multiplier);
        for r in 0..R {
            let at = r * s.keys + block * LANES;
            let scores = &mut self.scratch.scores[at..][..B * LANES];
            let scores = scores.as_chunks_mut::<LANES>().0;
            let bias = self.scratch.bias[at..][..B * LANES].as_chunks::<LANES>().0;
            for b in 0..B {
                let t = lanes.mul(lanes.convert(sums[r][b]), multiplier);
                let t = lanes.add(t, lanes.floats(&bias[b]));
                lanes.store(t, &mut scores[b]);
                max[r] = lanes.max(max[r], t);
            }
        }
    }

    /// Weights of query `r` of the tile from its scores; gives their sum.
    #[inline(always)]
    fn weights(&mut self, r: usize, max: L::Float) -> i32 {
        let (lanes, s) = (self.lanes, &self.sizes);
        let scores = &self.scratch.scores[r * s.keys..][..s.keys];
        let scores = scores.as_chunks::<LANES>().0;
        let max = lanes.splat(lanes.largest(max));
        let (lowest, magic) = (lanes.splat(LOWEST), lanes.splat(MAGIC));
        let [c3, c2, c1, c0] = EXP2;
        let (c3, c2) = (lanes.splat(c3), lanes.splat(c2));
        let (c1, c0) = (lanes.splat(c1), lanes.splat(c0));
        let mut sum = lanes.splat_i32(0);
        let weights = &mut self.scratch.weights[r * s.keys..][..s.keys];
        for (weights, score) in weights
            .as_chunks_mut::<LANES>()
            .0
            .iter_mut()
            .zip(scores.iter())
        {
            // `exp2_code`, lane by lane.
            let d = lanes.max(lanes.sub(lanes.floats(score), max), lowest);
            let whole = lanes.add(d, magic);
            let f = lanes.sub(d, lanes.sub(whole, magic));
            let p = lanes.add(lanes.mul(c3, f), c2);
            let p = lanes.add(lanes.mul(p, f), c1);
            let p = lanes.add(lanes.mul(p, f), c0);
            let scaled = lanes.add_i32(lanes.bits(p), lanes.to_exponent(lanes.bits(whole)));
            let code = lanes.bits(lanes.add(lanes.floats_of(scaled), magic));
            sum = lanes.add_i32(sum, code);
            *weights = lanes.low_bytes(code);
        }
        // Each code came with the bits of `MAGIC`.
        let surplus = (s.keys as i32).wrapping_mul(MAGIC.to_bits() as i32);
        lanes.sum(sum).wrapping_sub(surplus)
    }

    /// Weighted sums of the values, normalised and stored.
    #[inline(always)]
    fn results<const R: usize>(
        &mut self,
        totals: [i32; R],
        y: &mut [i8],
        index: [u32; 4],
        i: usize,
    ) {
        let g = &self.op.geometry;
        let mut rows = [0; R];
        for r in 0..R {
            rows[r] = g.y.row(index, g.query(i + r)) - self.first;
        }
        let blocks = self.sizes.value_blocks;
        let mut block = 0;
        if L::WIDE {
            while block + 2 <= blocks {
                self.result_blocks::<R, 2>(&totals, y, &rows, block);
                block += 2;
            }
        }
        while block < blocks {
            self.result_blocks::<R, 1>(&totals, y, &rows, block);
            block += 1;
        }
    }

    /// Results of `B` blocks of values.
    #[inline(always)]
    fn result_blocks<const R: usize, const B: usize>(
        &mut self,
        totals: &[i32; R],
        y: &mut [i8],
        rows: &[usize; R],
        block: usize,
    ) {
        let (lanes, s) = (self.lanes, &self.sizes);
        let block_bytes = s.key_quads * QUAD * LANES;
        let values = &self.scratch.values[block * block_bytes..];
        let start = [lanes.splat_i32(0); B];
        let sums = lanes.products::<R, B>(self.scratch.weights, s.keys, values, s.key_quads, start);
        let v_zero = i32::from(self.op.v_zero);
        let base = lanes.splat(MAGIC + self.op.y_zero as f32);
        let (lo, hi) = (lanes.splat(MAGIC - 128.0), lanes.splat(MAGIC + 127.0));
        for r in 0..R {
            let zero = lanes.splat_i32(totals[r] * v_zero);
            let factor = lanes.splat(self.op.ratio / totals[r] as f32);
            let row = &mut y[rows[r]..][..self.op.geometry.width as usize];
            for b in 0..B {
                let t = lanes.mul(lanes.convert(lanes.sub_i32(sums[r][b], zero)), factor);
                let t = lanes.min(lanes.max(lanes.add(t, base), lo), hi);
                let codes = lanes.low_bytes(lanes.bits(t));
                let codes: [i8; LANES] = bytemuck::cast(codes);
                let to = &mut row[(block + b) * LANES..];
                match to.first_chunk_mut::<LANES>() {
                    Some(to) => *to = codes,
                    None => to.copy_from_slice(&codes[..to.len()]),
                }
            }
        }
    }
}

/// Copies 16 values from `at` on, fewer at the end.
#[inline(always)]
fn chunk(row: &[i8], at: usize, to: &mut [i8; LANES]) {
    let row = row.get(at..).unwrap_or_default();
    match row.first_chunk::<LANES>() {
        Some(chunk) => *to = *chunk,
        None => to[..row.len()].copy_from_slice(row),
    }
}
