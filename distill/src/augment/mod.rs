//! Augmentation: a picture and a seed give the same pixels on every machine.
//!
//! All choices for a picture come from one generator made of its seed, and everything computed from
//! them is integer arithmetic or correctly rounded floating point, so that a teacher's answers can be
//! stored and used elsewhere without the pixels. [`AUGMENTATION_VERSION`] counts changes of the pixels.
//!
//! ```no_run
//! use ampoule_distill::augment::Augmentation;
//! let image = ampoule_quantize::data::decode("photo.jpg")?;
//! let augmentation = Augmentation::standard([224, 224]);
//! let pixels: Vec<u8> = augmentation.picture(&image, 7)?; // 224 × 224 × RGB
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The steps, in order, each reading the same generator:
//!
//! 1. [`Crop`]: a random part of the picture, resized by Pillow's antialiased filter;
//! 2. a horizontal flip;
//! 3. [`RandAugment`], with Pillow's arithmetic;
//! 4. [`Erase`]: a rectangle of noise;
//! 5. [`Mix`]: mixup or cutmix with the other picture of a pair, from a generator of its own that
//!    both records' seeds make.

mod crop;
mod erase;
mod generator;
mod mix;
mod rand_augment;
#[cfg(test)]
mod tests;

use ampoule_quantize::data::RgbImage;
use ampoule_runtime::preprocess::{Filter, PreprocessError, Resize};
use serde::{Deserialize, Serialize};

pub use crop::Crop;
pub use erase::Erase;
pub(crate) use generator::{Generator, Purpose};
pub use mix::Mix;
pub use rand_augment::RandAugment;

/// Counts the changes of what a seed makes of a picture.
pub const AUGMENTATION_VERSION: u32 = 1;

/// ImageNet's mean per channel, in pixels.
const MEAN: [f64; 3] = [0.485 * 255.0, 0.456 * 255.0, 0.406 * 255.0];
/// ImageNet's standard deviation per channel, in pixels.
const DEVIATION: [f64; 3] = [0.229 * 255.0, 0.224 * 255.0, 0.225 * 255.0];

/// What is done to a picture, and how strongly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Version of the code, [`AUGMENTATION_VERSION`].
    pub version: u32,
    /// Width and height of the result, in pixels.
    pub size: [u16; 2],
    /// Which part of the picture is used.
    pub crop: Crop,
    /// How it is resized.
    pub filter: Filter,
    /// How often the picture is flipped horizontally.
    pub flip: f64,
    /// Random operations.
    pub rand_augment: Option<RandAugment>,
    /// Random erasing.
    pub erase: Option<Erase>,
    /// Mixing of pairs.
    pub mix: Option<Mix>,
}

/// A setting that can't be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("augmentation setting {field}: expected {expected}, got {got}")]
pub struct BadSetting {
    /// Which one.
    pub field: &'static str,
    /// What it may be.
    pub expected: &'static str,
    /// What it is.
    pub got: String,
}

impl Augmentation {
    /// No choice at all: the middle of the picture at `size`, after `resize`.
    pub fn none(size: [u16; 2], resize: Resize) -> Self {
        Augmentation {
            version: AUGMENTATION_VERSION,
            size,
            crop: Crop::Centre(resize),
            filter: Filter::Bicubic,
            flip: 0.0,
            rand_augment: None,
            erase: None,
            mix: None,
        }
    }

    /// A large random part of the picture, flipped half the time.
    pub fn light(size: [u16; 2]) -> Self {
        Augmentation {
            crop: Crop::Random {
                scale: [0.5, 1.0],
                ratio: [3.0 / 4.0, 4.0 / 3.0],
            },
            flip: 0.5,
            ..Self::none(size, Resize::Exact)
        }
    }

