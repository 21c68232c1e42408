//! Float attention: keys transposed once per attention, so that all loops run along keys or values.

use super::bias::{BARRED, LANES};
use super::{Bias, Geometry};
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::at_least;
use crate::ops::unary::fast::exp;
use crate::ops::vectorize::{Loop, run};

/// Bytes that [`attention_f32`] needs: transposed keys, a row of scores, a row of the bias.
pub fn scratch_bytes(g: &Geometry) -> usize {
    let keys = g.key_count().next_multiple_of(LANES);
    (keys * (g.depth as usize + 2) + LANES) * 4
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
    if !g.fits(q.len(), k.len(), v.len(), y.len()) || bias.is_some_and(|b| !b.fits(g)) {
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
        self.row.fill(0.0);
        self.row[keys..].fill(BARRED);
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
                scores.fill(0.0);
                for (&q, line) in query.iter().zip(self.transposed.chunks_exact(padded)) {
                    scores.iter_mut().zip(line).for_each(|(s, &k)| *s += q * k);
                }
                let bias = match &self.bias {
                    Some(bias) => bias.row(g, index, i, self.row),
                    None => &self.row[..padded],
                };
                let mut max = f32::NEG_INFINITY;
                for (s, &b) in scores.iter_mut().zip(bias) {
                    *s = *s * self.multiplier + b;
                    max = if *s > max { *s } else { max };
                }
                let mut total = 0.0;
                for s in scores.iter_mut() {
                    *s = exp((*s - max) * core::f32::consts::LN_2);
                    total += *s;
                }
                let at = g.y.row(index, g.query(i));
                let out = &mut self.y[at..at + width];
                out.fill(0.0);
                for (j, &w) in scores.iter().enumerate().take(keys) {
                    let value = &self.v[g.v.row(index, g.key(j))..][..width];
                    out.iter_mut().zip(value).for_each(|(y, &v)| *y += w * v);
                }
                let inverse = 1.0 / total;
                out.iter_mut().for_each(|y| *y *= inverse);
            }
        }
    }
}
