//! Transformers and hybrids in int8: no float islands, the same bytes on every instruction set, and
//! close to ONNX Runtime's float answers.
#![allow(missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use ampoule_quantize::graph::{Graph, Op};
use ampoule_quantize::import;
use ampoule_quantize::model::Model;
use ampoule_quantize::observe::observe;
use ampoule_quantize::passes::migrate;
use ampoule_quantize::pipeline::{
    QuantizeOptions, Quantized, Silent, quantize, source_shape, to_stored,
};
use ampoule_runtime::Isa;
use ampoule_runtime::ops::binary::BinaryKind;
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

/// Smallest cosine of an int8 model's outputs and those of its source graph, with the nodes that are not
/// int8.
fn int8_of(mut b: Builder) -> (f64, Vec<String>) {
    let samples = b.samples(8);
    let mut float = Model::float(&b.graph).unwrap();
    let done = quantize(b.graph, &samples, &QuantizeOptions::default(), &Silent).unwrap();
    let islands = done.compiled.program.islands.iter().map(|i| i.op.clone());
    let islands = islands.collect();
    let mut int8 = Model::from_bytes(done.compiled.bytes).unwrap();
    let mut least = 1.0f64;
    for sample in &samples {
        let (expected, got) = (
            float.run_f32(sample).unwrap(),
            int8.run_f32(sample).unwrap(),
        );
        for (e, g) in expected.iter().zip(&got) {
            least = least.min(cosine(e, g));
        }
    }
    (least, islands)
}

#[test]
fn tensors_that_serve_twice_keep_their_ranges() {
    // Starts of queries, keys and values among the channels of one layer, which has 72.
    for (q, k, v) in [(0, 24, 24), (0, 24, 0), (0, 0, 24), (0, 0, 0), (0, 4, 8)] {
        let mut b = Builder::new(11);
        let x = b.graph.input("image", &[1, 6, 5, 24]);
        let y = b.attention(x, 3);
        b.graph.output("y", y);
        for node in &mut b.graph.nodes {
            if let Op::Attention(op) = &mut node.op {
                op.geometry.q.start = q;
                op.geometry.k.start = k;
                op.geometry.v.start = v;
            }
        }
        let (cosine, islands) = int8_of(b);
        println!("{q} {k} {v}: {cosine:.5}");
        assert!(
            cosine >= 0.99 && islands.is_empty(),
            "{q} {k} {v}: {cosine}"
        );
    }
}

#[test]
fn masks_leave_the_codes_of_scores_that_count() {
    let binary = |kind| Op::Binary {
        kind,
        activation: None,
    };
    for (selected, fill) in [
        (false, -1e4),
        (false, f32::MIN),
        (false, f32::NEG_INFINITY),
        (true, -1e9),
        (true, f32::NEG_INFINITY),
    ] {
        let mut b = Builder::new(5);
        let x = b.graph.input("tokens", &[1, 12, 16]);
        let [q, k, v] = [0; 3].map(|_| b.linear(x, 16));
        let k = b.push("keys", Op::Transpose(vec![0, 2, 1]), &[k]);
        let mut y = b.push("scores", Op::MatMul, &[q, k]);
        if selected {
            let keep = (0..144).map(|i| f32::from(u8::from(i % 12 <= i / 12)));
            let keep = b.graph.constant_value("keep", &[12, 12], keep.collect());
            y = b.push("selected", binary(BinaryKind::Mul), &[y, keep]);
        }
        // The mask is in one constant with a bias.
        let bias = b.rng.values(144, 1.0);
        let mask = |(i, b)| if i % 12 <= i / 12 { b } else { fill };
        let mask = bias.into_iter().enumerate().map(mask).collect();
        let mask = b.graph.constant_value("mask", &[12, 12], mask);
        let y = b.push("masked", binary(BinaryKind::Add), &[y, mask]);
        let weights = b.push("weights", Op::Softmax { log: false }, &[y]);
        let y = b.push("mix", Op::MatMul, &[weights, v]);
        let y = b.linear(y, 16);
        // Two readers: it stays in its parts.
        b.graph.output("weights", weights);
        b.graph.output("y", y);
        let (cosine, islands) = int8_of(b);
        println!("{selected} {fill}: {cosine:.5}");
        assert!(
            cosine >= 0.99 && islands.is_empty(),
            "{selected} {fill}: {cosine}"
        );
    }
}

#[test]
fn what_is_too_long_for_int8_is_a_named_island() {
    let mut b = Builder::new(2);
    let x = b.graph.input("x", &[1, 16_400]);
    let (gain, offset) = (b.rng.values(16_400, 1.0), b.rng.values(16_400, 1.0));
    let gain = b.graph.constant_value("gain", &[16_400], gain);
    let offset = b.graph.constant_value("offset", &[16_400], offset);
    let y = b.push("norm", Op::LayerNorm { epsilon: 1e-5 }, &[x, gain, offset]);
    b.graph.output("y", y);
    let (cosine, islands) = int8_of(b);
    assert!(
        cosine > 0.99 && islands == ["LayerNorm"],
        "{cosine} {islands:?}"
    );

    let mut b = Builder::new(2);
    let x = b.graph.input("x", &[1, 65_600]);
    let y = b.linear(x, 3);
    b.graph.output("y", y);
    let (cosine, islands) = int8_of(b);
    assert!(
        cosine > 0.99 && islands == ["Linear"],
        "{cosine} {islands:?}"
    );

    let mut b = Builder::new(2);
    let x = b.graph.input("x", &[2, 32_800]);
    let t = b.push("t", Op::Transpose(vec![1, 0]), &[x]);
    let y = b.push("gram", Op::MatMul, &[x, t]);
    b.graph.output("y", y);
    let (cosine, islands) = int8_of(b);
    assert!(
        cosine > 0.99 && islands == ["MatMul"],
        "{cosine} {islands:?}"
    );
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
