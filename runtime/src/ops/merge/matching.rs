//! Pairs of similar tokens.

use super::{Matching, ordered};
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::length::{at_least, expect};
use crate::ops::vectorize::{Loop, run};

/// Lanes that float products are summed in.
const LANES: usize = 16;

/// Type of keys.
pub trait Key: Copy {
    /// Type of a sum over heads.
    type Metric: bytemuck::Pod;
    /// Adds a key's value less the zero point.
    fn add(sum: Self::Metric, key: Self, zero: i32) -> Self::Metric;
    /// Product of two rows of equal length.
    fn dot(a: &[Self::Metric], b: &[Self::Metric]) -> f32;
}

impl Key for i8 {
    type Metric = i16;

    #[inline(always)]
    fn add(sum: i16, key: i8, zero: i32) -> i16 {
        sum.wrapping_add((i32::from(key) - zero) as i16)
    }

    #[inline(always)]
    fn dot(a: &[i16], b: &[i16]) -> f32 {
        let products = a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b));
        products.fold(0i32, i32::wrapping_add) as f32
    }
}

impl Key for f32 {
    type Metric = f32;

    #[inline(always)]
    fn add(sum: f32, key: f32, _zero: i32) -> f32 {
        sum + key
    }

    #[inline(always)]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                *lane += a * b;
            }
        }
        lanes.into_iter().fold(0.0, |sum, lane| sum + lane)
    }
}

/// Finds the place of every token among those that are left; see the module's contract.
///
/// # Errors
///
/// [`Error::Length`] when the keys do not fit, `places` is not one per token, or `scratch` is too short
/// or not aligned to 8 bytes.
pub fn match_tokens<K: Key>(
    cap: Capability,
    matching: &Matching,
    zero: i32,
    keys: &[K],
    places: &mut [i32],
    scratch: &mut [u8],
) -> Result<(), Error> {
    let tokens = matching.tokens as usize;
    let short = Error::Length {
        expected: tokens,
        got: places.len(),
    };
    if !matching.fits(keys.len()) {
        return Err(short);
    }
    expect(tokens, places.len())?;
    let need = matching.scratch_bytes::<K>();
    at_least(need, scratch.len())?;
    let movers = matching.movers().count();
    let (ranks, rest) = scratch[..need].split_at_mut(movers * 8);
    let (best, rest) = rest.split_at_mut(movers * 4);
    let (inverse, metric) = rest.split_at_mut(tokens * 4);
    let call = Call {
        matching,
        zero,
        keys,
        places,
        ranks: bytemuck::try_cast_slice_mut(ranks).map_err(|_| short)?,
        best: bytemuck::try_cast_slice_mut(best).map_err(|_| short)?,
        inverse: bytemuck::try_cast_slice_mut(inverse).map_err(|_| short)?,
        metric: bytemuck::try_cast_slice_mut(metric).map_err(|_| short)?,
    };
    run(cap, call);
    Ok(())
}

struct Call<'a, K: Key> {
    matching: &'a Matching,
    zero: i32,
    keys: &'a [K],
    places: &'a mut [i32],
    /// Per mover its score, inverted, above its number.
    ranks: &'a mut [u64],
    /// Per mover the token that it would join.
    best: &'a mut [u32],
    /// Per token one over the length of its metric.
    inverse: &'a mut [f32],
    /// Per token the sum of its keys.
    metric: &'a mut [K::Metric],
}

impl<K: Key> Loop for Call<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        self.measure();
        self.pair();
        let merged = self.matching.merged as usize;
        if merged < self.ranks.len() {
            // Numbers make all of them different.
            self.ranks.select_nth_unstable(merged);
        }
        self.place(merged);
    }
}

impl<K: Key> Call<'_, K> {
    #[inline(always)]
    fn measure(&mut self) {
        let m = self.matching;
        let depth = m.depth as usize;
        let rows = self.metric.chunks_exact_mut(depth);
        for (i, (row, inverse)) in rows.zip(self.inverse.iter_mut()).enumerate() {
            row.fill(bytemuck::Zeroable::zeroed());
            for head in 0..m.heads as usize {
                let key = &self.keys[m.key(head, i)..][..depth];
                for (sum, &k) in row.iter_mut().zip(key) {
                    *sum = K::add(*sum, k, self.zero);
                }
            }
            *inverse = inverse_length(K::dot(row, row));
        }
    }

    #[inline(always)]
    fn pair(&mut self) {
        let m = self.matching;
        let depth = m.depth as usize;
        for (number, i) in m.movers().enumerate() {
            let row = &self.metric[i * depth..][..depth];
            let (mut best, mut largest) = (usize::MAX, 0.0);
            for j in m.partners() {
                let t = K::dot(row, &self.metric[j * depth..][..depth]) * self.inverse[j];
                if best == usize::MAX || t > largest {
                    (best, largest) = (j, t);
                }
            }
            self.best[number] = best as u32;
            let score = ordered(largest * self.inverse[i]);
            self.ranks[number] = u64::from(!score) << 32 | number as u64;
        }
    }

    fn place(&mut self, merged: usize) {
        let m = self.matching;
        const JOINS: i32 = -1;
        let protected = (m.protected as usize).min(self.places.len());
        for (i, place) in self.places.iter_mut().enumerate() {
            *place = i as i32;
        }
        let first = m.protected.next_multiple_of(2) as usize;
        for &rank in &self.ranks[..merged] {
            self.places[first + 2 * (rank as u32 as usize)] = JOINS;
        }
        let mut next = protected as i32;
        for i in m.movers().chain(m.partners()) {
            if self.places[i] != JOINS {
                self.places[i] = next;
                next += 1;
            }
        }
        for (number, i) in m.movers().enumerate() {
            if self.places[i] == JOINS {
                self.places[i] = self.places[self.best[number] as usize];
            }
        }
    }
}

/// One over the square root, and 0 for what has no length.
#[inline(always)]
pub(super) fn inverse_length(square: f32) -> f32 {
    match square > 0.0 {
        true => 1.0 / libm::sqrtf(square),
        false => 0.0,
    }
}
