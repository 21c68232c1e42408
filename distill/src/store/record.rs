//! The bytes of a record.

use half::f16;

use super::Kind;

/// Seed of a record whose picture could not be read; its other bytes are 0.
pub const MISSING: i32 = -1;

const SEED: usize = 4;

/// What a teacher says about a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Classes, for sparse logits; empty otherwise.
    pub indices: Vec<u16>,
    /// Values, in the order of the classes.
    pub values: Vec<f16>,
}

/// A record of a store.
#[derive(Debug, Clone, Copy)]
pub struct Record<'s> {
    bytes: &'s [u8],
    values: usize,
}

impl<'s> Record<'s> {
    /// `bytes` are a record of that kind.
    pub(super) fn new(kind: &Kind, bytes: &'s [u8]) -> Self {
        Record {
            bytes,
            values: kind.values(),
        }
    }

    /// Seed of the augmentation, or [`MISSING`].
    pub fn seed(&self) -> i32 {
        let bytes = self.bytes.first_chunk();
        i32::from_le_bytes(bytes.copied().unwrap_or_default())
    }

    /// Whether the picture could not be read, so that there is no answer.
    pub fn is_missing(&self) -> bool {
        self.seed() == MISSING
    }

    /// The classes, largest value first; none for embeddings and features.
    pub fn indices(&self) -> impl ExactSizeIterator<Item = u16> + 's {
        let end = self.bytes.len() - 2 * self.values;
        words(&self.bytes[SEED..end]).map(u16::from_le_bytes)
    }

    /// The values.
    pub fn values(&self) -> impl ExactSizeIterator<Item = f32> + 's {
        let start = self.bytes.len() - 2 * self.values;
        words(&self.bytes[start..]).map(|w| f16::from_le_bytes(w).to_f32())
    }
}

fn words(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; 2]> + '_ {
    bytes.as_chunks().0.iter().copied()
}

impl Answer {
    /// The `k` largest probabilities, largest first; of equal ones the first class.
    pub fn top(probabilities: &[f32], k: usize) -> Self {
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        let falling = |&a: &usize, &b: &usize| {
            probabilities[b]
                .total_cmp(&probabilities[a])
                .then(a.cmp(&b))
        };
        if (1..order.len()).contains(&k) {
            order.select_nth_unstable_by(k - 1, falling);
        }
        order.truncate(k);
        order.sort_unstable_by(falling);
        Answer {
            values: order
                .iter()
                .map(|&i| f16::from_f32(probabilities[i]))
                .collect(),
            indices: order.into_iter().map(|i| i as u16).collect(),
        }
    }

    /// All values.
    pub fn dense(values: &[f32]) -> Self {
        Answer {
            indices: Vec::new(),
            values: values.iter().map(|&v| f16::from_f32(v)).collect(),
        }
    }

    /// Checks that a record of that kind can hold it.
    pub(super) fn check(&self, kind: &Kind) -> Result<(), String> {
        let indices = match kind {
            Kind::SparseLogits { k, .. } => *k,
            _ => 0,
        };
        let (expected, got) = (
            (indices, kind.values()),
            (self.indices.len(), self.values.len()),
        );
        if expected != got {
            return Err(format!(
                "expected {} classes and {} values, got {} and {}",
                expected.0, expected.1, got.0, got.1
            ));
        }
        match self.values.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(format!("value {i} is {}", self.values[i])),
            None => Ok(()),
        }
    }

    /// Appends the record.
    pub(super) fn write(&self, seed: i32, to: &mut Vec<u8>) {
        to.extend(seed.to_le_bytes());
        to.extend(self.indices.iter().flat_map(|i| i.to_le_bytes()));
        to.extend(self.values.iter().flat_map(|v| v.to_le_bytes()));
    }
}
