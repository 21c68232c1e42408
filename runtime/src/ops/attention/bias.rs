//! What is added to the scores.

use serde::{Deserialize, Serialize};

use super::{Geometry, size_bias};

/// Bias of the places behind the last key, which get no weight.
pub const BARRED: f32 = -1_267_650_600_228_229_401_496_703_205_376.0; // −2¹⁰⁰
/// Largest magnitude of any other bias.
pub const MAX_BIAS: f32 = 1_208_925_819_614_629_174_706_176.0; // 2⁸⁰
/// Rows of a full bias are padded to a multiple of this many keys.
pub(crate) const LANES: usize = 16;

/// How a bias is stored: f32, in octaves (natural logarithm times log2 e).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BiasLayout {
    /// One row per query, of as many values as there are keys, then [`BARRED`] up to a multiple of 16.
    Full {
        /// Distance along each outer index, in values.
        outer: [u32; 4],
    },
    /// One value per offset of key and query: `[2H − 1][2W − 1]` for `H × W` tokens, at
    /// `[key row − query row + H − 1][key column − query column + W − 1]`, then 16 unused values.
    Relative {
        /// Distance along each outer index, in values.
        outer: [u32; 4],
    },
}

/// A bias with its values.
#[derive(Debug, Clone, Copy)]
pub struct Bias<'a> {
    /// The values.
    pub values: &'a [f32],
    /// Their order.
    pub layout: BiasLayout,
}

impl Bias<'_> {
    /// Whether the values reach wherever the geometry asks for some.
    pub fn fits(&self, g: &Geometry) -> bool {
        let (outer, size) = match self.layout {
            BiasLayout::Full { outer } => {
                let row = g.key_count().next_multiple_of(LANES);
                if outer.iter().any(|&step| step as usize % row != 0) {
                    return false;
                }
                (outer, g.query_count().saturating_mul(row))
            }
            BiasLayout::Relative { outer } => {
                let [h, w] = g.keys.map(|n| n as usize);
                if g.keys != g.queries {
                    return false;
                }
                (outer, (2 * h - 1) * (2 * w - 1) + LANES)
            }
        };
        let last = (0..4)
            .map(|d| u128::from(g.outer[d].saturating_sub(1)) * u128::from(outer[d]))
            .sum::<u128>();
        last + size as u128 <= self.values.len() as u128
    }

    /// Whether every value is one that arithmetic may meet.
    pub fn is_sound(&self, g: &Geometry) -> bool {
        let small = |v: &f32| v.abs() <= MAX_BIAS;
        match self.layout {
            BiasLayout::Relative { .. } => self.values.iter().all(small),
            BiasLayout::Full { .. } => {
                let keys = g.key_count();
                self.values.chunks(keys.next_multiple_of(LANES)).all(|row| {
                    let (real, pad) = row.split_at(keys.min(row.len()));
                    real.iter().all(small) && pad.iter().all(|&v| v == BARRED)
                })
            }
        }
    }

    /// First value of one outer index.
    pub(crate) fn base(&self, index: [u32; 4]) -> usize {
        let (BiasLayout::Full { outer } | BiasLayout::Relative { outer }) = self.layout;
        let steps = outer.iter().zip(index);
        steps.map(|(&s, i)| s as usize * i as usize).sum()
    }

    /// The bias of one query and key.
    pub fn at(&self, g: &Geometry, index: [u32; 4], i: usize, j: usize) -> f32 {
        let base = self.base(index);
        match &self.layout {
            BiasLayout::Full { .. } => {
                self.values[base + i * g.key_count().next_multiple_of(LANES) + j]
            }
            BiasLayout::Relative { .. } => {
                let ([qy, qx], [ky, kx]) = (g.query(i), g.key(j));
                let [h, w] = g.keys;
                let (dy, dx) = ((ky + h - 1 - qy) as usize, (kx + w - 1 - qx) as usize);
                self.values[base + dy * (2 * w as usize - 1) + dx]
            }
        }
    }

    /// Writes the row of a query, padded, to the start of `row`, which has at least 16 values more: they
    /// are overwritten too.
    #[inline(always)]
    pub(crate) fn row(&self, g: &Geometry, index: [u32; 4], i: usize, row: &mut [f32]) {
        let base = self.base(index);
        let keys = g.key_count();
        let padded = keys.next_multiple_of(LANES);
        match &self.layout {
            BiasLayout::Full { .. } => {
                row[..padded].copy_from_slice(&self.values[base + i * padded..][..padded]);
            }
            BiasLayout::Relative { .. } => {
                let [qy, qx] = g.query(i).map(|n| n as usize);
                let [h, w] = g.keys.map(|n| n as usize);
                let pitch = 2 * w - 1;
                let table = &self.values[base + (h - 1 - qy) * pitch + w - 1 - qx..];
                if w <= LANES {
                    // Whole chunks: what is too much lies under the next line or behind the row.
                    for y in 0..h {
                        if let (Some(from), Some(to)) = (
                            table[y * pitch..].first_chunk::<LANES>(),
                            row[y * w..].first_chunk_mut::<LANES>(),
                        ) {
                            *to = *from;
                        }
                    }
                } else {
                    for y in 0..h {
                        row[y * w..][..w].copy_from_slice(&table[y * pitch..][..w]);
                    }
                }
                row[keys..padded].fill(BARRED);
            }
        }
    }
}

/// Writes the row of every query of an attention without a bias of its own, padded.
pub(crate) fn shared_row(sizes: Option<&[i32]>, keys: usize, row: &mut [f32]) {
    row.fill(BARRED);
    row[..keys].fill(0.0);
    for (bias, &size) in row[..keys].iter_mut().zip(sizes.unwrap_or_default()) {
        *bias = size_bias(size);
    }
}
