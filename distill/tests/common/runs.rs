//! Outputs of networks: the engine's, and those of ONNX files in our own runtime.

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::{Graph, Map};
use ampoule_quantize::import;
use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::{prepare, to_stored};

/// Outputs of a graph in evaluation, `[height, width, channels]` each.
pub fn engine(graph: &Graph, values: &[Vec<f32>], inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut engine = Engine::new(graph.clone(), 1).unwrap();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let batch = inputs[0].len() / graph.map(graph.inputs()[0]).len();
    let mut values = values.to_vec();
    engine
        .forward(&mut values, &inputs, batch, Mode::EVAL)
        .unwrap();
    let outputs = 0..graph.outputs().len();
    outputs.map(|i| engine.output(i).to_vec()).collect()
}

/// Outputs of an ONNX file for inputs in the file's own layout.
pub fn imported(onnx: &[u8], inputs: &[(Vec<f32>, Vec<usize>)]) -> Vec<Vec<f32>> {
    let mut graph = import::onnx_bytes(onnx, &Default::default()).unwrap().graph;
    prepare(&mut graph, false).unwrap();
    let stored: Vec<Vec<f32>> = inputs
        .iter()
        .zip(&graph.inputs)
        .map(|((x, shape), port)| to_stored(x, shape, &port.layout))
        .collect();
    Model::float(&graph).unwrap().run_f32(&stored).unwrap()
}

/// `[H, W, C]` as an ONNX input: `[1, C, H, W]`, or tokens as they are.
pub fn as_input(x: &[f32], map: Map) -> (Vec<f32>, Vec<usize>) {
    let Map {
        height,
        width,
        channels: c,
    } = map;
    if height == 1 {
        return (x.to_vec(), vec![1, width, c]);
    }
    let pixels = height * width;
    let at = |i: usize| x[i % pixels * c + i / pixels];
    ((0..x.len()).map(at).collect(), vec![1, c, height, width])
}

/// Largest difference.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}
