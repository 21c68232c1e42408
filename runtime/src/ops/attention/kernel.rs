//! One kernel for every instruction set with 16 lanes' worth of operations ([`Lanes`]).
//!
//! Per window and head, keys and values are packed like a convolution's weights, which makes both
//! products the same kernel. Queries go through in tiles: scores, weights, values.

use core::ops::Range;

use super::bias::{BARRED, BiasLayout, LANES, shared_row};
use super::lanes::{Lanes, Plain};
use super::scratch::{Scratch, Sizes, scratch_bytes};
use super::{AttentionI8, EXP2, LOWEST, sizes_fit};
#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64;
#[cfg(wasm_simd128)]
use crate::arch::wasm32;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86::attention as x86;
use crate::error::Error;
use crate::isa::Capability;
use crate::numerics::MAGIC;
use crate::ops::conv::QUAD;
use crate::ops::length::at_least;

/// Rows of a tile where registers are many, and where they are few.
const WIDE_ROWS: usize = 7;
const NARROW_ROWS: usize = 5;

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
    if !fits || !sizes_fit(op.sizes, op.bias, g) {
        return Err(Error::Length {
            expected: g.query_count(),
            got: y.len(),
        });
    }
    // The parts of the working memory are words.
    let padding = scratch.as_ptr().align_offset(4);
    at_least(scratch_bytes(g).saturating_add(padding), scratch.len())?;
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
        #[cfg(target_arch = "aarch64")]
        Capability::Neon(token) => aarch64::attention_neon(token, call),
        #[cfg(target_arch = "aarch64")]
        Capability::Dotprod(token) => aarch64::attention_dotprod(token, call),
        #[cfg(target_arch = "aarch64")]
        Capability::I8mm(token) => aarch64::attention_dotprod(token.dotprod(), call),
        #[cfg(wasm_simd128)]
        Capability::Simd128(token) => wasm32::attention(token, call),
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
            start: part.start,
        };
        if op.bias.is_none() {
            let row = &mut work.scratch.bias[..sizes.keys];
            shared_row(op.sizes, g.key_count(), row);
        }
        for number in 0..g.outer_count() {
            let index = g.outer_index(number);
            let queries = g.queries_within(index, &part);
            if queries.is_empty() {
                continue;
            }
            work.pack_keys(k, index);
            work.pack_values(v, index);
            for block in blocks(queries, g.queries[1] as usize) {
                work.block(q, y, index, block);
            }
        }
    }
}

/// A rectangle of queries.
#[derive(Clone)]
struct Block {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Consecutive queries of rows of so many: the rest of a row, whole rows, the beginning of a row.
fn blocks(queries: Range<usize>, across: usize) -> impl Iterator<Item = Block> {
    let whole = queries.start.next_multiple_of(across)..queries.end / across * across;
    let within = |part: Range<usize>| Block {
        rows: part.start / across..part.start / across + 1,
        columns: part.start % across..part.start % across + part.len(),
    };
    let cut = whole.start > whole.end;
    let head = queries.start..if cut { queries.end } else { whole.start };
    let tail = if cut { 0..0 } else { whole.end..queries.end };
    let middle = Block {
        rows: whole.start / across..whole.end / across,
        columns: 0..across,
    };
    let all = [within(head), middle, within(tail)];
    all.into_iter()
        .filter(|b| !b.rows.is_empty() && !b.columns.is_empty())
}

/// A tile of queries.
#[derive(Clone, Copy)]
struct Place<'b> {
    index: [u32; 4],
    /// Rows of the attention's first token.
    q: usize,
    y: usize,
    block: &'b Block,
    /// First query, counted column by column: those of a column have much of a relative bias in common.
    first: usize,
}

struct Work<'a, 'c, 's, L> {
    lanes: L,
    op: &'a AttentionI8<'c>,
    sizes: Sizes,
    scratch: Scratch<'s>,
    /// First value of the part.
    start: usize,
}

