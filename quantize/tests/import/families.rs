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

/// After every pass for one exporter, at the end for the others.
#[test]
fn optimised_graphs_match_the_oracle() {
    for path in models(&fixtures().join("models")) {
        let mut graph = import::onnx(&path).unwrap_or_else(|e| panic!("{e}")).graph;
        let before = graph.nodes.len();
        let twin = path.to_string_lossy().contains("-dyn");
        let mut check = |pass: &str, graph: &Graph| {
            graph.validate()?;
            let d = if twin { 0.0 } else { parity(&path, graph) };
            assert!(d < 1e-4, "{} after {pass}: {d}", path.display());
            Ok(())
        };
        passes::optimise::<GraphError>(&mut graph, Some(&mut check)).unwrap();
        let d = parity(&path, &graph);
        assert!(d < 1e-4, "{}: {d}", path.display());
        let name = path.file_name().unwrap().to_string_lossy();
        println!("{name:40} {before:4} -> {}", summary(&graph));
    }
}

/// What a file's graph becomes.
fn optimised(path: &Path) -> Graph {
    let mut graph = import::onnx(path).unwrap_or_else(|e| panic!("{e}")).graph;
    passes::optimise::<GraphError>(&mut graph, None).unwrap();
    graph.validate().unwrap();
    graph
}

#[test]
fn networks_become_what_they_were_trained_as() {
    let expected = [
        (
            "mlperf-tiny/ic_resnet8_float",
            "AveragePool 1, Conv 2, Conv+Relu 4, Conv+r+Relu 3, Linear 1, Reshape 1, Softmax 1",
        ),
        (
            "mlperf-tiny/vww_mobilenet025_float",
            "AveragePool 1, Conv+Relu 27, Linear 1, Reshape 1, Softmax 1",
        ),
        (
            "mlperf-tiny/ad_autoencoder_float",
            "Linear 1, Linear+Relu 9",
        ),
        (
            "families/mobilenet_v1-tracer17",
            "Conv+Clamp(0.0, 6.0) 27, Linear 1, ReduceMean 1, Reshape 1",
        ),
        (
            "families/mobilenet_v3_small-bn11",
            "Conv 4, Conv+HardSigmoid(0.16666667, 0.5) 7, Conv+HardSwish 15, Conv+Relu 12, Conv+r 5, Linear 1, Mul 7, ReduceMean 8, Reshape 1",
        ),
        (
            "families/convnext-tracer17",
            "Conv 9, LayerNorm 10, Linear 1, Linear+GeluErf 5, Linear+r 5, ReduceMean 1, Reshape 1",
        ),
        (
            "families/vit-dynamo20",
            "Add 1, Attention 2, Concat 1, Conv 1, LayerNorm 5, Linear 3, Linear+GeluErf 2, Linear+r 4, Reshape 2, Slice 1",
        ),
        (
            "families/resnet18-bn11",
            "Conv 3, Conv+Relu 9, Conv+r+Relu 8, Linear 1, MaxPool 1, ReduceMean 1, Reshape 1",
        ),
    ];
    for (name, nodes) in expected {
        let path = fixtures().join(format!("models/{name}.onnx"));
        assert_eq!(summary(&optimised(&path)), nodes, "{name}");
    }
}

#[test]
fn exporters_agree() {
    let folder = fixtures().join("models/families");
    for path in models(&folder)
        .iter()
        .filter(|p| p.to_string_lossy().contains("-tracer17"))
    {
        let twin = path.to_string_lossy().replace("-tracer17", "-dynamo20");
        let (a, b) = (optimised(path), optimised(Path::new(&twin)));
        assert_eq!(summary(&a), summary(&b), "{}", path.display());
        assert_eq!(a.macs(), b.macs());
    }
}

#[test]
fn efficientnet_lite0_keeps_its_convolutions_only() {
    let Some(data) = data() else {
        println!("skipped: no data directory");
        return;
    };
    let path = data.join("imagenet-classifier/efficientnet_lite0_fp32_b1.onnx");
    let graph = optimised(&path);
    assert_eq!(
        summary(&graph),
        "Conv 7, Conv+Clamp(0.0, 6.0) 33, Conv+r 9, Linear 1, ReduceMean 1, Reshape 1"
    );
    let d = parity(&path, &graph);
    assert!(d < 1e-4, "{d}");
}
