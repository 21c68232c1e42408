//! Float attention: keys transposed once per attention, so that all loops run along keys or values.

use super::bias::{LANES, shared_row};
use super::{Bias, Geometry, sizes_fit};
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::at_least;
use crate::ops::unary::fast::exp;
use crate::ops::vectorize::{Loop, run};

/// Values whose sums are held at once: the rows of a usual head.
const CHUNK: usize = 32;

/// Bytes that [`attention_f32`] needs: transposed keys, a row of scores, a row of the bias.
///
/// `usize::MAX`, which nobody has, where a 32-bit `usize` can't count them.
pub fn scratch_bytes(g: &Geometry) -> usize {
    let keys = g.key_count().next_multiple_of(LANES) as u64;
    let bytes = (keys * (u64::from(g.depth) + 2) + LANES as u64) * 4;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Computes the whole result; multiplier and bias are in octaves.
///
/// # Errors
///
/// [`Error::Length`] when an operand, the bias or `scratch` is too short for the geometry.
pub fn attention_f32(
    cap: Capability,
    geometry: &Geometry,
    multiplier: f32,
    bias: Option<Bias<'_>>,
    sizes: Option<&[i32]>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    y: &mut [f32],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let g = geometry;
    let short = Error::Length {
        expected: g.query_count(),
        got: y.len(),
    };
    let fits = g.fits(q.len(), k.len(), v.len(), y.len()) && bias.is_none_or(|b| b.fits(g));
    if !fits || !sizes_fit(sizes, bias, g) {
        return Err(short);
    }
    let need = scratch_bytes(g);
    let padding = scratch.as_ptr().align_offset(4);
    at_least(need.saturating_add(padding), scratch.len())?;
    let scratch =
        bytemuck::try_cast_slice_mut(&mut scratch[padding..padding + need]).map_err(|_| short)?;
    let keys = g.key_count().next_multiple_of(LANES);
    let (transposed, rest) = scratch.split_at_mut(keys * g.depth as usize);
    let (scores, row) = rest.split_at_mut(keys);
    run(
        cap,
        Attention {
            g,
            multiplier,
            bias,
            sizes,
            q,
            k,
            v,
            y,
            transposed,
            scores,
            row,
        },
    );
    Ok(())
}

struct Attention<'a> {
    g: &'a Geometry,
    multiplier: f32,
    bias: Option<Bias<'a>>,
    sizes: Option<&'a [i32]>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    y: &'a mut [f32],
    transposed: &'a mut [f32],
    scores: &'a mut [f32],
    row: &'a mut [f32],
}

impl Loop for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let g = self.g;
        let (keys, depth, width) = (g.key_count(), g.depth as usize, g.width as usize);
        let padded = self.scores.len();
        shared_row(self.sizes, keys, self.row);
        for number in 0..g.outer_count() {
            let index = g.outer_index(number);
            self.transposed.fill(0.0);
            for j in 0..keys {
                let key = &self.k[g.k.row(index, g.key(j))..][..depth];
                for (d, &k) in key.iter().enumerate() {
                    self.transposed[d * padded + j] = k;
                }
            }
            for i in 0..g.query_count() {
                let query = &self.q[g.q.row(index, g.query(i))..][..depth];
                let scores = &mut *self.scores;
                for (start, scores) in (0..).step_by(CHUNK).zip(scores.chunks_mut(CHUNK)) {
                    let lines = self.transposed.chunks_exact(padded).map(|l| &l[start..]);
                    weighted_sum(query.iter().copied().zip(lines), scores);
                }
                if let Some(bias) = &self.bias {
                    bias.row(g, index, i, self.row);
                }
                let bias = &self.row[..padded];
                for (s, &b) in scores.iter_mut().zip(bias) {
                    *s = *s * self.multiplier + b;
                }
                let max = fold(scores, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
                for s in scores.iter_mut() {
                    *s = exp((*s - max) * core::f32::consts::LN_2);
                }
                let inverse = 1.0 / fold(scores, 0.0, |a, b| a + b);
                let at = g.y.row(index, g.query(i));
                let out = &mut self.y[at..at + width];
                for (start, out) in (0..).step_by(CHUNK).zip(out.chunks_mut(CHUNK)) {
                    let value = |j: usize| &self.v[g.v.row(index, g.key(j)) + start..];
                    let weights = scores.iter().take(keys).enumerate();
                    weighted_sum(weights.map(|(j, &w)| (w, value(j))), out);
                    out.iter_mut().for_each(|y| *y *= inverse);
                }
            }
        }
    }
}

/// `out = Σ w · row` over pairs of weight and row, at most [`CHUNK`] values of each row.
#[inline(always)]
fn weighted_sum<'r>(pairs: impl Iterator<Item = (f32, &'r [f32])>, out: &mut [f32]) {
    let width = out.len();
    let mut sums = [0.0; CHUNK];
    if width == CHUNK {
        for (w, row) in pairs {
            let row: &[f32; CHUNK] = row.first_chunk().unwrap_or(&[0.0; CHUNK]);
            for c in 0..CHUNK {
                sums[c] += w * row[c];
            }
        }
    } else {
        for (w, row) in pairs {
            sums.iter_mut()
                .zip(&row[..width])
                .for_each(|(s, &v)| *s += w * v);
        }
    }
    out.copy_from_slice(&sums[..width]);
}

/// Folds values in interleaved lanes, then the lanes.
#[inline(always)]
fn fold(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    for chunk in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], chunk[i]);
        }
    }
    lanes.into_iter().fold(start, f)
}