impl<L: Lanes> Work<'_, '_, '_, L> {
    /// Queries of one attention, whose keys and values are packed.
    #[inline(always)]
    fn block(&mut self, q: &[i8], y: &mut [i8], index: [u32; 4], block: Block) {
        let g = &self.op.geometry;
        let queries = block.rows.len() * block.columns.len();
        let mut at = Place {
            index,
            q: g.q.row(index, [0, 0]),
            y: g.y.row(index, [0, 0]),
            block: &block,
            first: 0,
        };
        let rows = if L::WIDE { WIDE_ROWS } else { NARROW_ROWS };
        if queries < rows {
            for i in 0..queries {
                at.first = i;
                self.tile::<1>(q, y, at);
            }
            return;
        }
        for i in (0..queries).step_by(rows) {
            // The last tile computes some queries again.
            at.first = i.min(queries - rows);
            if L::WIDE {
                self.tile::<WIDE_ROWS>(q, y, at);
            } else {
                self.tile::<NARROW_ROWS>(q, y, at);
            }
        }
    }

    /// Packs the keys of one attention, and what their sums take off the scores.
    #[inline(always)]
    fn pack_keys(&mut self, k: &[i8], index: [u32; 4]) {
        let (lanes, g) = (self.lanes, &self.op.geometry);
        let (depth, quads) = (g.depth as usize, self.sizes.depth_quads);
        let (keys, block_bytes) = (g.key_count(), quads * QUAD * LANES);
        // The sums come from products with a row of this value.
        let shifted_zero = (i32::from(self.op.q_zero) + 128) as u8;
        let ones = &mut self.scratch.queries[..quads * QUAD];
        ones.fill(shifted_zero);
        let mut starts = g.k.rows(index, g.keys[1]);
        let offsets = self.scratch.offsets.as_chunks_mut::<LANES>().0;
        let blocks = self.scratch.keys.chunks_exact_mut(block_bytes);
        for (b, (block, offsets)) in blocks.zip(offsets).enumerate() {
            for group in 0..LANES / QUAD {
                let mut rows = [&[][..]; QUAD];
                for (i, row) in rows.iter_mut().enumerate() {
                    if b * LANES + group * QUAD + i < keys {
                        *row = &k[starts.advance()..][..depth];
                    }
                }
                for at in (0..depth).step_by(LANES) {
                    let parts = lanes.transpose(rows.map(|row| chunk(row, at)));
                    let to = block.as_chunks_mut::<{ QUAD * LANES }>().0[at / QUAD..].iter_mut();
                    for (to, part) in to.zip(parts) {
                        to.as_chunks_mut::<LANES>().0[group] = part;
                    }
                }
            }
            let [[sums]] = lanes.products::<1, 1>(ones, 0, block, quads, [lanes.splat_i32(0)]);
            lanes.store_ints(lanes.sub_i32(lanes.splat_i32(0), sums), offsets);
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
                if quad * QUAD + i < keys {
                    *row = &v[starts.advance()..][..width];
                }
            }
            for b in 0..self.sizes.value_blocks {
                let parts = rows.map(|row| chunk(row, b * LANES));
                let at = b * block_bytes + quad * QUAD * LANES;
                if let Some(to) = self.scratch.values[at..].first_chunk_mut() {
                    self.lanes.interleave(parts, to);
                }
            }
        }
    }

    /// `R` queries.
    #[inline(always)]
    fn tile<const R: usize>(&mut self, q: &[i8], y: &mut [i8], at: Place<'_>) {
        let g = &self.op.geometry;
        let depth = g.depth as usize;
        let Block { rows, columns } = at.block;
        let (mut row, mut column) = (
            rows.start + at.first % rows.len(),
            columns.start + at.first / rows.len(),
        );
        let mut tokens = [[0; 2]; R];
        for token in &mut tokens {
            *token = [row, column];
            row += 1;
            if row == rows.end {
                (row, column) = (rows.start, column + 1);
            }
        }
        for (r, token) in tokens.iter().enumerate() {
            let row = &q[at.q + g.q.step(*token)..][..depth];
            let to = &mut self.scratch.queries[r * self.sizes.query_stride..][..depth];
            shift(row, to);
        }
        let bias = self.bias_rows(&tokens, at.index, at.block.rows.end);
        let max = self.scores::<R>(bias);
        let totals = self.weights(max);
        let mut rows = [at.y; R];
        for r in 0..R {
            rows[r] = rows[r] + g.y.step(tokens[r]) - self.start;
        }
        self.results::<R>(totals, y, rows);
    }

    /// Where the tile's rows of the bias start, in [`Work::bias`]. Rows of a relative one are laid out: for
    /// the queries of a column they begin a line of keys apart in one strip.
    #[inline(always)]
    fn bias_rows<const R: usize>(
        &mut self,
        tokens: &[[usize; 2]; R],
        index: [u32; 4],
        end_row: usize,
    ) -> [usize; R] {
        let Some(bias) = self.op.bias else {
            return [0; R];
        };
        let base = bias.base(index);
        let [h, w] = self.op.geometry.keys.map(|n| n as usize);
        let mut starts = [0; R];
        if let BiasLayout::Full { .. } = bias.layout {
            let across = self.op.geometry.queries[1] as usize;
            for (start, [row, column]) in starts.iter_mut().zip(tokens) {
                *start = base + (row * across + column) * self.sizes.keys;
            }
            return starts;
        }
        let (mut first, mut end) = (0, 0);
        while first < R {
            let [row, column] = tokens[first];
            let run = (R - first).min(end_row - row);
            let lines = h + run - 1;
            let line = base + (h - row - run) * (2 * w - 1) + w - 1 - column;
            let strip = &mut self.scratch.bias[end..];
            copy_lines(&bias.values[line..], 2 * w - 1, strip, w, lines);
            for (r, start) in starts[first..][..run].iter_mut().enumerate() {
                *start = end + (run - 1 - r) * w;
            }
            (first, end) = (first + run, end + lines * w);
        }
        starts
    }

    /// Scores in octaves, and the largest of each lane.
    #[inline(always)]
    fn scores<const R: usize>(&mut self, bias: [usize; R]) -> [L::Float; R] {
        let blocks = self.sizes.keys / LANES;
        let mut max = [self.lanes.splat(f32::NEG_INFINITY); R];
        let mut block = 0;
        if L::WIDE {
            while block + 2 <= blocks {
                self.score_blocks::<R, 2>(block, &bias, &mut max);
                block += 2;
            }
        }
        while block < blocks {
            self.score_blocks::<R, 1>(block, &bias, &mut max);
            block += 1;
        }
        max
    }

    /// Scores of `B` blocks of keys.
    #[inline(always)]
    fn score_blocks<const R: usize, const B: usize>(
        &mut self,
        block: usize,
        rows: &[usize; R],
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
        let bias = match self.op.bias {
            Some(bias) if matches!(bias.layout, BiasLayout::Full { .. }) => bias.values,
            _ => &self.scratch.bias[..],
        };
        // Places behind the last key, whatever the bias is there.
        let count = self.op.geometry.key_count() - block * LANES;
        let mut limits = [f32::INFINITY; 2 * LANES];
        if count < B * LANES {
            limits[count..].fill(BARRED);
        }
        let limits = limits.as_chunks::<LANES>().0;
        for r in 0..R {
            let scores = &mut self.scratch.scores[r * s.keys + block * LANES..][..B * LANES];
            let scores = scores.as_chunks_mut::<LANES>().0;
            let bias = &bias[rows[r] + block * LANES..][..B * LANES];
            let bias = bias.as_chunks::<LANES>().0;
            for b in 0..B {
                let t = lanes.mul(lanes.convert(sums[r][b]), multiplier);
                let mut t = lanes.add(t, lanes.floats(&bias[b]));
                if count < B * LANES {
                    t = lanes.min(t, lanes.floats(&limits[b]));
                }
                lanes.store(t, &mut scores[b]);
                max[r] = lanes.max(max[r], t);
            }
        }
    }

    /// Weights of the tile's queries from their scores; gives their sums.
    #[inline(always)]
    fn weights<const R: usize>(&mut self, max: [L::Float; R]) -> [i32; R] {
        let (lanes, s) = (self.lanes, &self.sizes);
        // All at once: these take long, but not from one another.
        let mut largest = [0.0; R];
        for r in 0..R {
            largest[r] = lanes.largest(max[r]);
        }
        let mut totals = [0; R];
        for r in 0..R {
            let (max, mut sum) = (lanes.splat(largest[r]), lanes.splat_i32(0));
            let scores = &self.scratch.scores[r * s.keys..][..s.keys];
            let weights = &mut self.scratch.weights[r * s.keys..][..s.keys];
            let (scores, last_scores) = scores.as_chunks::<{ QUAD * LANES }>();
            let (weights, last_weights) = weights.as_chunks_mut::<{ QUAD * LANES }>();
            for (weights, scores) in weights.iter_mut().zip(scores) {
                let scores = scores.as_chunks::<LANES>().0;
                let mut codes = [sum; QUAD];
                for (code, score) in codes.iter_mut().zip(scores) {
                    *code = exp2_codes(lanes, lanes.sub(lanes.floats(score), max));
                    sum = lanes.add_i32(sum, *code);
                }
                lanes.pack(codes, weights);
            }
            let weights = last_weights.as_chunks_mut::<LANES>().0;
            for (weights, score) in weights.iter_mut().zip(last_scores.as_chunks::<LANES>().0) {
                let code = exp2_codes(lanes, lanes.sub(lanes.floats(score), max));
                sum = lanes.add_i32(sum, code);
                *weights = lanes.low_bytes(code);
            }
            // Each code came with the bits of `MAGIC`.
            let surplus = (s.keys as i32).wrapping_mul(MAGIC.to_bits() as i32);
            totals[r] = lanes.sum(sum).wrapping_sub(surplus);
        }
        totals
    }

    /// Weighted sums of the values, normalised and stored.
    #[inline(always)]
    fn results<const R: usize>(&mut self, totals: [i32; R], y: &mut [i8], rows: [usize; R]) {
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

/// [`exp2_code`](super::exp2_code), lane by lane, with the bits of [`MAGIC`].
#[inline(always)]
fn exp2_codes<L: Lanes>(lanes: L, d: L::Float) -> L::Int {
    let magic = lanes.splat(MAGIC);
    let [c3, c2, c1, c0] = EXP2;
    let d = lanes.max(d, lanes.splat(LOWEST));
    let whole = lanes.add(d, magic);
    let f = lanes.sub(d, lanes.sub(whole, magic));
    let p = lanes.add(lanes.mul(lanes.splat(c3), f), lanes.splat(c2));
    let p = lanes.add(lanes.mul(p, f), lanes.splat(c1));
    let p = lanes.add(lanes.mul(p, f), lanes.splat(c0));
    let scaled = lanes.add_i32(lanes.bits(p), lanes.to_exponent(lanes.bits(whole)));
    lanes.bits(lanes.add(lanes.floats_of(scaled), magic))
}

/// Sixteen values from `at` on, zeros behind the last.
#[inline(always)]
fn chunk(row: &[i8], at: usize) -> [i8; LANES] {
    let row = row.get(at..).unwrap_or_default();
    row.first_chunk().copied().unwrap_or_else(|| {
        let mut part = [0; LANES];
        part[..row.len()].copy_from_slice(row);
        part
    })
}

/// Writes `row + 128` to `to`, which is as long.
#[inline(always)]
fn shift(row: &[i8], to: &mut [u8]) {
    let (whole, rest) = row.as_chunks::<LANES>();
    let (to, last) = to.as_chunks_mut::<LANES>();
    for (to, values) in to.iter_mut().zip(whole) {
        *to = values.map(|v| v as u8 ^ 0x80);
    }
    for (to, &v) in last.iter_mut().zip(rest) {
        *to = v as u8 ^ 0x80;
    }
}

/// Copies lines of `width` values that begin `pitch` apart next to each other. 16 values behind the last
/// may be overwritten, and are there.
#[inline(always)]
fn copy_lines(from: &[f32], pitch: usize, to: &mut [f32], width: usize, lines: usize) {
    if width > LANES {
        for y in 0..lines {
            to[y * width..][..width].copy_from_slice(&from[y * pitch..][..width]);
        }
        return;
    }
    // Whole chunks: what is too much lies under the next line or behind the last.
    for y in 0..lines {
        if let (Some(from), Some(to)) = (
            from[y * pitch..].first_chunk::<LANES>(),
            to[y * width..].first_chunk_mut::<LANES>(),
        ) {
            *to = *from;
        }
    }
}
