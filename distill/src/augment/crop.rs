//! Which part of a picture is used, and at what size.

use ampoule_quantize::data::RgbImage;
use ampoule_runtime::preprocess::{
    Channels, Filter, ImageView, PixelFormat, Preprocess, PreprocessError, Resize,
};
use serde::{Deserialize, Serialize};

use super::generator::Generator;

/// Which part of a picture is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Crop {
    /// The middle, after resizing: no choice is made.
    Centre(Resize),
    /// A random part, as torchvision's `RandomResizedCrop` takes it.
    Random {
        /// Share of the picture's area, from and to.
        scale: [f64; 2],
        /// Width over height, from and to; its logarithm is uniform.
        ratio: [f64; 2],
    },
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Crop {
    /// The chosen part of `image` at `width` by `height` pixels, interleaved RGB.
    pub(super) fn cut(
        &self,
        image: &RgbImage,
        [width, height]: [u16; 2],
        filter: Filter,
        random: &mut Generator,
    ) -> Result<Vec<u8>, PreprocessError> {
        let size = [image.width(), image.height()];
        let (resize, area) = match self {
            Crop::Centre(resize) => (*resize, whole(size)),
            Crop::Random { scale, ratio } => (Resize::Exact, choose(size, *scale, *ratio, random)),
        };
        let geometry = Preprocess {
            resize,
            filter,
            antialias: true,
            width,
            height,
            channels: Channels::Rgb,
            scale: 1.0,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        resample(image, area, &geometry)
    }
}

fn resample(
    image: &RgbImage,
    area: Area,
    geometry: &Preprocess,
) -> Result<Vec<u8>, PreprocessError> {
    let stride = image.width() as usize * 3;
    let first = area.top as usize * stride + area.left as usize * 3;
    let view = ImageView::new(
        &image.pixels()[first..],
        area.width,
        area.height,
        stride,
        PixelFormat::Rgb8,
    )?;
    let mut scratch = vec![0; geometry.scratch_bytes(area.width, area.height)?];
    let mut out = vec![0; geometry.output_len()];
    geometry.run_u8(&view, &mut scratch, &mut out)?;
    Ok(out)
}

fn whole([width, height]: [u32; 2]) -> Area {
    Area {
        left: 0,
        top: 0,
        width,
        height,
    }
}

/// torchvision's `RandomResizedCrop.get_params`.
fn choose(
    [width, height]: [u32; 2],
    scale: [f64; 2],
    ratio: [f64; 2],
    random: &mut Generator,
) -> Area {
    const ATTEMPTS: usize = 10;
    for _ in 0..ATTEMPTS {
        let area = f64::from(width) * f64::from(height) * random.between(scale);
        let ratio = random.log_between(ratio);
        let side = |square: f64| square.sqrt().round_ties_even() as u32;
        let (w, h) = (side(area * ratio), side(area / ratio));
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            return Area {
                left: random.below(width - w + 1),
                top: random.below(height - h + 1),
                width: w,
                height: h,
            };
        }
    }
    middle([width, height], ratio)
}

/// The largest part in the middle whose shape is allowed.
fn middle([width, height]: [u32; 2], [least, most]: [f64; 2]) -> Area {
    let (wide, high) = (f64::from(width), f64::from(height));
    let side = |v: f64, limit: u32| (v.round_ties_even() as u32).clamp(1, limit);
    let (w, h) = if wide / high < least {
        (width, side(wide / least, height))
    } else if wide / high > most {
        (side(high * most, width), height)
    } else {
        (width, height)
    };
    Area {
        left: (width - w) / 2,
        top: (height - h) / 2,
        width: w,
        height: h,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::generator::Purpose;

    #[test]
    fn parts_lie_inside_and_keep_to_the_ranges() {
        let (scale, ratio) = ([0.08, 1.0], [0.75, 4.0 / 3.0]);
        for seed in 0..2000 {
            let mut random = Generator::new([seed, 0, 0], Purpose::Picture);
            let a = choose([640, 480], scale, ratio, &mut random);
            assert!(a.left + a.width <= 640 && a.top + a.height <= 480);
            let share = f64::from(a.width * a.height) / (640.0 * 480.0);
            let shape = f64::from(a.width) / f64::from(a.height);
            assert!((0.079..=1.0).contains(&share), "{share}");
            assert!((0.74..=1.35).contains(&shape), "{shape}");
        }
    }

    #[test]
    fn extreme_pictures_give_their_middle() {
        let ratio = [0.75, 4.0 / 3.0];
        let area = |left, top, width, height| Area {
            left,
            top,
            width,
            height,
        };
        assert_eq!(middle([300, 10], ratio), area(143, 0, 13, 10));
        assert_eq!(middle([10, 300], ratio), area(0, 143, 10, 13));
        assert_eq!(middle([8, 8], ratio), area(0, 0, 8, 8));
        assert_eq!(middle([1, 1], ratio), area(0, 0, 1, 1));
        let mut random = Generator::new([0; 3], Purpose::Picture);
        let one = choose([1, 1], [0.08, 1.0], ratio, &mut random);
        assert_eq!(one, area(0, 0, 1, 1));
    }
}
