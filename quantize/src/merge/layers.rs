//! Layers of an ONNX file by the names that the network's source gives them.
//!
//! Exporters rename weights: PyTorch's tracer transposes those of `Linear` and calls them `onnx::MatMul_227`. The
//! layer's name is then in the node's scope (`/blocks/blocks.0/attn/qkv/MatMul`), in the metadata that the newer
//! exporter writes, or in the bias that is added to the product.

use std::collections::{BTreeSet, HashMap};

use tract_onnx::pb::NodeProto;

use super::error::MergeError;
use super::file::OnnxFile;

/// A convolution or matrix product with a constant weight.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Node's name.
    pub node: String,
    /// Paths that it may have in the network's source.
    pub names: BTreeSet<String>,
    /// Its initialiser.
    pub weight: usize,
    /// Whether that is `[in, out]`.
    pub is_transposed: bool,
}

/// All layers of a file.
pub(super) fn layers(file: &OnnxFile) -> Vec<Layer> {
    let graph = file.graph();
    let initializers = file.initializers().iter().enumerate();
    let index: HashMap<&str, usize> = initializers.map(|(i, t)| (&*t.name, i)).collect();
    let makers = graph.node.iter();
    let makers: HashMap<&str, &NodeProto> = makers
        .flat_map(|n| n.output.iter().map(move |o| (&**o, n)))
        .collect();
    let adds: HashMap<&str, &NodeProto> = graph
        .node
        .iter()
        .filter(|n| n.op_type == "Add")
        .flat_map(|n| n.input.iter().map(move |i| (&**i, n)))
        .collect();
    let mut scopes = file.scopes().into_iter();
    let mut out = Vec::new();
    for node in &graph.node {
        let scope = scopes.next().flatten();
        let mut is_transposed = match &*node.op_type {
            "Conv" => false,
            "MatMul" => true,
            "Gemm" => integer(node, "transB") == 0,
            _ => continue,
        };
        // Weights may come through a transposition that nobody folded.
        let mut operand = node.input.get(1).map_or("", |i| &**i);
        while let Some(maker) = makers.get(operand) {
            match &*maker.op_type {
                "Transpose" => is_transposed ^= true,
                "Identity" => {}
                _ => break,
            }
            operand = maker.input.first().map_or("", |i| &**i);
        }
        let Some(&weight) = index.get(operand).filter(|&&i| file.is_float(i)) else {
            continue;
        };
        let after = node.output.first().and_then(|o| adds.get(&**o));
        let biases = node.input.get(2).into_iter();
        let biases = biases.chain(after.into_iter().flat_map(|n| &n.input));
        let mut names: BTreeSet<String> = biases
            .filter(|b| index.contains_key(&***b))
            .filter_map(|b| b.strip_suffix(".bias"))
            .map(str::to_owned)
            .collect();
        names.extend(operand.strip_suffix(".weight").map(str::to_owned));
        names.extend(scope.filter(|s| !s.is_empty()));
        names.extend(module(&node.name));
        out.push(Layer {
            node: node.name.clone(),
            names,
            weight,
            is_transposed,
        });
    }
    out
}

/// Finds a layer: by its whole name, or else the only one whose name ends with it or that it ends with, as
/// wrappers add the beginnings.
pub(super) fn find<'l>(
    file: &OnnxFile,
    layers: &'l [Layer],
    name: &str,
) -> Result<&'l Layer, MergeError> {
    let within = |long: &str, short: &str| {
        let rest = long.strip_suffix(short);
        rest.is_some_and(|rest| rest.ends_with('.'))
    };
    let exact = |n: &String| n == name;
    let similar = |n: &String| within(n, name) || within(name, n);
    let by = |fits: &dyn Fn(&String) -> bool| -> Vec<&Layer> {
        layers.iter().filter(|l| l.names.iter().any(fits)).collect()
    };
    let found = match by(&exact) {
        found if found.is_empty() => by(&similar),
        found => found,
    };
    let weights: BTreeSet<usize> = found.iter().map(|l| l.weight).collect();
    match (found.first(), weights.len()) {
        (Some(layer), 1) => Ok(layer),
        (None, _) => Err(MergeError::NoSuchLayer {
            layer: name.to_owned(),
            layers: layers.len(),
            nearest: nearest(layers, name),
        }),
        _ => Err(MergeError::Ambiguous {
            layer: name.to_owned(),
            candidates: weights
                .iter()
                .map(|&w| file.initializers()[w].name.clone())
                .collect(),
        }),
    }
}

/// Finds a layer by the name of its initialiser or node.
pub(super) fn find_mapped<'l>(
    file: &OnnxFile,
    layers: &'l [Layer],
    layer: &str,
    target: &str,
) -> Result<&'l Layer, MergeError> {
    let is = |l: &&Layer| l.node == target || file.initializers()[l.weight].name == target;
    layers
        .iter()
        .find(is)
        .ok_or_else(|| MergeError::NoSuchLayer {
            layer: format!("{target}` (for `{layer}"),
            layers: layers.len(),
            nearest: nearest(layers, target),
        })
}

/// The path of the module that a tracer's node is in: `/blocks/blocks.0/attn/qkv/MatMul` is of `blocks.0.attn.qkv`.
fn module(node: &str) -> Option<String> {
    let scope = node.strip_prefix('/')?;
    let parts: Vec<&str> = scope.split('/').collect();
    let (_, parts) = parts.split_last()?;
    // The members of a list are `blocks.0` inside of `blocks`.
    let inside = |i: usize| {
        let next = parts.get(i + 1).and_then(|n| n.strip_prefix(parts[i]));
        next.is_some_and(|rest| rest.starts_with('.'))
    };
    let own: Vec<&str> = (0..parts.len())
        .filter(|&i| !inside(i))
        .map(|i| parts[i])
        .collect();
    (!own.is_empty()).then(|| own.join("."))
}

fn integer(node: &NodeProto, name: &str) -> i64 {
    let mut attributes = node.attribute.iter();
    attributes.find(|a| a.name == name).map_or(0, |a| a.i)
}

/// The name that shares most with another.
fn nearest(layers: &[Layer], name: &str) -> String {
    let common = |other: &&String| {
        let ends = |a: &str, b: &str| {
            a.chars()
                .rev()
                .zip(b.chars().rev())
                .take_while(|(a, b)| a == b)
                .count()
        };
        let starts = other.chars().zip(name.chars());
        starts.take_while(|(a, b)| a == b).count() + ends(other, name)
    };
    let names = layers.iter().flat_map(|l| &l.names);
    names.max_by_key(common).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_module_paths() {
        let is = |node: &str, path: &str| assert_eq!(module(node).as_deref(), Some(path));
        is("/blocks/blocks.0/attn/qkv/MatMul", "blocks.0.attn.qkv");
        is("/patch_embed/proj/Conv", "patch_embed.proj");
        is(
            "/stages/stages.1/blocks/blocks.0/fc/MatMul",
            "stages.1.blocks.0.fc",
        );
        assert_eq!(module("/MatMul"), None);
        assert_eq!(module("node_MatMul_11"), None);
    }
}
