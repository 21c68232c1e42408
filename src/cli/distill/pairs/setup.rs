//! Data and settings of a run.

use std::path::Path;
use std::sync::Arc;

use ampoule::distill::augment::{Augmentation, Crop, RandAugment};
use ampoule::distill::data::Dataset;
use ampoule::distill::train::pairs::Captions;
use ampoule::distill::train::{TrainError, TrainOptions};
use ampoule::distill::zoo::HEAD_NAME;
use ampoule_runtime::preprocess::{Preprocess, Resize};
use sha2::{Digest, Sha256};

use super::design::Design;
use super::{CLIP, Distill};
use crate::cli::error::Failure;
use crate::cli::output::hex;

/// The pairs that are learnt from, and those that are measured: a list of their own, or a share of the
/// captions with all their pictures.
pub(super) fn data(args: &Distill, list: &Path) -> Result<(Arc<Dataset>, Arc<Dataset>), Failure> {
    let open = |list: &Path| {
        let data = match &args.pairs.images {
            Some(folder) => Dataset::list_in(list, folder),
            None => Dataset::open(list),
        };
        data.map_err(TrainError::from)
    };
    let data = open(list)?;
    if let Some(path) = &args.eval {
        return Ok((Arc::new(data), Arc::new(open(path)?)));
    }
    let groups = Captions::of(&data)?.group;
    let share = args.hold_out.unwrap_or(0.1);
    let is_held_out = |group: usize| {
        let hash = Sha256::digest(format!("{} {group}", args.recipe.seed));
        f64::from(u16::from_le_bytes([hash[0], hash[1]])) < share * 65536.0
    };
    let (train, test) = (
        data.subset(|i| !is_held_out(groups[i])),
        data.subset(|i| is_held_out(groups[i])),
    );
    if train.len() == 0 || test.len() == 0 {
        return Err(Failure::Usage(format!(
            "holding out {share} of {} pictures leaves {} to learn from and {} to measure; give --eval or another --hold-out",
            data.len(),
            train.len(),
            test.len()
        )));
    }
    Ok((Arc::new(train), Arc::new(test)))
}

/// Stretched to the input, from −1 to 1, unless the user says otherwise.
pub(super) fn preprocess(args: &Distill, size: usize) -> Result<Preprocess, Failure> {
    let given = args.image.preprocess(&[1, size, size, 3])?;
    Ok(match args.image.is_assumed() {
        false => given,
        true => Preprocess {
            resize: Resize::Exact,
            mean: [0.5; 3],
            std: [0.5; 3],
            ..given
        },
    })
}

/// Captions tell left from right and speak of colours: large parts, never flipped, and RandAugment, unless
/// the user says otherwise.
pub(super) fn augmentation(
    args: &Distill,
    preprocess: &Preprocess,
) -> Result<Augmentation, Failure> {
    if args.augment.is_given() {
        return args.augment.settings(preprocess);
    }
    Ok(Augmentation {
        crop: Crop::Random {
            scale: [0.6, 1.0],
            ratio: [0.8, 1.25],
        },
        rand_augment: Some(RandAugment {
            magnitude: 7.0,
            ..RandAugment::default()
        }),
        ..Augmentation::none([preprocess.width, preprocess.height], Resize::Exact)
    })
}

pub(super) fn training(args: &Distill, threads: usize, design: &Design) -> TrainOptions {
    let knows = args.pairs.text_init.is_some() || args.pairs.texts.is_some();
    let slow = knows.then_some(0.1);
    let factor = args.pairs.text_rate.or(slow).unwrap_or(1.0);
    // A head that has learnt its teacher's space already moves with its tower.
    let head = if args.pairs.texts.is_some() {
        factor
    } else {
        factor.max(0.5)
    };
    let trunk = args
        .pairs
        .image_rate
        .unwrap_or(if design.is_trunk { 0.3 } else { 1.0 });
    let epochs = args.recipe.epochs.map_or(30, |e| e as usize);
    TrainOptions {
        clip: Some(CLIP),
        factors: vec![
            ("text.head".to_owned(), head),
            ("text.".to_owned(), factor),
            (format!("image.{HEAD_NAME}."), 1.0),
            ("image.".to_owned(), trunk),
        ],
        ..args.options(epochs, threads)
    }
}

pub(super) fn hash(values: &[Vec<f32>]) -> String {
    let mut hash = Sha256::new();
    for value in values.iter().flatten() {
        hash.update(value.to_le_bytes());
    }
    hex(&hash.finalize())
}

pub(super) fn hash_texts(texts: &[String]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update(b"\n");
    }
    hex(&hash.finalize())
}
