//! Goldens of Pillow and properties that hold for any picture.

use super::*;
use std::vec;
use std::vec::Vec;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/fixtures/preprocess/", $name))
    };
}

/// Pictures of the goldens.
const PICTURES: [(&str, &[u8]); 7] = [
    ("alpha", fixture!("alpha.raw")),
    ("clock", fixture!("clock.raw")),
    ("dot", fixture!("dot.raw")),
    ("fruit", fixture!("fruit.raw")),
    ("line", fixture!("line.raw")),
    ("post", fixture!("post.raw")),
    ("stop", fixture!("stop.raw")),
];

/// Pillow's goldens are reached exactly. Those computed without antialiasing are exact but for sums
/// that end on half a grey level, which fixed-point weights may round the other way.
#[test]
fn pixels_equal_the_goldens() {
    let cases = core::str::from_utf8(fixture!("cases.txt")).unwrap();
    let mut goldens = &fixture!("goldens.bin")[..];
    for case in cases.lines() {
        let (spec, source, width, height, format) = parse(case);
        let pixels = PICTURES.iter().find(|p| p.0 == source).unwrap().1;
        let image = ImageView::packed(pixels, width, height, format).unwrap();
        let (golden, rest) = goldens.split_at(spec.output_len());
        goldens = rest;
        let out = run(&spec, &image);
        let allowed = u8::from(case.contains("plain"));
        let worst = out.iter().zip(golden).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(allowed), "{case}: {worst:?}");
        let differing = out.iter().zip(golden).filter(|(a, b)| a != b).count();
        assert!(
            differing * 50 <= out.len() * usize::from(allowed),
            "{case}: {differing} of {}",
            out.len()
        );
    }
    assert!(goldens.is_empty());
}

#[test]
fn any_picture_and_any_specification_give_pixels_or_an_error() {
    let mut random = Lcg(7);
    let mut accepted = 0;
    for _ in 0..3000 {
        let format = random.format();
        let (width, height) = (random.below(70), random.below(70));
        let row = width as usize * format.bytes_per_pixel();
        let stride = row + random.below(9) as usize;
        let pixels: Vec<u8> = (0..stride * height as usize)
            .map(|_| random.next() as u8)
            .collect();
        let spec = random.spec();
        let Ok(image) = ImageView::new(&pixels, width, height, stride, format) else {
            assert!(width == 0 || height == 0);
            continue;
        };
        let need = match spec.scratch_bytes(width, height) {
            Ok(need) => need,
            Err(error) => {
                let mut out = vec![0; spec.output_len()];
                assert_eq!(spec.run_u8(&image, &mut [], &mut out), Err(error));
                continue;
            }
        };
        accepted += 1;
        let out = run(&spec, &image);

        // The stride's padding, the scratch's content and its alignment have no influence.
        let packed: Vec<u8> = (0..height)
            .flat_map(|y| image.row(y).unwrap())
            .copied()
            .collect();
        let packed = ImageView::packed(&packed, width, height, format).unwrap();
        let mut scratch = vec![0xA5; need + 1];
        let mut again = vec![0x5A; spec.output_len()];
        spec.run_u8(&packed, &mut scratch[1..], &mut again).unwrap();
        assert_eq!(out, again, "{spec:?} {width}x{height}");

        // One byte less of anything is an error.
        let mut short = vec![0; need.saturating_sub(1)];
        if need > 0 {
            let refused = Err(PreprocessError::ScratchTooShort { need });
            assert_eq!(spec.run_u8(&image, &mut short, &mut again), refused);
        }
        let refused = Err(PreprocessError::Length {
            expected: spec.output_len(),
        });
        assert_eq!(spec.run_u8(&image, &mut scratch, &mut again[1..]), refused);
        let end = stride * (height as usize - 1) + row;
        let truncated = ImageView::new(&pixels[..end - 1], width, height, stride, format);
        assert_eq!(truncated, Err(PreprocessError::PixelsTooShort));
    }
    assert!(accepted > 1000, "{accepted} runs");
}

#[test]
fn even_pictures_stay_even() {
    let mut random = Lcg(11);
    for value in [0, 1, 127, 254, 255] {
        for _ in 0..100 {
            let (width, height) = (1 + random.below(90), 1 + random.below(90));
            let pixels = vec![value; (width * height * 3) as usize];
            let image = ImageView::packed(&pixels, width, height, PixelFormat::Rgb8).unwrap();
            let spec = Preprocess {
                resize: Resize::Exact,
                ..random.spec()
            };
            if spec.validate().is_ok() {
                assert!(run(&spec, &image).iter().all(|v| *v == value), "{spec:?}");
            }
        }
    }
}