    /// What TinyViT's teachers see: parts from 8 % on, flips, RandAugment and erasing.
    pub fn standard(size: [u16; 2]) -> Self {
        Augmentation {
            crop: Crop::Random {
                scale: [0.08, 1.0],
                ratio: [3.0 / 4.0, 4.0 / 3.0],
            },
            rand_augment: Some(RandAugment::default()),
            erase: Some(Erase::default()),
            ..Self::light(size)
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    ///
    /// [`BadSetting`] with the first one that can't be used.
    pub fn validate(&self) -> Result<(), BadSetting> {
        let check = |field, expected, good: bool, got: String| match good {
            true => Ok(()),
            false => Err(BadSetting {
                field,
                expected,
                got,
            }),
        };
        let probability = |field, p: f64| {
            let good = (0.0..=1.0).contains(&p);
            check(field, "0 to 1", good, p.to_string())
        };
        let range = |field, expected, [low, high]: [f64; 2], most: f64| {
            let good = 0.0 < low && low <= high && high <= most;
            check(field, expected, good, format!("{low} to {high}"))
        };
        let version = AUGMENTATION_VERSION;
        check(
            "version",
            "this program's",
            self.version == version,
            self.version.to_string(),
        )?;
        let size = self.size;
        check(
            "size",
            "at least 1",
            !size.contains(&0),
            format!("{size:?}"),
        )?;
        if let Crop::Random { scale, ratio } = self.crop {
            range("crop scale", "a range within 0 to 1", scale, 1.0)?;
            range("crop ratio", "a range above 0", ratio, 1e3)?;
        }
        probability("flip", self.flip)?;
        if let Some(r) = self.rand_augment {
            probability("rand_augment probability", r.probability)?;
            let strength =
                (0.0..=10.0).contains(&r.magnitude) && (0.0..=10.0).contains(&r.deviation);
            let got = format!("{} ± {}", r.magnitude, r.deviation);
            check("rand_augment magnitude", "0 to 10", strength, got)?;
        }
        if let Some(e) = self.erase {
            probability("erase probability", e.probability)?;
            range("erase area", "a range within 0 to 1", e.area, 1.0)?;
            range("erase ratio", "a range above 0", e.ratio, 1e3)?;
        }
        if let Some(m) = self.mix {
            probability("mix probability", m.probability)?;
            probability("mix switch", m.switch)?;
            let alphas = [m.mixup, m.cutmix];
            // Smaller ones would make the powers in the draw underflow.
            let good = |a: &f64| *a == 0.0 || (0.05..=2.0).contains(a);
            let got = format!("{alphas:?}");
            check("mix α", "0 or 0.05 to 2", alphas.iter().all(good), got)?;
        }
        Ok(())
    }

    /// Whether a seed makes any difference.
    pub fn is_random(&self) -> bool {
        let random_crop = matches!(self.crop, Crop::Random { .. });
        let operations = self.rand_augment.is_some() || self.erase.is_some();
        random_crop || self.flip > 0.0 || operations || self.mix.is_some()
    }

    /// Steps 1 to 4: interleaved RGB, `height · width · 3` bytes.
    ///
    /// # Errors
    ///
    /// [`PreprocessError`] when the picture is smaller than a [`Crop::Centre`] needs.
    pub fn picture(&self, image: &RgbImage, seed: i32) -> Result<Vec<u8>, PreprocessError> {
        let mut random = Generator::new([u64::from(seed as u32), 0, 0], Purpose::Picture);
        let size = self.size.map(u32::from);
        let mut pixels = self.crop.cut(image, self.size, self.filter, &mut random)?;
        if random.chance(self.flip) {
            flip(&mut pixels, size);
        }
        if let Some(operations) = &self.rand_augment {
            operations.apply(&mut pixels, size, &mut random);
        }
        if let Some(erase) = &self.erase {
            erase.apply(&mut pixels, size, &mut random);
        }
        Ok(pixels)
    }

    /// Step 5, for the pictures of a pair, in place. Gives the share that each keeps of itself: 1
    /// when they are not mixed. The order of the pair makes no difference.
    pub fn mix(&self, pictures: [&mut [u8]; 2], seeds: [i32; 2]) -> f64 {
        let [a, b] = pictures;
        let size = self.size.map(u32::from);
        self.mix.map_or(1.0, |mix| mix.apply(a, b, size, seeds))
    }
}

fn flip(pixels: &mut [u8], [width, _]: [u32; 2]) {
    for row in pixels.chunks_exact_mut(3 * width as usize) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}
