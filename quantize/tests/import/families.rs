//! Whole networks.

use std::path::Path;

use ampoule_quantize::graph::{Graph, GraphError};
use ampoule_quantize::{import, passes};

use crate::fixtures::{data, difference, fixtures, models, noise, run, source_shape, summary};
use crate::interpret::interpret;

/// Largest relative difference between the graph and the oracle on noise.
fn parity(path: &Path, graph: &Graph) -> f32 {
    let oracle = import::Oracle::load(path).unwrap();
    let shapes: Vec<Vec<usize>> = graph
        .inputs
        .iter()
        .map(|p| source_shape(graph, p))
        .collect();
    let inputs: Vec<Vec<f32>> = shapes
        .iter()
        .map(|s| noise(s.iter().product(), 1))
        .collect();
    let views: Vec<(&[usize], &[f32])> = shapes
        .iter()
        .zip(&inputs)
        .map(|(s, d)| (&s[..], &d[..]))
        .collect();
    let expected = oracle.run(&views).unwrap();
    let got = run(graph, interpret, &inputs);
    assert_eq!(got.len(), expected.len());
    got.iter()
        .zip(&expected)
        .map(|(g, (_, e))| difference(g, e))
        .fold(0.0, f32::max)
}

#[test]
fn imported_graphs_match_the_oracle() {
    for path in models(&fixtures().join("models")) {
        let imported = import::onnx(&path).unwrap_or_else(|e| panic!("{e}"));
        imported.graph.validate().unwrap();
        let d = parity(&path, &imported.graph);
        assert!(d < 1e-4, "{}: {d}", path.display());
    }
}

#[test]
fn optimised_graphs_match_the_oracle() {
    for path in models(&fixtures().join("models")) {
        let mut graph = import::onnx(&path).unwrap_or_else(|e| panic!("{e}")).graph;
        let before = graph.nodes.len();
        let mut check = |pass: &str, graph: &Graph| {
            graph.validate()?;
            let d = parity(&path, graph);
            assert!(d < 1e-4, "{} after {pass}: {d}", path.display());
            Ok(())
        };
        passes::optimise::<GraphError>(&mut graph, Some(&mut check)).unwrap();
        println!(
            "{:40} {before:4} -> {}",
            path.file_name().unwrap().to_string_lossy(),
            summary(&graph)
        );
    }
}

/// Optimises a file's graph and counts its nodes.
fn optimised(path: &Path) -> Graph {
    let mut graph = import::onnx(path).unwrap_or_else(|e| panic!("{e}")).graph;
    passes::optimise::<GraphError>(&mut graph, None).unwrap();
    graph.validate().unwrap();
    graph
}

#[test]
fn efficientnet_lite0_becomes_what_it_was_trained_as() {
    let Some(data) = data() else {
        println!("skipped: no data directory");
        return;
    };
    let path = data.join("imagenet-classifier/efficientnet_lite0_fp32_b1.onnx");
    let graph = optimised(&path);
    println!("{}", summary(&graph));
    println!("parity {}", parity(&path, &graph));
}
