//! RandAugment with timm's set `inc1`, in which a larger magnitude always changes more.

mod colour;
mod geometry;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::generator::Generator;

/// A few random operations of random strength, as timm's `rand-m9-mstd0.5-inc1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandAugment {
    /// Operations drawn for a picture, with replacement.
    pub operations: u32,
    /// How often a drawn operation is applied.
    pub probability: f64,
    /// Mean strength, 0 to 10.
    pub magnitude: f64,
    /// Standard deviation of the strength.
    pub deviation: f64,
}

impl Default for RandAugment {
    fn default() -> Self {
        RandAugment {
            operations: 2,
            probability: 0.5,
            magnitude: 9.0,
            deviation: 0.5,
        }
    }
}

impl RandAugment {
    /// Works on interleaved RGB of `width` by `height` pixels.
    pub(super) fn apply(&self, pixels: &mut Vec<u8>, size: [u32; 2], random: &mut Generator) {
        for _ in 0..self.operations {
            let kind = KINDS[random.below(KINDS.len() as u32) as usize];
            let applied = random.chance(self.probability);
            let magnitude = self.magnitude + self.deviation * random.normal();
            let sign = if random.chance(0.5) { 1.0 } else { -1.0 };
            if applied {
                let level = magnitude.clamp(0.0, 10.0) / 10.0;
                kind.at(level, sign, size).apply(pixels, size);
            }
        }
    }
}

/// Operations without their strength, in timm's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Colour,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

const KINDS: [Kind; 15] = [
    Kind::AutoContrast,
    Kind::Equalize,
    Kind::Invert,
    Kind::Rotate,
    Kind::Posterize,
    Kind::Solarize,
    Kind::SolarizeAdd,
    Kind::Colour,
    Kind::Contrast,
    Kind::Brightness,
    Kind::Sharpness,
    Kind::ShearX,
    Kind::ShearY,
    Kind::TranslateX,
    Kind::TranslateY,
];

/// An operation of a certain strength; each is Pillow's of that name, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    AutoContrast,
    Equalize,
    Invert,
    /// Bits kept, from the highest.
    Posterize(u32),
    /// Values from here on are inverted.
    Solarize(u32),
    /// Added to values below 128.
    SolarizeAdd(u32),
    /// `ImageEnhance` factors: 1 changes nothing.
    Colour(f32),
    Contrast(f32),
    Brightness(f32),
    Sharpness(f32),
    /// Anticlockwise, in degrees.
    Rotate(f64),
    /// Source x = a·x + b·y + c, source y = d·x + e·y + f, with pixels' centres at ½.
    Affine([f64; 6]),
}

impl Kind {
    /// The operation at `level` of 0 to 1; `sign` is 1 or −1 where there are two directions.
    fn at(self, level: f64, sign: f64, [width, height]: [u32; 2]) -> Operation {
        let factor = (1.0 + sign * 0.9 * level).max(0.1) as f32;
        let (shear, shift) = (sign * 0.3 * level, sign * 0.45 * level);
        match self {
            Kind::AutoContrast => Operation::AutoContrast,
            Kind::Equalize => Operation::Equalize,
            Kind::Invert => Operation::Invert,
            Kind::Rotate => Operation::Rotate(sign * 30.0 * level),
            // timm keeps no bit at the very end, which leaves a black picture.
            Kind::Posterize => Operation::Posterize((4 - (level * 4.0) as u32).max(1)),
            Kind::Solarize => Operation::Solarize(256 - (level * 256.0) as u32),
            Kind::SolarizeAdd => Operation::SolarizeAdd((level * 110.0) as u32),
            Kind::Colour => Operation::Colour(factor),
            Kind::Contrast => Operation::Contrast(factor),
            Kind::Brightness => Operation::Brightness(factor),
            Kind::Sharpness => Operation::Sharpness(factor),
            Kind::ShearX => Operation::Affine([1.0, shear, 0.0, 0.0, 1.0, 0.0]),
            Kind::ShearY => Operation::Affine([1.0, 0.0, 0.0, shear, 1.0, 0.0]),
            Kind::TranslateX => {
                Operation::Affine([1.0, 0.0, shift * f64::from(width), 0.0, 1.0, 0.0])
            }
            Kind::TranslateY => {
                Operation::Affine([1.0, 0.0, 0.0, 0.0, 1.0, shift * f64::from(height)])
            }
        }
    }
}

impl Operation {
    fn apply(self, pixels: &mut Vec<u8>, size: [u32; 2]) {
        match self {
            Operation::AutoContrast => colour::auto_contrast(pixels),
            Operation::Equalize => colour::equalize(pixels),
            Operation::Invert => colour::map(pixels, |v| 255 - v),
            Operation::Posterize(bits) => colour::map(pixels, |v| v & (0xff00u32 >> bits) as u8),
            Operation::Solarize(from) => {
                colour::map(pixels, |v| if u32::from(v) < from { v } else { 255 - v })
            }
            Operation::SolarizeAdd(add) => colour::map(pixels, |v| match v {
                0..128 => (u32::from(v) + add).min(255) as u8,
                _ => v,
            }),
            Operation::Colour(factor) => colour::saturate(pixels, factor),
            Operation::Contrast(factor) => colour::contrast(pixels, factor),
            Operation::Brightness(factor) => colour::brighten(pixels, factor),
            Operation::Sharpness(factor) => colour::sharpen(pixels, size, factor),
            Operation::Rotate(degrees) => {
                *pixels = geometry::affine(pixels, size, geometry::rotation(degrees, size));
            }
            Operation::Affine(matrix) => *pixels = geometry::affine(pixels, size, matrix),
        }
    }
}
