//! Random erasing: a rectangle becomes noise.

use serde::{Deserialize, Serialize};

use super::generator::Generator;
use super::{DEVIATION, MEAN};

/// Replaces a rectangle by noise, as timm's `RandomErasing` in mode `pixel`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// How often.
    pub probability: f64,
    /// Share of the picture's area, from and to.
    pub area: [f64; 2],
    /// Height over width, from and to; its logarithm is uniform.
    pub ratio: [f64; 2],
}

impl Default for Erase {
    fn default() -> Self {
        Erase {
            probability: 0.25,
            area: [0.02, 1.0 / 3.0],
            ratio: [0.3, 1.0 / 0.3],
        }
    }
}

impl Erase {
    /// Works on interleaved RGB of `width` by `height` pixels.
    ///
    /// timm fills with standard normal noise after normalisation; here it is the same noise in
    /// pixels, with ImageNet's mean and deviation, whatever a teacher's normalisation is.
    pub(super) fn apply(
        &self,
        pixels: &mut [u8],
        [width, height]: [u32; 2],
        random: &mut Generator,
    ) {
        const ATTEMPTS: usize = 10;
        if !random.chance(self.probability) {
            return;
        }
        for _ in 0..ATTEMPTS {
            let area = f64::from(width) * f64::from(height) * random.between(self.area);
            let ratio = random.log_between(self.ratio);
            let side = |square: f64| square.sqrt().round_ties_even() as u32;
            let (h, w) = (side(area * ratio), side(area / ratio));
            if h < height && w < width {
                let top = random.below(height - h + 1) as usize;
                let left = random.below(width - w + 1) as usize;
                let rows = pixels.chunks_exact_mut(3 * width as usize);
                for row in rows.skip(top).take(h as usize) {
                    noise(&mut row[3 * left..3 * (left + w as usize)], random);
                }
                return;
            }
        }
    }
}

fn noise(pixels: &mut [u8], random: &mut Generator) {
    for pixel in pixels.chunks_exact_mut(3) {
        for channel in 0..3 {
            let value = MEAN[channel] + DEVIATION[channel] * random.normal();
            pixel[channel] = value.round_ties_even() as u8; // saturates at 0 and 255
        }
    }
}
