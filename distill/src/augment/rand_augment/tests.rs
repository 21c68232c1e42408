use ampoule_quantize::data::decode;

use super::*;
use crate::augment::tests::sha256;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/");

fn operation(name: &str, number: f64) -> Operation {
    let affine = |c: f64, d: f64, e: f64, f: f64| Operation::Affine([1.0, c, d, e, 1.0, f]);
    match name {
        "auto_contrast" => Operation::AutoContrast,
        "equalize" => Operation::Equalize,
        "invert" => Operation::Invert,
        "posterize" => Operation::Posterize(number as u32),
        "solarize" => Operation::Solarize(number as u32),
        "solarize_add" => Operation::SolarizeAdd(number as u32),
        "colour" => Operation::Colour(number as f32),
        "contrast" => Operation::Contrast(number as f32),
        "brightness" => Operation::Brightness(number as f32),
        "sharpness" => Operation::Sharpness(number as f32),
        "rotate" => Operation::Rotate(number),
        "shear_x" => affine(number, 0.0, 0.0, 0.0),
        "shear_y" => affine(0.0, 0.0, number, 0.0),
        "translate_x" => affine(0.0, number, 0.0, 0.0),
        "translate_y" => affine(0.0, 0.0, 0.0, number),
        other => panic!("{other}"),
    }
}

#[test]
fn operations_equal_pillows() {
    let image = decode(format!("{FIXTURES}preprocess/fruit.png")).unwrap();
    let size = [image.width(), image.height()];
    let cases = std::fs::read_to_string(format!("{FIXTURES}augment/operations.txt")).unwrap();
    let mut wrong = Vec::new();
    for case in cases.lines() {
        let mut words = case.split(' ');
        let mut word = || words.next().unwrap();
        let (name, number, expected) = (word(), word().parse().unwrap(), word());
        let mut pixels = image.pixels().to_vec();
        operation(name, number).apply(&mut pixels, size);
        if sha256(&pixels) != expected {
            wrong.push(format!("{name} {number}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(cases.lines().count() >= 30);
}

#[test]
fn every_operation_keeps_the_size_of_any_picture() {
    for size in [[1, 1], [1, 5], [2, 2], [7, 1], [3, 4]] {
        let count = (size[0] * size[1] * 3) as usize;
        for kind in KINDS {
            for level in [0.0, 0.9, 1.0] {
                let mut pixels: Vec<u8> = (0..count).map(|i| (i * 37) as u8).collect();
                kind.at(level, -1.0, size).apply(&mut pixels, size);
                assert_eq!(pixels.len(), count, "{kind:?}");
            }
        }
    }
}

#[test]
fn strengths_are_timms_at_magnitude_nine() {
    let at = |kind: Kind| kind.at(0.9, 1.0, [200, 100]);
    assert_eq!(at(Kind::Rotate), Operation::Rotate(27.0));
    assert_eq!(at(Kind::Posterize), Operation::Posterize(1));
    assert_eq!(at(Kind::Solarize), Operation::Solarize(26));
    assert_eq!(at(Kind::SolarizeAdd), Operation::SolarizeAdd(99));
    assert_eq!(at(Kind::Brightness), Operation::Brightness(1.81));
    assert_eq!(
        Kind::Colour.at(1.0, -1.0, [1, 1]),
        Operation::Colour(0.1),
        "never quite grey"
    );
    assert_eq!(
        at(Kind::TranslateX),
        Operation::Affine([1.0, 0.0, 0.45 * 0.9 * 200.0, 0.0, 1.0, 0.0])
    );
}
