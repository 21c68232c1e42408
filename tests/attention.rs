//! Transformers and hybrids in int8: no float islands, the same bytes on every instruction set, and
//! close to ONNX Runtime's float answers.
#![allow(missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use ampoule_quantize::graph::Graph;
use ampoule_quantize::import;
use ampoule_quantize::model::Model;
use ampoule_quantize::observe::observe;
use ampoule_quantize::passes::migrate;
use ampoule_quantize::pipeline::{
    QuantizeOptions, Quantized, Silent, quantize, source_shape, to_stored,
};
use ampoule_runtime::Isa;
use common::{Builder, Lcg};

/// Smallest cosine of int8 outputs and ONNX Runtime's, over the fixture's samples.
const COSINES: [(&str, f64); 6] = [
    ("vit-tracer17", 0.99),
    ("vit-dynamo20", 0.99),
    ("vit_reg-tracer17", 0.99),
    ("deit-tracer17", 0.99),
    ("swin-tracer17", 0.99),
    ("moat-tracer17", 0.99),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/families")
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// A fixture in int8, with its samples as stored inputs.
fn int8(name: &str) -> (Quantized, Vec<Vec<Vec<f32>>>) {
    let graph = import::onnx(folder().join(format!("{name}.onnx")))
        .unwrap()
        .graph;
    let (port, shape) = (
        graph.inputs[0].clone(),
        source_shape(&graph, &graph.inputs[0]),
    );
    let input = floats(&folder().join("input.bin"));
    let samples: Vec<&[f32]> = input.chunks_exact(shape.iter().product()).collect();
    let stored = |values: &[f32]| vec![to_stored(values, &shape, &port.layout)];
    let given: Vec<_> = samples.iter().map(|s| stored(s)).collect();
    // Calibration sees the samples and others like them.
    let mut rng = Lcg(5);
    let mut calibration = given.clone();
    for _ in 0..15 {
        for sample in &samples {
            let changed: Vec<f32> = sample
                .iter()
                .map(|v| v * 0.8 + rng.normal() * 0.6)
                .collect();
            calibration.push(stored(&changed));
        }
    }
    let done = quantize(graph, &calibration, &QuantizeOptions::default(), &Silent).unwrap();
    (done, given)
}

#[test]
fn migrated_ranges_leave_the_function_alone() {
    let mut b = Builder::new(3);
    let x = b.graph.input("image", &[1, 6, 5, 24]);
    let y = b.attention(x, 3);
    b.graph.output("y", y);
    // One channel of the normalisation is far wider than the others.
    let norm = b.graph.nodes[0].inputs[1];
    let mut gain = b.graph.constant(norm).unwrap().to_vec();
    gain[7] = 60.0;
    b.graph.value_mut(norm).data = Some(gain.into());
    let samples = b.samples(4);
    let answers = |graph: &Graph| -> Vec<Vec<f32>> {
        let mut model = Model::float(graph).unwrap();
        samples
            .iter()
            .map(|s| model.run_f32(s).unwrap().remove(0))
            .collect()
    };
    let statistics = observe(&b.graph, &samples, &|_| ()).unwrap();
    let before = answers(&b.graph);
    assert_eq!(
        migrate::run(&mut b.graph, &statistics),
        2,
        "normalisation and attention"
    );
    b.graph.validate().unwrap();
    for (before, after) in before.iter().zip(answers(&b.graph)) {
        let largest = before.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() <= 1e-4 * largest, "{a} {b}");
        }
    }
    // Channels are closer together, and what is packed in one tensor has one range.
    let statistics = observe(&b.graph, &samples, &|_| ()).unwrap();
    let widths = |v| -> Vec<f32> {
        let s = &statistics.channels[&v];
        s.max()
            .iter()
            .zip(s.min())
            .map(|(hi, lo)| hi.max(-lo))
            .collect()
    };
    let packed = widths(b.graph.nodes[1].output);
    let top = |part: &[f32]| part.iter().fold(0f32, |m, &v| m.max(v));
    let parts: Vec<f32> = packed.chunks_exact(24).map(top).collect();
    let (least, most) = (parts.iter().fold(f32::MAX, |m, &v| m.min(v)), top(&parts));
    assert!(most <= 1.5 * least, "{parts:?}");
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn int8_transformers_stay_close_to_the_source() {
    let mut missing = Vec::new();
    for (name, least) in COSINES {
        if !folder().join(format!("{name}.onnx")).exists() {
            missing.push(name);
            continue;
        }
        let (done, samples) = int8(name);
        assert!(
            done.compiled.program.islands.is_empty(),
            "{name}: {:?}",
            done.compiled.program.islands
        );
        let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
        let expected = floats(&folder().join(format!("{name}.output.bin")));
        let rows = expected.chunks_exact(expected.len() / samples.len());
        for (sample, expected) in samples.iter().zip(rows) {
            let got = model.run_f32(sample).unwrap();
            let cosine = cosine(&got[0], expected);
            println!("{name}: {cosine:.5}");
            assert!(cosine >= least, "{name}: {cosine}");
        }
    }
    println!("fixtures that are not here: {missing:?}");
    assert!(missing.iter().all(|name| !name.starts_with("vit-")));
}

#[test]
fn int8_attention_gives_the_same_bytes_everywhere() {
    for (name, _) in COSINES {
        if !folder().join(format!("{name}.onnx")).exists() {
            continue;
        }
        let (done, samples) = int8(name);
        let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
        let mut expected = None;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut session = model.session(isa).unwrap();
            assert_eq!(session.self_test(), Ok(2), "{name} {}", isa.name());
            session.write_f32(0, &samples[0][0]).unwrap();
            session.run().unwrap();
            let bytes = session.output_bytes(0).unwrap().to_vec();
            assert_eq!(
                expected.get_or_insert(bytes.clone()),
                &bytes,
                "{name} {}",
                isa.name()
            );
        }
    }
}
