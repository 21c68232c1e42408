//! From a sample and its seed to pixels: the same for teachers and students.

use std::sync::Arc;

use ampoule_quantize::data::decode;

use super::{Dataset, DatasetError};
use crate::augment::{Augmentation, Generator, Purpose};

/// Where the seeds of an epoch come from: sample to seed.
pub type Seeds = Arc<dyn Fn(usize) -> i32 + Send + Sync>;

/// The seed of a record: 31 random bits made of a run's seed, the epoch and the sample.
pub fn record_seed(seed: u64, epoch: usize, sample: usize) -> i32 {
    let numbers = [seed, epoch as u64, sample as u64];
    (Generator::new(numbers, Purpose::RecordSeed).bits() >> 1) as i32
}

/// The samples of an epoch in random order. The samples at positions `2j` and `2j + 1` are a pair.
pub fn epoch_order(seed: u64, epoch: usize, samples: usize) -> Vec<u32> {
    // A store's format ends at 2³² samples.
    let samples = u32::try_from(samples).unwrap_or(u32::MAX);
    Generator::new([seed, epoch as u64, 0], Purpose::Order).permutation(samples)
}

/// For each sample the other of its pair in [`epoch_order`]; none for the last of an odd number.
pub fn partners(order: &[u32]) -> Vec<Option<u32>> {
    let mut partners = vec![None; order.len()];
    for pair in order.chunks_exact(2) {
        partners[pair[0] as usize] = Some(pair[1]);
        partners[pair[1] as usize] = Some(pair[0]);
    }
    partners
}

/// A sample's pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Interleaved RGB at the augmentation's size.
    pub pixels: Vec<u8>,
    /// The share that is the sample's own; the rest is its partner's.
    pub share: f64,
}

/// Makes pictures of samples.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// The samples.
    pub data: Arc<Dataset>,
    /// What is done to them.
    pub augmentation: Augmentation,
}

impl Pictures {
    /// A sample's picture, mixed with its partner's where the augmentation says so. A sample whose
    /// partner can't be read is not mixed.
    ///
    /// # Errors
    ///
    /// [`DatasetError`] when the sample itself can't be read, or is too small for the crop.
    pub fn one(
        &self,
        sample: usize,
        partner: Option<usize>,
        seeds: &Seeds,
    ) -> Result<Picture, DatasetError> {
        match partner.filter(|_| self.augmentation.mix.is_some()) {
            Some(partner) => {
                let [own, _] = self.pair([sample, partner], seeds);
                own
            }
            None => self.alone(sample, seeds(sample)),
        }
    }

    /// The pictures of a pair.
    pub fn pair(&self, pair: [usize; 2], seeds: &Seeds) -> [Result<Picture, DatasetError>; 2] {
        let seed = pair.map(|sample| seeds(sample));
        let mut pictures = [0, 1].map(|i| self.alone(pair[i], seed[i]));
        if let [Ok(a), Ok(b)] = &mut pictures {
            let share = self.augmentation.mix([&mut a.pixels, &mut b.pixels], seed);
            (a.share, b.share) = (share, share);
        }
        pictures
    }

    fn alone(&self, sample: usize, seed: i32) -> Result<Picture, DatasetError> {
        let sample = &self.data.samples()[sample];
        let image = decode(&sample.path)?;
        let pixels = self.augmentation.picture(&image, seed);
        let pixels = pixels.map_err(|source| DatasetError::Picture {
            name: sample.name.clone(),
            source,
        })?;
        Ok(Picture { pixels, share: 1.0 })
    }
}
