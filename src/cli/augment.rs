//! The arguments that say what pictures go through before a model sees them.

use ampoule::distill::augment::{Augmentation, Crop, Mix};
use ampoule_runtime::preprocess::Preprocess;
use clap::{Args, ValueEnum};

use super::error::Failure;

/// What the pictures go through.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Augmentation")]
pub struct AugmentArgs {
    /// How much is done to the pictures [default: standard]
    #[arg(long, value_enum)]
    augment: Option<Strength>,
    /// Share of a picture's area that is shown, from and to
    #[arg(long, value_name = "A,B", value_parser = range)]
    crop_scale: Option<[f64; 2]>,
    /// How often pictures are flipped horizontally
    #[arg(long, value_name = "P")]
    flip: Option<f64>,
    /// Mix pairs of pictures by mixup or cutmix
    #[arg(long)]
    mix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strength {
    /// The middle of the picture, as --preset and --resize say
    None,
    /// A random part of at least half the area, and flips
    Light,
    /// A random part of at least 8 % of the area, flips, RandAugment and erasing
    Standard,
}

impl AugmentArgs {
    /// Whether anything is asked for.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// The settings for teachers that see pictures as `preprocess` says.
    pub fn settings(&self, preprocess: &Preprocess) -> Result<Augmentation, Failure> {
        let size = [preprocess.width, preprocess.height];
        let mut settings = match self.augment.unwrap_or(Strength::Standard) {
            Strength::None => Augmentation::none(size, preprocess.resize),
            Strength::Light => Augmentation::light(size),
            Strength::Standard => Augmentation::standard(size),
        };
        if self.augment == Some(Strength::None) {
            settings.filter = preprocess.filter;
        }
        if let Some(wanted) = self.crop_scale {
            match &mut settings.crop {
                Crop::Random { scale, .. } => *scale = wanted,
                _ => {
                    return Err(Failure::Usage(
                        "--crop-scale needs --augment light or standard".to_owned(),
                    ));
                }
            }
        }
        settings.flip = self.flip.unwrap_or(settings.flip);
        settings.mix = self.mix.then(Mix::default);
        settings
            .validate()
            .map_err(|e| Failure::Usage(e.to_string()))?;
        Ok(settings)
    }
}

/// `0.5,1`.
fn range(text: &str) -> Result<[f64; 2], String> {
    let parsed = text
        .split_once(',')
        .and_then(|(a, b)| Some([a.trim().parse().ok()?, b.trim().parse().ok()?]));
    parsed.ok_or_else(|| "expected two numbers, for example 0.5,1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("0.5,1"), Ok([0.5, 1.0]));
        assert!(["", "1", "a,b"].iter().all(|s| range(s).is_err()));
    }
}
