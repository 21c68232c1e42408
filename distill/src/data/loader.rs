//! Batches for training.

use std::sync::Arc;

use ampoule_runtime::preprocess::{ImageView, PixelFormat, Preprocess, PreprocessError};

use super::ordered::Ordered;
use super::{DatasetError, Picture, Pictures, Seeds};

/// What an epoch's batches look like.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Samples in a batch; even, so that pairs stay together. The last batch may have fewer.
    pub batch: usize,
    /// Threads that decode and augment.
    pub threads: usize,
    /// Batches prepared ahead.
    pub ahead: usize,
    /// From the augmented picture to the student's input: resized to its size where that differs,
    /// and normalised.
    pub preprocess: Preprocess,
    /// How many pictures may be unreadable.
    pub max_unreadable: usize,
    /// Whether batches have the augmented pictures too.
    pub keep_pixels: bool,
}

/// Samples ready for training.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// `[samples, height, width, channels]`, row by row.
    pub images: Vec<f32>,
    /// The augmented pictures before preprocessing, if asked for: interleaved RGB.
    pub pixels: Vec<Vec<u8>>,
    /// Which samples these are.
    pub samples: Vec<usize>,
    /// The share of each picture that is its own sample's, and the sample the rest comes from.
    pub shares: Vec<(f64, Option<usize>)>,
}

/// An iterator over the batches of an epoch: the same ones for any number of threads.
pub struct Loader {
    pictures: Ordered<Prepared>,
    pairs: Arc<[[Option<usize>; 2]]>,
    next_pair: usize,
    options: LoaderOptions,
    unreadable: Vec<String>,
    /// Pictures beyond a full batch.
    rest: Batch,
    /// Whether the first sample to be read belongs to the batch before the first.
    skip: bool,
    done: bool,
}

/// The inputs of a pair.
type Prepared = [Option<Result<Sample, DatasetError>>; 2];

/// A sample ready for training.
struct Sample {
    values: Vec<f32>,
    pixels: Option<Vec<u8>>,
    /// The share that is its own.
    share: f64,
}

impl Loader {
    /// Starts reading the samples of `order`, whose positions `2j` and `2j + 1` are pairs. `seeds`
    /// gives each sample's seed; a negative one leaves the sample out.
    pub fn new(pictures: Pictures, order: &[u32], seeds: Seeds, options: LoaderOptions) -> Self {
        Self::starting_at(0, pictures, order, seeds, options)
    }

    /// As [`Loader::new`], but begins at a [`Loader::position`].
    pub fn starting_at(
        position: usize,
        pictures: Pictures,
        order: &[u32],
        seeds: Seeds,
        options: LoaderOptions,
    ) -> Self {
        let pair = |pair: &[u32]| [0, 1].map(|i| pair.get(i).map(|&s| s as usize));
        let pairs: Arc<[_]> = order.chunks(2).map(pair).collect();
        let ahead = options.ahead.max(1) * options.batch.max(2) / 2;
        let worker = || {
            let (pictures, pairs, seeds) = (pictures.clone(), pairs.clone(), seeds.clone());
            let (preprocess, keep_pixels) = (options.preprocess, options.keep_pixels);
            move |i: usize| prepare(&pictures, pairs[i], &seeds, &preprocess, keep_pixels)
        };
        let first = (position / 2).min(pairs.len());
        Loader {
            pictures: Ordered::new(first..pairs.len(), options.threads, ahead, worker),
            pairs: pairs.clone(),
            next_pair: first,
            skip: position % 2 == 1,
            options,
            unreadable: Vec::new(),
            rest: Batch::default(),
            done: false,
        }
    }

    /// Why samples were left out so far.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Where in the order the next batch begins.
    pub fn position(&self) -> usize {
        2 * self.next_pair - self.rest.samples.len()
    }

