//! Does a store still say what the teachers say?

use std::path::Path;
use std::sync::Arc;

use ampoule_quantize::pipeline::Progress;
use half::f16;
use serde::Serialize;

use super::{Panel, TeachError};
use crate::data::{Pictures, epoch_order, partners};
use crate::store::{Header, Kind, MISSING, Record, Store};

/// How far recomputed answers are from the stored ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// Records in the store, all of whose checksums are right.
    pub records: usize,
    /// Records that were recomputed.
    pub compared: usize,
    /// Records without an answer among those that were to be recomputed.
    pub missing: usize,
    /// Mean difference of values; for embeddings and features relative to the mean magnitude.
    pub mean_difference: f64,
    /// Share of places in which another class stands.
    pub index_mismatch: f64,
}

impl Drift {
    /// Largest mean difference that is no drift.
    pub const MOST_DIFFERENCE: f64 = 1e-3;
    /// Largest share of other classes that is no drift.
    pub const MOST_MISMATCH: f64 = 0.005;

    /// Whether the store and the teachers agree.
    pub fn is_small(&self) -> bool {
        self.mean_difference <= Self::MOST_DIFFERENCE && self.index_mismatch <= Self::MOST_MISMATCH
    }
}

/// Checks every checksum, and recomputes `count` records spread evenly over the store, which must have
/// been made with the settings of `expected`.
///
/// # Errors
///
/// [`TeachError`]: the store is refused, or a picture can't be read.
pub fn check(
    folder: &Path,
    panel: &Panel,
    pictures: &Pictures,
    expected: &Header,
    count: usize,
    progress: &dyn Progress,
) -> Result<Drift, TeachError> {
    let store = Store::open_as(folder, expected)?;
    let samples = expected.samples;
    let all = samples * expected.epochs;
    let count = count.min(all);
    progress.begin("recompute", count);
    let mut sums = Sums::default();
    let mut desks = panel.desks();
    let (mut verified, mut missing, mut done) = (0, 0, 0);
    for epoch in 0..expected.epochs {
        let records = Arc::new(store.epoch(epoch)?);
        verified += records.verify()?;
        let seeds = records.seeds();
        let partners = match expected.augmentation.mix {
            Some(_) => partners(&epoch_order(expected.seed, epoch, samples)),
            None => vec![None; samples],
        };
        let chosen = (0..count).map(|i| i * all / count);
        for sample in chosen.filter(|i| i / samples == epoch).map(|i| i % samples) {
            let record = records.record(sample)?;
            if record.is_missing() {
                missing += 1;
                continue;
            }
            let partner = partners[sample].map(|p| p as usize);
            let partner = partner.filter(|&p| seeds(p) != MISSING);
            let picture = pictures.one(sample, partner, &seeds)?;
            let answer = desks.answer(&picture, pictures.augmentation.size)?;
            sums.add(&record, &answer.indices, &answer.values);
            done += 1;
            progress.advance(done);
        }
    }
    progress.end();
    let is_sparse = matches!(expected.kind, Kind::SparseLogits { .. });
    Ok(sums.drift(verified, done, missing, is_sparse))
}

#[derive(Default)]
struct Sums {
    values: usize,
    difference: f64,
    magnitude: f64,
    indices: usize,
    mismatches: usize,
}

impl Sums {
    fn add(&mut self, stored: &Record<'_>, indices: &[u16], values: &[f16]) {
        self.indices += indices.len();
        self.mismatches += stored
            .indices()
            .zip(indices)
            .filter(|(a, b)| a != *b)
            .count();
        self.values += values.len();
        for (stored, value) in stored.values().zip(values) {
            self.difference += f64::from((stored - value.to_f32()).abs());
            self.magnitude += f64::from(stored.abs());
        }
    }

    fn drift(&self, records: usize, compared: usize, missing: usize, is_sparse: bool) -> Drift {
        let share = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a / b };
        let base = if is_sparse {
            self.values as f64
        } else {
            self.magnitude
        };
        Drift {
            records,
            compared,
            missing,
            mean_difference: share(self.difference, base),
            index_mismatch: share(self.mismatches as f64, self.indices as f64),
        }
    }
}
