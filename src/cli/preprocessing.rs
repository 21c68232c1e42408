//! The arguments that say how a picture becomes the model's input.

use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};
use clap::{Args, ValueEnum};

use super::args::{size, triple};
use super::error::Failure;

/// How pictures become the input: a preset, and what differs from it.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Preprocessing")]
pub struct ImageArgs {
    /// What the model was trained with [default: unit]
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Size of the pictures, for models that leave it open
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(u16, u16)>,
    /// exact (stretch), shorter:N (keep the aspect ratio, crop the centre) or none (crop only)
    #[arg(long, value_name = "HOW", value_parser = resize)]
    resize: Option<Resize>,
    /// nearest, bilinear, bicubic or area
    #[arg(long, value_parser = filter)]
    filter: Option<Filter>,
    /// Resize from the two or four nearest pixels only, as OpenCV does
    #[arg(long)]
    no_antialias: bool,
    /// What a pixel value 0..255 is multiplied by, first
    #[arg(long, allow_negative_numbers = true, value_name = "FACTOR")]
    scale: Option<f32>,
    /// What is subtracted next, in the model's channel order
    #[arg(long, allow_hyphen_values = true, value_name = "R,G,B", value_parser = triple)]
    mean: Option<[f32; 3]>,
    /// What it is divided by last
    #[arg(long, allow_hyphen_values = true, value_name = "R,G,B", value_parser = triple)]
    std: Option<[f32; 3]>,
    /// The model's channels are blue, green, red
    #[arg(long)]
    bgr: bool,
}

/// Common ways to prepare pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Shorter side to 8/7 of the input, centre crop, 0..1, ImageNet mean and deviation
    Imagenet,
    /// EfficientNet-Lite: the same crop, bicubic, (pixel − 127) / 128
    Lite,
    /// Stretched, 0..1
    Unit,
    /// Stretched, −1..1
    Signed,
    /// Stretched, 0..255
    Raw,
}

impl ImageArgs {
    /// Nothing but a preset.
    pub fn of_preset(preset: Option<Preset>) -> Self {
        ImageArgs {
            preset,
            ..ImageArgs::default()
        }
    }

    /// Height and width asked for.
    pub fn size(&self) -> Option<[usize; 2]> {
        self.size.map(|(w, h)| [usize::from(h), usize::from(w)])
    }

    /// Whether anything is asked for.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// Whether nothing says what the pixel values become.
    pub fn is_assumed(&self) -> bool {
        self.preset.is_none() && self.scale.is_none() && self.mean.is_none() && self.std.is_none()
    }