#[test]
fn formats_of_one_picture_agree() {
    let mut random = Lcg(3);
    let pixels: Vec<u8> = (0..31 * 23 * 3).map(|_| random.next() as u8).collect();
    let (rgb, _) = pixels.as_chunks::<3>();
    let bgr: Vec<u8> = rgb.iter().flat_map(|&[r, g, b]| [b, g, r]).collect();
    let rgba: Vec<u8> = rgb.iter().flat_map(|&[r, g, b]| [r, g, b, r ^ b]).collect();
    let view = |pixels, format| ImageView::packed(pixels, 31, 23, format).unwrap();
    for _ in 0..200 {
        let spec = Preprocess {
            resize: Resize::Exact,
            ..random.spec()
        };
        if spec.validate().is_err() {
            continue;
        }
        let out = run(&spec, &view(&pixels, PixelFormat::Rgb8));
        assert_eq!(out, run(&spec, &view(&bgr, PixelFormat::Bgr8)));
        assert_eq!(out, run(&spec, &view(&rgba, PixelFormat::Rgba8)));
        if spec.channels == Channels::Rgb {
            let flipped = Preprocess {
                channels: Channels::Bgr,
                ..spec
            };
            assert_eq!(out, run(&flipped, &view(&bgr, PixelFormat::Rgb8)));
        }
    }
}

#[test]
fn crops_are_windows_of_the_whole() {
    let pixels: Vec<u8> = (0..40 * 30).map(|i| (i * 37 % 251) as u8).collect();
    let image = ImageView::packed(&pixels, 40, 30, PixelFormat::Gray8).unwrap();
    for filter in [
        Filter::Nearest,
        Filter::Bilinear,
        Filter::Bicubic,
        Filter::Area,
    ] {
        for antialias in [false, true] {
            let whole = Preprocess {
                resize: Resize::ShorterSide(18),
                filter,
                antialias,
                width: 24,
                height: 18,
                channels: Channels::Gray,
                scale: 1.0,
                mean: [0.0; 3],
                std: [1.0; 3],
            };
            let all = run(&whole, &image);
            // Surpluses 11 and 5: halves 5.5 and 2.5 round to 6 and 2.
            let window = run(
                &Preprocess {
                    width: 13,
                    height: 13,
                    ..whole
                },
                &image,
            );
            for y in 0..13 {
                let row = &all[(y + 2) * 24 + 6..][..13];
                assert_eq!(&window[y * 13..][..13], row, "{filter:?} {antialias}");
            }
        }
    }
}

#[test]
fn sizes_follow_torchvision() {
    let spec = |resize| Preprocess {
        resize,
        ..Lcg(1).spec_of(224, 224)
    };
    let resized = |short, w, h| spec(Resize::ShorterSide(short)).resized_size(w, h);
    assert_eq!(resized(256, 500, 375), Ok((341, 256)));
    assert_eq!(resized(256, 375, 500), Ok((256, 341)));
    assert_eq!(resized(232, 640, 427), Ok((347, 232)));
    assert_eq!(resized(7, 7, 7), Ok((7, 7)));
    assert_eq!(spec(Resize::None).resized_size(3, 4), Ok((3, 4)));
    assert_eq!(spec(Resize::Exact).resized_size(3, 4), Ok((224, 224)));
    let starts = [224, 225, 226, 227, 228, 229, 231].map(|side| axis(1, side, 224).unwrap().start);
    assert_eq!(starts, [0, 0, 1, 2, 2, 2, 4]);
}

#[test]
fn hostile_sizes_are_refused() {
    let spec = |resize| Preprocess {
        resize,
        ..Lcg(1).spec_of(u16::MAX, u16::MAX)
    };
    let short = spec(Resize::ShorterSide(u16::MAX));
    assert_eq!(short.scratch_bytes(0, 5), Err(PreprocessError::EmptyImage));
    assert_eq!(
        short.scratch_bytes(u32::MAX, 5),
        Err(PreprocessError::ImageTooLarge)
    );
    assert_eq!(
        short.scratch_bytes(MAX_SIDE, 1),
        Err(PreprocessError::ImageTooLarge)
    );
    assert_eq!(
        spec(Resize::None).scratch_bytes(9, u32::from(u16::MAX)),
        Err(PreprocessError::CropTooLarge)
    );
    // Absurd, but within 64 bits.
    if cfg!(target_pointer_width = "64") {
        assert!(
            spec(Resize::Exact)
                .scratch_bytes(MAX_SIDE, MAX_SIDE)
                .unwrap()
                > 1 << 24
        );
    }
    for (width, height, resize) in [
        (0, 1, Resize::None),
        (1, 0, Resize::Exact),
        (1, 1, Resize::ShorterSide(0)),
    ] {
        let spec = Preprocess {
            width,
            height,
            resize,
            ..short
        };
        assert_eq!(spec.validate(), Err(PreprocessError::BadSpec));
        assert_eq!(spec.scratch_bytes(4, 4), Err(PreprocessError::BadSpec));
    }
    for bad in [f32::NAN, f32::INFINITY, 0.0] {
        let std = [1.0, 1.0, bad];
        assert_eq!(
            Preprocess { std, ..short }.validate(),
            Err(PreprocessError::BadSpec)
        );
    }
    assert_eq!(
        Preprocess {
            scale: f32::NAN,
            ..short
        }
        .validate(),
        Err(PreprocessError::BadSpec)
    );
    assert_eq!(
        Preprocess {
            mean: [f32::NAN; 3],
            ..short
        }
        .validate(),
        Err(PreprocessError::BadSpec)
    );
}

