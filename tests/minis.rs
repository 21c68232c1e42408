//! Two trained hybrids, on pictures they have not seen: int8 keeps the accuracy of float.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use ampoule::Classifier;
use ampoule::quantize::data::{ImageSet, RgbImage};
use ampoule::quantize::import;
use ampoule::quantize::model::{Compiled, Model};
use ampoule::quantize::pipeline::{QuantizeOptions, Silent, quantize, seal_float};
use ampoule::runtime::Isa;
use ampoule::runtime::preprocess::{Channels, Filter, Preprocess, Resize};

const NETWORKS: [&str; 2] = ["tinyvit-mini", "tiny-moat-mini"];
/// Points of top-1 accuracy that int8 may lose.
const POINTS: f64 = 1.0;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/minis")
}

/// Pixels to −1..1, as in training.
fn preprocess() -> Preprocess {
    Preprocess {
        resize: Resize::Exact,
        filter: Filter::Bilinear,
        antialias: true,
        width: 64,
        height: 64,
        channels: Channels::Rgb,
        scale: 1.0,
        mean: [127.5; 3],
        std: [127.5; 3],
    }
}

/// Pictures with their classes.
fn pictures(folder_name: &str, labels: &[String]) -> Vec<(RgbImage, usize)> {
    let set = ImageSet::open_with_classes(folder().join(folder_name), labels).unwrap();
    let set = set.labelled();
    set.images()
        .map(|sample| (sample.image, sample.class.unwrap() as usize))
        .collect()
}

fn calibration(labels: &[String]) -> Vec<Vec<Vec<f32>>> {
    let values = |(image, _): &(RgbImage, usize)| {
        let mut values = vec![0.0; image.pixels().len()];
        let pixels = image.pixels();
        preprocess().normalize_into(pixels, &mut values).unwrap();
        vec![values]
    };
    pictures("calibration", labels).iter().map(values).collect()
}

/// The scores of every picture.
fn answers(compiled: &Compiled, isa: Isa, pictures: &[(RgbImage, usize)]) -> Vec<Vec<f32>> {
    let model = Model::from_bytes(compiled.bytes.clone()).unwrap();
    let mut classifier = Classifier::new(model).unwrap().with_isa(isa).unwrap();
    pictures
        .iter()
        .map(|(image, _)| {
            let view = image.view().unwrap();
            classifier
                .run(&view, None, |session| session.run())
                .unwrap()
        })
        .collect()
}

fn top1(answers: &[Vec<f32>], pictures: &[(RgbImage, usize)]) -> f64 {
    let hits = answers.iter().zip(pictures).filter(|(scores, (_, class))| {
        let best =
            (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        best == Some(*class)
    });
    100.0 * hits.count() as f64 / pictures.len() as f64
}

fn cosine(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let pairs = || a.iter().flatten().zip(b.iter().flatten());
    let sum =
        |f: fn(f64, f64) -> f64| -> f64 { pairs().map(|(&x, &y)| f(x.into(), y.into())).sum() };
    sum(|x, y| x * y) / (sum(|x, _| x * x) * sum(|_, y| y * y)).sqrt()
}

#[test]
fn int8_keeps_the_accuracy_of_trained_hybrids() {
    let text = std::fs::read_to_string(folder().join("labels.txt")).unwrap();
    let labels: Vec<String> = text.lines().map(str::to_owned).collect();
    let test = pictures("test", &labels);
    for name in NETWORKS {
        let facts = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        assert_eq!(facts["test_pictures"], test.len());
        let graph = import::onnx(folder().join(format!("{name}.onnx")))
            .unwrap()
            .graph;
        let options = QuantizeOptions {
            preprocess: Some(preprocess()),
            labels: labels.clone(),
            ..QuantizeOptions::default()
        };
        let float = seal_float(&graph, &options).unwrap();
        let int8 = quantize(graph, &calibration(&labels), &options, &Silent).unwrap();
        let islands = &int8.compiled.program.islands;
        assert!(islands.is_empty(), "{name}: {islands:?}");

        let float = answers(&float, Isa::best(), &test);
        let claimed = facts["test_top1"].as_f64().unwrap();
        let ours = top1(&float, &test);
        assert!(
            (ours - claimed).abs() < 0.3,
            "{name}: {ours}, ONNX Runtime {claimed}"
        );

        let best = answers(&int8.compiled, Isa::best(), &test);
        // The weaker instruction sets are slow: they see some of the pictures.
        let some: Vec<_> = (0..test.len()).step_by(13).collect();
        let few: Vec<_> = some.iter().map(|&i| test[i].clone()).collect();
        let expected: Vec<_> = some.iter().map(|&i| best[i].clone()).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let got = answers(&int8.compiled, isa, &few);
            assert!(got == expected, "{name} on {}", isa.name());
        }

        let (before, after) = (top1(&float, &test), top1(&best, &test));
        println!(
            "{name}: float {before:.2} %, int8 {after:.2} %, cosine {:.4}, {} pictures",
            cosine(&float, &best),
            test.len(),
        );
        assert!(after >= before - POINTS, "{name}: {before} -> {after}");
    }
}