    /// The arguments as they were given, but for the size, which a student's file has.
    pub fn spelled_out(&self) -> String {
        let list = |v: [f32; 3]| format!("{},{},{}", v[0], v[1], v[2]);
        let named = |name: &str, value: Option<String>| value.map(|v| format!("--{name} {v}"));
        let preset = self.preset.and_then(|p| p.to_possible_value());
        let flag = |is: bool, name: &str| is.then(|| format!("--{name}"));
        let all = [
            named("preset", preset.map(|p| p.get_name().to_owned())),
            named("resize", self.resize.map(resize_name)),
            named("filter", self.filter.map(|f| filter_name(f).to_owned())),
            flag(self.no_antialias, "no-antialias"),
            named("scale", self.scale.map(|s| s.to_string())),
            named("mean", self.mean.map(list)),
            named("std", self.std.map(list)),
            flag(self.bgr, "bgr"),
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// The preprocessing for an input of that stored shape.
    pub fn preprocess(&self, shape: &[usize]) -> Result<Preprocess, Failure> {
        let not_pictures = || {
            Failure::Usage(format!(
                "the model's first input has shape {shape:?} (batch, height, width, channels), which pictures can't fill; give samples as .npy"
            ))
        };
        let &[1, height, width, channels @ (1 | 3)] = shape else {
            return Err(not_pictures());
        };
        let (Ok(height), Ok(width)) = (u16::try_from(height), u16::try_from(width)) else {
            return Err(not_pictures());
        };
        if self.size.is_some_and(|s| s != (width, height)) {
            return Err(Failure::Usage(format!(
                "--size differs from the model's own {width}x{height}; leave it out"
            )));
        }
        let base = self.base(width, height);
        let preprocess = Preprocess {
            resize: self.resize.unwrap_or(base.resize),
            filter: self.filter.unwrap_or(base.filter),
            antialias: !self.no_antialias,
            channels: match channels {
                1 => Channels::Gray,
                _ if self.bgr => Channels::Bgr,
                _ => Channels::Rgb,
            },
            scale: self.scale.unwrap_or(base.scale),
            mean: self.mean.unwrap_or(base.mean),
            std: self.std.unwrap_or(base.std),
            ..base
        };
        let invalid = |e| {
            Failure::Usage(format!(
                "{e}: --scale, --mean and --std must be finite, and --std not 0"
            ))
        };
        preprocess.validate().map_err(invalid)?;
        Ok(preprocess)
    }

    /// The preset; without one, numbers given apply to the raw pixel values.
    fn base(&self, width: u16, height: u16) -> Preprocess {
        let raw = Preprocess {
            resize: Resize::Exact,
            filter: Filter::Bilinear,
            antialias: true,
            width,
            height,
            channels: Channels::Rgb,
            scale: 1.0,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        let shorter = (u32::from(width.min(height)) * 8)
            .div_ceil(7)
            .min(u32::from(u16::MAX)) as u16;
        let cropped = Preprocess {
            resize: Resize::ShorterSide(shorter.max(width.max(height))),
            ..raw
        };
        let preset = if self.is_assumed() {
            Preset::Unit
        } else {
            self.preset.unwrap_or(Preset::Raw)
        };
        match preset {
            Preset::Imagenet => Preprocess {
                scale: 1.0 / 255.0,
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
                ..cropped
            },
            Preset::Lite => Preprocess {
                filter: Filter::Bicubic,
                mean: [127.0; 3],
                std: [128.0; 3],
                ..cropped
            },
            Preset::Unit => Preprocess {
                scale: 1.0 / 255.0,
                ..raw
            },
            Preset::Signed => Preprocess {
                mean: [127.5; 3],
                std: [127.5; 3],
                ..raw
            },
            Preset::Raw => raw,
        }
    }
}

/// Whether pictures can fill an input of that stored shape.
pub fn takes_pictures(shape: &[usize]) -> bool {
    matches!(shape, [1, _, _, 1 | 3])
}

/// What a preprocessing does, in one line.
pub fn describe(p: &Preprocess) -> String {
    let resize = match p.resize {
        Resize::None => "own size".to_owned(),
        Resize::Exact => "stretched".to_owned(),
        Resize::ShorterSide(n) => format!("shorter side {n}"),
        _ => "resized".to_owned(),
    };
    let filter = filter_name(p.filter);
    let antialias = if p.antialias {
        ""
    } else {
        " without antialiasing"
    };
    let channels = match p.channels {
        Channels::Rgb => "RGB",
        Channels::Bgr => "BGR",
        Channels::Gray => "grey",
        _ => "other channels",
    };
    let list = |v: [f32; 3]| match v {
        [a, b, c] if a == b && b == c => format!("{a}"),
        [a, b, c] => format!("({a}, {b}, {c})"),
    };
    let (w, h) = (p.width, p.height);
    format!(
        "{resize}, {filter}{antialias}, centre {w}×{h}, {channels}, (pixel · {} − {}) / {}",
        p.scale,
        list(p.mean),
        list(p.std)
    )
}

fn filter_name(filter: Filter) -> &'static str {
    match filter {
        Filter::Nearest => "nearest",
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
        Filter::Area => "area",
        _ => "other filter",
    }
}

fn filter(text: &str) -> Result<Filter, String> {
    let all = [
        Filter::Nearest,
        Filter::Bilinear,
        Filter::Bicubic,
        Filter::Area,
    ];
    all.into_iter()
        .find(|f| filter_name(*f) == text)
        .ok_or_else(|| "expected nearest, bilinear, bicubic or area".into())
}

/// What [`resize`] reads.
fn resize_name(resize: Resize) -> String {
    match resize {
        Resize::None => "none".to_owned(),
        Resize::ShorterSide(n) => format!("shorter:{n}"),
        _ => "exact".to_owned(),
    }
}

fn resize(text: &str) -> Result<Resize, String> {
    let shorter = |n: &str| n.parse().ok().filter(|&n| n > 0).map(Resize::ShorterSide);
    match text {
        "exact" => Ok(Resize::Exact),
        "none" => Ok(Resize::None),
        other => other
            .strip_prefix("shorter:")
            .and_then(shorter)
            .ok_or_else(|| "expected exact, none or shorter:N, for example shorter:256".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_and_what_differs() {
        let lite = ImageArgs {
            preset: Some(Preset::Lite),
            ..ImageArgs::default()
        };
        let p = lite.preprocess(&[1, 224, 224, 3]).unwrap();
        assert_eq!(
            (p.resize, p.filter, p.mean, p.std),
            (
                Resize::ShorterSide(256),
                Filter::Bicubic,
                [127.0; 3],
                [128.0; 3]
            )
        );
        let bare = ImageArgs::default();
        assert!(bare.is_assumed());
        assert_eq!(bare.preprocess(&[1, 96, 96, 3]).unwrap().scale, 1.0 / 255.0);
        let numbers = ImageArgs {
            mean: Some([1.0; 3]),
            bgr: true,
            ..ImageArgs::default()
        };
        let p = numbers.preprocess(&[1, 8, 16, 3]).unwrap();
        assert_eq!(
            (p.scale, p.mean, p.width, p.height, p.channels),
            (1.0, [1.0; 3], 16, 8, Channels::Bgr)
        );
        assert_eq!(
            numbers.preprocess(&[1, 8, 16, 1]).unwrap().channels,
            Channels::Gray
        );
    }

    #[test]
    fn shapes_and_numbers_that_do_not_fit() {
        for shape in [
            &[1, 640][..],
            &[1, 3, 8, 8],
            &[2, 8, 8, 3],
            &[1, 70_000, 8, 3],
        ] {
            assert!(
                matches!(
                    ImageArgs::default().preprocess(shape),
                    Err(Failure::Usage(_))
                ),
                "{shape:?}"
            );
        }
        let given = ImageArgs {
            preset: Some(Preset::Signed),
            resize: resize("shorter:72").ok(),
            std: Some([64.0; 3]),
            ..ImageArgs::default()
        };
        assert_eq!(
            given.spelled_out(),
            "--preset signed --resize shorter:72 --std 64,64,64"
        );
        let zero = ImageArgs {
            std: Some([0.0; 3]),
            ..ImageArgs::default()
        };
        assert!(zero.preprocess(&[1, 8, 8, 3]).is_err());
        let size = ImageArgs {
            size: Some((9, 8)),
            ..ImageArgs::default()
        };
        assert!(size.preprocess(&[1, 8, 8, 3]).is_err());
        assert!(
            ["", "shorter:0", "shorter:x", "big"]
                .iter()
                .all(|s| resize(s).is_err())
        );
    }
}