/// The formula of [`Preprocess::scratch_bytes`], on the usual evaluation pipeline.
#[test]
fn scratch_is_what_the_documentation_says() {
    let spec = Preprocess {
        resize: Resize::ShorterSide(256),
        filter: Filter::Bilinear,
        antialias: true,
        ..Lcg(1).spec_of(224, 224)
    };
    let taps = 3 + 1; // ⌈2 · 375 / 256⌉ + 1
    let expected = 224 * (8 + 4 * taps) + taps * (4 + 224 * 3);
    assert_eq!(spec.scratch_bytes(500, 375), Ok(expected));
    let plain = Preprocess {
        antialias: false,
        ..spec
    };
    assert_eq!(
        plain.scratch_bytes(500, 375),
        Ok(224 * (8 + 4 * 2) + 2 * (4 + 224 * 3))
    );
    let nearest = Preprocess {
        filter: Filter::Nearest,
        ..spec
    };
    assert_eq!(nearest.scratch_bytes(500, 375), Ok(224 * 4));
    assert_eq!(spec.scratch_bytes(256, 300), Ok(0));
}

#[test]
fn specifications_survive_postcard() {
    let mut random = Lcg(5);
    for _ in 0..100 {
        let spec = random.spec();
        let mut bytes = [0; 64];
        let bytes = postcard::to_slice(&spec, &mut bytes).unwrap();
        assert_eq!(postcard::from_bytes::<Preprocess>(bytes).unwrap(), spec);
    }
}

fn run(spec: &Preprocess, image: &ImageView<'_>) -> Vec<u8> {
    let need = spec.scratch_bytes(image.width(), image.height()).unwrap();
    let mut out = vec![0; spec.output_len()];
    spec.run_u8(image, &mut vec![0; need], &mut out).unwrap();
    out
}

/// Reads a line of `cases.txt`.
fn parse(case: &str) -> (Preprocess, &str, u32, u32, PixelFormat) {
    let fields: Vec<&str> = case.split_whitespace().collect();
    let [
        source,
        src_w,
        src_h,
        format,
        resize,
        filter,
        antialias,
        width,
        height,
        channels,
    ] = fields[..]
    else {
        panic!("{case}");
    };
    let spec = Preprocess {
        resize: match resize {
            "none" => Resize::None,
            "exact" => Resize::Exact,
            other => Resize::ShorterSide(other.strip_prefix("shorter:").unwrap().parse().unwrap()),
        },
        filter: match filter {
            "nearest" => Filter::Nearest,
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            "area" => Filter::Area,
            other => panic!("{other}"),
        },
        antialias: antialias == "antialias",
        channels: match channels {
            "rgb" => Channels::Rgb,
            "bgr" => Channels::Bgr,
            "gray" => Channels::Gray,
            other => panic!("{other}"),
        },
        ..Lcg(1).spec_of(width.parse().unwrap(), height.parse().unwrap())
    };
    let format = match format {
        "gray8" => PixelFormat::Gray8,
        "rgb8" => PixelFormat::Rgb8,
        "rgba8" => PixelFormat::Rgba8,
        other => panic!("{other}"),
    };
    (
        spec,
        source,
        src_w.parse().unwrap(),
        src_h.parse().unwrap(),
        format,
    )
}

/// A linear congruential generator.
struct Lcg(u32);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    fn format(&mut self) -> PixelFormat {
        use PixelFormat::*;
        [Gray8, Rgb8, Bgr8, Rgba8][self.below(4) as usize]
    }

    fn spec(&mut self) -> Preprocess {
        let (width, height) = (self.below(40) as u16, self.below(40) as u16);
        self.spec_of(width, height)
    }

    fn spec_of(&mut self, width: u16, height: u16) -> Preprocess {
        let short = self.below(80) as u16;
        Preprocess {
            resize: [Resize::None, Resize::Exact, Resize::ShorterSide(short)]
                [self.below(3) as usize],
            filter: [
                Filter::Nearest,
                Filter::Bilinear,
                Filter::Bicubic,
                Filter::Area,
            ][self.below(4) as usize],
            antialias: self.below(2) == 0,
            width,
            height,
            channels: [Channels::Rgb, Channels::Bgr, Channels::Gray][self.below(3) as usize],
            scale: 1.0 / 255.0,
            mean: [0.5, 0.25, 0.0],
            std: [0.25, 0.5, 1.0],
        }
    }
}
