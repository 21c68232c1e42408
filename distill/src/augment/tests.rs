use ampoule_quantize::data::{RgbImage, decode};
use sha2::{Digest, Sha256};

use super::*;

pub(super) fn sha256(bytes: &[u8]) -> String {
    crate::hex(&Sha256::digest(bytes))
}

fn photo() -> RgbImage {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/preprocess/fruit.png"
    );
    decode(path).unwrap()
}

/// Pixels of many seeds in one hash. A change here is a change of [`AUGMENTATION_VERSION`].
fn fingerprint(augmentation: &Augmentation) -> String {
    let image = photo();
    let picture = |seed| augmentation.picture(&image, seed).unwrap();
    let mut all = Vec::new();
    for seed in 0..64 {
        let (mut a, mut b) = (picture(2 * seed), picture(2 * seed + 1));
        augmentation.mix([&mut a, &mut b], [2 * seed, 2 * seed + 1]);
        all.extend([a, b].concat());
    }
    sha256(&all)[..16].to_owned()
}

#[test]
fn pixels_are_the_golden_ones() {
    let mixed = Augmentation {
        mix: Some(Mix::default()),
        ..Augmentation::standard([32, 24])
    };
    let got = [
        fingerprint(&Augmentation::none([32, 24], Resize::ShorterSide(40))),
        fingerprint(&Augmentation::light([32, 24])),
        fingerprint(&Augmentation::standard([32, 24])),
        fingerprint(&mixed),
    ];
    let golden = [
        "7178199b473b0fa2",
        "0a51b26a1b4961ed",
        "a1dcaaab88fa8d31",
        "6c27a59023bba207",
    ];
    assert_eq!(got, golden);
}

#[test]
fn only_the_seed_matters() {
    let (image, augmentation) = (photo(), Augmentation::standard([16, 16]));
    let all = |threads: usize| {
        let mut pictures = vec![Vec::new(); 64];
        let chunk = pictures.len().div_ceil(threads);
        std::thread::scope(|scope| {
            for (i, part) in pictures.chunks_mut(chunk).enumerate() {
                let (image, augmentation) = (&image, &augmentation);
                scope.spawn(move || {
                    for (j, picture) in part.iter_mut().enumerate() {
                        let seed = (i * chunk + j) as i32;
                        *picture = augmentation.picture(image, seed).unwrap();
                    }
                });
            }
        });
        pictures
    };
    let one = all(1);
    assert!(one == all(3) && one == all(7));
    let distinct: std::collections::HashSet<_> = one.iter().collect();
    assert_eq!(distinct.len(), one.len());
}

#[test]
fn flips_turn_rows_around() {
    let mut pixels: Vec<u8> = (0..12).collect();
    flip(&mut pixels, [2, 2]);
    assert_eq!(pixels, [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
}

#[test]
fn settings_survive_json_and_bad_ones_are_named() {
    let good = Augmentation {
        mix: Some(Mix::default()),
        ..Augmentation::standard([224, 224])
    };
    good.validate().unwrap();
    assert!(good.is_random());
    assert!(!Augmentation::none([8, 8], Resize::Exact).is_random());
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Augmentation>(&text).unwrap(), good);
    assert!(serde_json::from_str::<Augmentation>(&text.replace("flip", "flop")).is_err());
    let random = |scale, ratio| Augmentation {
        crop: Crop::Random { scale, ratio },
        ..good.clone()
    };
    let wrong = [
        (
            "version",
            Augmentation {
                version: 0,
                ..good.clone()
            },
        ),
        (
            "size",
            Augmentation {
                size: [0, 4],
                ..good.clone()
            },
        ),
        (
            "flip",
            Augmentation {
                flip: f64::NAN,
                ..good.clone()
            },
        ),
        ("crop scale", random([0.0, 1.0], [1.0, 1.0])),
        ("crop ratio", random([0.1, 1.0], [2.0, 1.0])),
        (
            "mix α",
            Augmentation {
                mix: Some(Mix {
                    mixup: 1e-3,
                    ..Mix::default()
                }),
                ..good.clone()
            },
        ),
    ];
    for (field, settings) in wrong {
        assert_eq!(settings.validate().unwrap_err().field, field);
    }
}
