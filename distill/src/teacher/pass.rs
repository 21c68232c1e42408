//! The teacher pass: every picture of every epoch, answered and stored.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ampoule_quantize::pipeline::Progress;

use super::{Panel, TeachError};
use crate::data::{DatasetError, Ordered, Pictures, Seeds, epoch_order, partners, record_seed};
use crate::store::{Answer, FORMAT, Header, MadeFrom, Shard, StoreError, Writer, create};

/// How a pass is run; none of it changes the records.
#[derive(Debug, Clone, Copy)]
pub struct TeachOptions {
    /// The part of the samples to answer.
    pub shard: Shard,
    /// Threads, each with a picture at a time.
    pub threads: usize,
    /// How many pictures may be unreadable.
    pub max_unreadable: usize,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Taught {
    /// Records of the shard, in all epochs.
    pub records: usize,
    /// Records that were there before.
    pub kept: usize,
    /// Bytes of records that were there, but cut or damaged.
    pub discarded: u64,
    /// Why pictures have no answer, each once.
    pub unreadable: Vec<String>,
    /// Time taken, in seconds.
    pub seconds: f64,
}

/// The header of the store that a panel fills from pictures.
pub fn header(
    panel: &Panel,
    pictures: &Pictures,
    epochs: usize,
    seed: u64,
    made_from: MadeFrom,
) -> Header {
    Header {
        format: FORMAT,
        kind: panel.kind().clone(),
        teachers: panel.ids(),
        augmentation: pictures.augmentation.clone(),
        samples: pictures.data.len(),
        listing: pictures.data.digest(),
        epochs,
        seed,
        block: panel.kind().block(),
        made_from,
    }
}

/// Writes the store, or what is missing of it. The bytes of the records depend on the header alone,
/// whatever the shards, the threads and the interruptions.
///
/// # Errors
///
/// [`TeachError`]; what was written stays, and the pass can go on.
pub fn teach(
    folder: &Path,
    panel: &Panel,
    pictures: &Pictures,
    header: &Header,
    options: &TeachOptions,
    progress: &dyn Progress,
) -> Result<Taught, TeachError> {
    let started = Instant::now();
    create(folder, header)?;
    let Shard { index, count } = options.shard;
    let samples = options.shard.range(header.samples);
    if samples.is_empty() {
        return Err(TeachError::EmptyShard {
            index,
            count,
            samples: header.samples,
        });
    }
    let mut taught = Taught::default();
    let mut unreadable = BTreeMap::new();
    for epoch in 0..header.epochs {
        let mut writer = Writer::open(folder, header, epoch, samples.clone())?;
        taught.records += samples.len();
        taught.kept += writer.next() - samples.start;
        taught.discarded += writer.discarded();
        let stage = format!("epoch {}/{}", epoch + 1, header.epochs);
        progress.begin(&stage, samples.len());
        let seed = header.seed;
        let seeds: Seeds = Arc::new(move |sample| record_seed(seed, epoch, sample));
        let answers = answers(
            writer.next()..samples.end,
            panel,
            pictures,
            header,
            epoch,
            options,
        );
        for answer in answers {
            let sample = writer.next();
            let answer = match answer {
                Ok(answer) => Some(answer),
                Err(TeachError::Data(error)) => {
                    unreadable.insert(sample, error.to_string());
                    if unreadable.len() > options.max_unreadable {
                        return Err(too_many(unreadable, options.max_unreadable).into());
                    }
                    None
                }
                Err(other) => return Err(other),
            };
            writer
                .push(seeds(sample), answer.as_ref())
                .map_err(|e| name_sample(e, pictures))?;
            progress.advance(sample + 1 - samples.start);
        }
        writer.finish()?;
        progress.end();
    }
    taught.unreadable = unreadable.into_values().collect();
    taught.seconds = started.elapsed().as_secs_f64();
    Ok(taught)
}

/// The answers for some samples, in order.
fn answers(
    samples: std::ops::Range<usize>,
    panel: &Panel,
    pictures: &Pictures,
    header: &Header,
    epoch: usize,
    options: &TeachOptions,
) -> Ordered<Result<Answer, TeachError>> {
    /// Answers per thread that may wait for a slow one before them.
    const AHEAD: usize = 4;
    let seed = header.seed;
    let seeds: Seeds = Arc::new(move |sample| record_seed(seed, epoch, sample));
    let partners: Arc<[Option<u32>]> = match header.augmentation.mix {
        Some(_) => partners(&epoch_order(seed, epoch, header.samples)).into(),
        None => Arc::new([]),
    };
    let worker = || {
        let (pictures, seeds, partners) = (pictures.clone(), seeds.clone(), partners.clone());
        let mut desks = panel.desks();
        move |sample: usize| {
            let partner = partners.get(sample).copied().flatten();
            let picture = pictures.one(sample, partner.map(|p| p as usize), &seeds)?;
            Ok(desks.answer(&picture, pictures.augmentation.size)?)
        }
    };
    let threads = options.threads.clamp(1, samples.len().max(1));
    Ordered::new(samples, threads, AHEAD * threads, worker)
}

fn too_many(unreadable: BTreeMap<usize, String>, limit: usize) -> DatasetError {
    DatasetError::Unreadable {
        limit,
        reasons: unreadable.into_values().collect(),
    }
}

fn name_sample(error: StoreError, pictures: &Pictures) -> TeachError {
    match error {
        StoreError::Answer { sample, what } => TeachError::Answer {
            name: pictures.data.samples()[sample].name.clone(),
            what,
        },
        other => other.into(),
    }
}
