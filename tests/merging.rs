//! Token merging: fewer tokens per layer, the same class scores where tokens are redundant, and the same
//! bytes on every instruction set.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use ampoule_quantize::graph::{Graph, GraphError, Op};
use ampoule_quantize::import;
use ampoule_quantize::model::Model;
use ampoule_quantize::passes;
use ampoule_quantize::passes::merge::{self, MergeError};
use ampoule_quantize::pipeline::{QuantizeOptions, Quantized, Silent, quantize};
use ampoule_runtime::Isa;
use common::{Lcg, vit};

fn family(name: &str) -> Graph {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/families");
    let mut graph = import::onnx(folder.join(format!("{name}.onnx")))
        .unwrap()
        .graph;
    passes::optimise::<GraphError>(&mut graph, None).unwrap();
    graph
}

/// A picture of large flat areas: a disc on a ground, both with a little noise.
fn redundant(side: usize) -> Vec<f32> {
    let mut rng = Lcg(9);
    let far = |i: usize| (i as f32 - 0.6 * side as f32).powi(2);
    let pixel = |y: usize, x: usize| match far(y) + far(x) < (0.2 * side as f32).powi(2) {
        true => [0.9, -0.4, 0.3],
        false => [-0.8, 0.1, 0.6],
    };
    (0..side * side)
        .flat_map(|i| pixel(i / side, i % side))
        .map(|v| v + 0.01 * rng.normal())
        .collect()
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

/// Cosine of two answers seen from a third, the answer to noise: what all answers share counts for nothing.
fn cosine_from(origin: &[f32], a: &[f32], b: &[f32]) -> f64 {
    let less = |v: &[f32]| -> Vec<f32> { v.iter().zip(origin).map(|(v, o)| v - o).collect() };
    cosine(&less(a), &less(b))
}

fn noise(side: usize) -> Vec<f32> {
    Lcg(11).values(side * side * 3, 1.0)
}

fn answer(graph: &Graph, input: &[f32]) -> Vec<f32> {
    let mut model = Model::float(graph).unwrap();
    model.run_f32(&[input.to_vec()]).unwrap().remove(0)
}

fn int8(graph: Graph, samples: &[Vec<Vec<f32>>], merge: usize) -> Quantized {
    let options = QuantizeOptions {
        merge,
        ..QuantizeOptions::default()
    };
    quantize(graph, &samples.to_vec(), &options, &Silent).unwrap()
}

#[test]
fn every_block_loses_its_tokens_and_their_work() {
    // 14 × 14 patches and a class token, twelve blocks, as ViT-Tiny has.
    let (channels, blocks) = (24, 12);
    let mut graph = vit(1, 112, channels, blocks).graph;
    passes::optimise::<GraphError>(&mut graph, None).unwrap();
    let before = graph.macs();
    let layers = merge::run(&mut graph, 13).unwrap();
    graph.validate().unwrap();
    let left: Vec<usize> = layers.iter().map(|l| l.tokens.1).collect();
    assert_eq!(
        left,
        [184, 171, 158, 145, 132, 119, 106, 93, 80, 67, 54, 41]
    );
    // Per token: qkv and projection see those before merging, the perceptron those after.
    let c = channels as u64;
    let (mut full, mut merged) = (0, 0);
    for layer in &layers {
        let block = |n: u64, m: u64| n * 4 * c * c + n * n * 2 * c + m * 8 * c * c;
        let (n, m) = (layer.tokens.0 as u64, layer.tokens.1 as u64);
        // The class token is neither joined nor joins.
        let (even, odd) = (n.div_ceil(2) - 1, n / 2);
        full += block(197, 197);
        merged += block(n, m) + even * odd * 8;
    }
    assert_eq!(before - graph.macs(), full - merged);
    println!("{before} → {} multiply-accumulates", graph.macs());
}

#[test]
fn nothing_merged_is_the_same_artifact() {
    let b = &mut vit(2, 40, 16, 2);
    let samples = b.samples(4);
    let plain = quantize(
        b.graph.clone(),
        &samples,
        &QuantizeOptions::default(),
        &Silent,
    )
    .unwrap();
    let none = int8(b.graph.clone(), &samples, 0);
    assert!(none.merged.is_empty());
    assert!(plain.compiled.bytes[..] == none.compiled.bytes[..]);
    let some = int8(b.graph.clone(), &samples, 3);
    assert!(plain.compiled.bytes[..] != some.compiled.bytes[..]);
}

#[test]
fn redundant_tokens_merge_without_loss() {
    let side = 112;
    let mut graph = vit(3, side, 48, 6).graph;
    passes::optimise::<GraphError>(&mut graph, None).unwrap();
    let picture = redundant(side);
    let (whole, origin) = (answer(&graph, &picture), answer(&graph, &noise(side)));
    merge::run(&mut graph, 24).unwrap();
    let merged = answer(&graph, &picture);
    let (plain, centred) = (
        cosine(&merged, &whole),
        cosine_from(&origin, &merged, &whole),
    );
    let other = cosine(&origin, &whole);
    println!("cosine {plain:.5}, {centred:.5} from the answer to noise, whose own is {other:.5}");
    assert!(plain >= 0.98 && centred >= 0.98, "{plain} {centred}");
}

#[test]
fn exported_transformers_merge() {
    for (name, protected) in [
        ("vit-tracer17", 1),
        ("vit-dynamo20", 1),
        ("deit-tracer17", 2),
        ("vit_reg-dynamo20", 4),
        ("clip_vit-tracer17", 1),
    ] {
        let mut graph = family(name);
        let tokens = 64 + protected;
        let picture = redundant(64);
        let (whole, origin) = (answer(&graph, &picture), answer(&graph, &noise(64)));
        let layers = merge::run(&mut graph, 8).unwrap();
        graph.validate().unwrap();
        let left: Vec<_> = layers.iter().map(|l| l.tokens).collect();
        assert_eq!(
            left,
            [(tokens, tokens - 8), (tokens - 8, tokens - 16)],
            "{name}"
        );
        let first = graph.nodes.iter().find_map(|n| match n.op {
            Op::Match(matching) => Some(matching),
            _ => None,
        });
        assert_eq!(first.unwrap().protected as usize, protected, "{name}");
        let cosine = cosine_from(&origin, &answer(&graph, &picture), &whole);
        println!("{name}: cosine {cosine:.4}");
        // Weights and positions are random here: no two tokens are alike.
        assert!(cosine > 0.99, "{name}: {cosine}");
    }
}

#[test]
fn what_can_not_merge_says_so() {
    for name in ["tiny_vit-tracer17", "moat-tracer17", "resnet18-tracer17"] {
        let mut graph = family(name);
        let nodes = graph.nodes.len();
        let outcome = merge::run(&mut graph, 4);
        assert_eq!(outcome, Err(MergeError::NoTokens), "{name}");
        assert_eq!(graph.nodes.len(), nodes);
    }
}

#[test]
fn int8_merges_alike_everywhere() {
    let side = 72;
    let b = &mut vit(4, side, 32, 3);
    let mut samples = b.samples(6);
    samples.push(vec![redundant(side)]);
    let done = int8(b.graph.clone(), &samples, 9);
    let islands = &done.compiled.program.islands;
    assert!(islands.is_empty(), "{islands:?}");
    let float: Vec<_> = samples.iter().map(|s| answer(&done.graph, &s[0])).collect();
    let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
    for (sample, float) in samples.iter().zip(&float) {
        let mut expected = None;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut session = model.session(isa).unwrap();
            assert_eq!(session.self_test(), Ok(2), "{}", isa.name());
            session.write_f32(0, &sample[0]).unwrap();
            session.run().unwrap();
            let bytes = session.output_bytes(0).unwrap().to_vec();
            assert_eq!(
                expected.get_or_insert(bytes.clone()),
                &bytes,
                "{}",
                isa.name()
            );
        }
        let got = model.run_f32(sample).unwrap();
        let cosine = cosine(&got[0], float);
        println!("int8 and float: {cosine:.4}");
        assert!(cosine > 0.95, "{cosine}");
    }
}