    /// Adds one more pair to the rest.
    fn read_pair(&mut self, prepared: Prepared) -> Result<(), DatasetError> {
        let pair = self.pairs[self.next_pair];
        self.next_pair += 1;
        let others = [pair[1], pair[0]];
        for (i, prepared) in prepared.into_iter().enumerate() {
            let (Some(sample), Some(prepared)) = (pair[i], prepared) else {
                continue;
            };
            match prepared {
                Ok(_) if std::mem::take(&mut self.skip) => {}
                Ok(prepared) => {
                    self.rest.images.extend(prepared.values);
                    self.rest.pixels.extend(prepared.pixels);
                    self.rest.samples.push(sample);
                    let share = prepared.share;
                    let other = others[i].filter(|_| share < 1.0);
                    self.rest.shares.push((share, other));
                }
                Err(error) => {
                    self.unreadable.push(error.to_string());
                    if self.unreadable.len() > self.options.max_unreadable {
                        return Err(DatasetError::Unreadable {
                            limit: self.options.max_unreadable,
                            reasons: std::mem::take(&mut self.unreadable),
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DatasetError>;

    /// The next batch, or the error that ends the epoch.
    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.options.batch.max(1);
        if self.rest.samples.is_empty() && !self.done {
            // Room for the second of a pair beyond the batch, too: growing would copy everything.
            let values = (batch + 1) * self.options.preprocess.output_len();
            self.rest.images.reserve_exact(values);
        }
        while self.rest.samples.len() < batch && !self.done {
            match self.pictures.next() {
                None => self.done = true,
                Some(prepared) => {
                    if let Err(error) = self.read_pair(prepared) {
                        self.done = true;
                        self.rest = Batch::default();
                        return Some(Err(error));
                    }
                }
            }
        }
        let taken = self.rest.take(batch);
        (!taken.samples.is_empty()).then_some(Ok(taken))
    }
}

impl Batch {
    /// Removes the first samples, at most `count` of them.
    fn take(&mut self, count: usize) -> Batch {
        if count >= self.samples.len() {
            return std::mem::take(self);
        }
        let each = self.images.len() / self.samples.len().max(1);
        let rest = Batch {
            images: self.images.split_off(count * each),
            pixels: self.pixels.split_off(count.min(self.pixels.len())),
            samples: self.samples.split_off(count),
            shares: self.shares.split_off(count),
        };
        std::mem::replace(self, rest)
    }
}

fn prepare(
    pictures: &Pictures,
    pair: [Option<usize>; 2],
    seeds: &Seeds,
    preprocess: &Preprocess,
    keep_pixels: bool,
) -> Prepared {
    let wanted = pair.map(|s| s.filter(|&s| seeds(s) >= 0));
    let made = match wanted {
        [Some(a), Some(b)] => pictures.pair([a, b], seeds).map(Some),
        alone => alone.map(|s| s.map(|s| pictures.one(s, None, seeds))),
    };
    let size = pictures.augmentation.size;
    let ready = |picture: Picture, sample: usize| {
        let values = input(&picture.pixels, size, preprocess);
        let values = values.map_err(|source| DatasetError::Picture {
            name: pictures.data.samples()[sample].name.clone(),
            source,
        })?;
        Ok(Sample {
            values,
            pixels: keep_pixels.then_some(picture.pixels),
            share: picture.share,
        })
    };
    let [a, b] = made;
    [(a, wanted[0]), (b, wanted[1])].map(|(picture, sample)| {
        let (picture, sample) = (picture?, sample?);
        Some(picture.and_then(|p| ready(p, sample)))
    })
}

/// What a model sees of an augmented picture: `[height, width, channels]`.
pub(crate) fn input(
    pixels: &[u8],
    [width, height]: [u16; 2],
    preprocess: &Preprocess,
) -> Result<Vec<f32>, PreprocessError> {
    let (width, height) = (u32::from(width), u32::from(height));
    let view = ImageView::packed(pixels, width, height, PixelFormat::Rgb8)?;
    let mut scratch = vec![0; preprocess.scratch_bytes(width, height)?];
    let mut resized = vec![0; preprocess.output_len()];
    preprocess.run_u8(&view, &mut scratch, &mut resized)?;
    let mut values = vec![0.0; resized.len()];
    preprocess.normalize_into(&resized, &mut values)?;
    Ok(values)
}
