//! Whole networks.

use std::path::Path;

use ampoule_quantize::graph::{Graph, GraphError};
use ampoule_quantize::{import, passes};

use rayon::prelude::*;

use crate::fixtures::{
    Executor, data, difference, fixtures, models, noise, run, sealed, source_shape, summary,
};
use crate::interpret::interpret;

/// A file's outputs on noise, by the oracle.
struct Expected {
    inputs: Vec<Vec<f32>>,
    outputs: Vec<Vec<f32>>,
}

impl Expected {
    /// For the file that `graph` was imported from.
    fn new(path: &Path, graph: &Graph) -> Self {
        let oracle = import::Oracle::load(path).unwrap();
        let shapes = graph.inputs.iter().map(|p| source_shape(graph, p));
        let shapes: Vec<Vec<usize>> = shapes.collect();
        let inputs: Vec<Vec<f32>> = shapes
            .iter()
            .map(|s| noise(s.iter().product(), 1))
            .collect();
        let views: Vec<(&[usize], &[f32])> = shapes
            .iter()
            .zip(&inputs)
            .map(|(s, d)| (&s[..], &d[..]))
            .collect();
        let outputs = oracle.run(&views).unwrap();
        Expected {
            outputs: outputs.into_iter().map(|(_, data)| data).collect(),
            inputs,
        }
    }

    /// Largest relative difference of what a graph computes.
    fn parity(&self, graph: &Graph, execute: Executor) -> f32 {
        let got = run(graph, execute, &self.inputs).unwrap();
        assert_eq!(got.len(), self.outputs.len());
        got.iter()
            .zip(&self.outputs)
            .map(|(g, e)| difference(g, e))
            .fold(0.0, f32::max)
    }
}

/// After import, after every pass for one exporter, and at the end, there on the runtime too.
#[test]
fn graphs_match_the_oracle_at_every_stage() {
    models(&fixtures().join("models"))
        .par_iter()
        .for_each(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            let mut graph = import::onnx(path).unwrap_or_else(|e| panic!("{e}")).graph;
            let expected = Expected::new(path, &graph);
            let before = graph.nodes.len();
            let twin = name.contains("-dyn");
            let check = |stage: &str, graph: &Graph, execute: Executor| {
                let d = expected.parity(graph, execute);
                assert!(d < 1e-4, "{name} after {stage}: {d}");
            };
            graph.validate().unwrap();
            check("import", &graph, interpret);
            let mut each = |pass: &str, graph: &Graph| {
                graph.validate()?;
                if !twin {
                    check(pass, graph, interpret);
                }
                Ok(())
            };
            passes::optimise::<GraphError>(&mut graph, Some(&mut each)).unwrap();
            check("all passes", &graph, interpret);
            check("sealing", &graph, sealed);
            println!("{name:40} {before:4} -> {}", summary(&graph));
        });
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
    let d = Expected::new(&path, &graph).parity(&graph, sealed);
    assert!(d < 1e-4, "{d}");
}
