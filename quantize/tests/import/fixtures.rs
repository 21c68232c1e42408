//! Fixture files, and comparison of results.

use std::path::{Path, PathBuf};

use ampoule_quantize::graph::{Graph, Op, Port};
use ampoule_quantize::model::Model;

/// Runs a graph on inputs in its own layout. The interpreter is one; [`sealed`] another.
pub type Executor = fn(&Graph, &[Vec<f32>]) -> Result<Vec<Vec<f32>>, String>;

/// Runs a graph on the runtime: lowered to float steps, planned, sealed and verified.
pub fn sealed(graph: &Graph, inputs: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, String> {
    Model::float(graph)
        .and_then(|mut model| model.run_f32(inputs))
        .map_err(|e| e.to_string())
}

/// The repository's fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// The data directory, where there is one.
pub fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("AMPOULE_DATA").map_or(beside, PathBuf::from);
    path.is_dir().then_some(path)
}

/// All ONNX files below a folder, sorted.
pub fn models(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .flat_map(|p| if p.is_dir() { models(&p) } else { vec![p] })
        .collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    found.sort();
    found
}

/// The repository's float networks.
pub fn float_models() -> Vec<PathBuf> {
    let mut all = models(&fixtures().join("models"));
    all.retain(|p| !p.iter().any(|part| part == "quantised"));
    all
}

/// Shape of a port in the source model.
pub fn source_shape(graph: &Graph, port: &Port) -> Vec<usize> {
    port.layout
        .iter()
        .map(|&d| graph.shape(port.value)[d])
        .collect()
}

/// Inputs in the graph's own layout.
pub fn to_stored(graph: &Graph, inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
    graph
        .inputs
        .iter()
        .zip(inputs)
        .map(|(port, data)| {
            let mut back = vec![0; port.layout.len()];
            port.layout
                .iter()
                .enumerate()
                .for_each(|(i, &d)| back[d] = i);
            permute(data, &source_shape(graph, port), &back)
        })
        .collect()
}

/// Runs `graph` on inputs in the source model's layout; gives outputs in that layout.
pub fn run(graph: &Graph, execute: Executor, inputs: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, String> {
    let outputs = execute(graph, &to_stored(graph, inputs))?;
    Ok(graph
        .outputs
        .iter()
        .zip(outputs)
        .map(|(port, data)| permute(&data, graph.shape(port.value), &port.layout))
        .collect())
}

fn permute(data: &[f32], shape: &[usize], perm: &[usize]) -> Vec<f32> {
    let out: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let mut at = vec![0; out.len()];
    let mut result = Vec::with_capacity(data.len());
    for _ in 0..data.len() {
        let mut from = vec![0; shape.len()];
        perm.iter().zip(&at).for_each(|(&p, &i)| from[p] = i);
        result.push(data[from.iter().zip(shape).fold(0, |o, (i, n)| o * n + i)]);
        for d in (0..out.len()).rev() {
            at[d] += 1;
            if at[d] < out[d] {
                break;
            }
            at[d] = 0;
        }
    }
    result
}

/// Deterministic values in −1..1.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Largest difference, relative to the largest expected magnitude; infinite when lengths or NaNs differ.
pub fn difference(got: &[f32], expected: &[f32]) -> f32 {
    if got.len() != expected.len() {
        return f32::INFINITY;
    }
    let top = expected
        .iter()
        .filter(|x| x.is_finite())
        .fold(1e-3f32, |m, x| m.max(x.abs()));
    let one = |(g, e): (&f32, &f32)| match (g.is_nan(), e.is_nan()) {
        (true, true) => 0.0,
        (false, false) if g == e => 0.0,
        (false, false) => (g - e).abs() / top,
        _ => f32::INFINITY,
    };
    got.iter().zip(expected).map(one).fold(0.0, f32::max)
}

/// Number of nodes by operator and what is fused into it.
pub fn summary(graph: &Graph) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for node in &graph.nodes {
        let residual = matches!(
            node.op,
            Op::Conv { residual: true, .. } | Op::Linear { residual: true, .. }
        );
        let activation = node
            .op
            .activation()
            .map_or(String::new(), |a| format!("+{a:?}"));
        *counts
            .entry(format!(
                "{}{}{activation}",
                node.op.name(),
                if residual { "+r" } else { "" }
            ))
            .or_insert(0) += 1;
    }
    counts
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect::<Vec<_>>()
        .join(", ")
}
