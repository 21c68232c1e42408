//! Cross-layer equalisation (Nagel et al. 2019, *Data-Free Quantization*, section 4.1).
//!
//! Between two layers with a positively homogeneous function in the middle, channel `i` may be divided
//! by any `s > 0` in the first and multiplied by it in the second: the float output stays. The `s` that
//! gives both layers the same weight range in that channel also evens out the ranges of the
//! activations between them, which share one scale.

mod layer;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use ampoule_runtime::ops::unary::UnaryKind;

use crate::graph::{Graph, Op, ValueId};
use layer::Layer;

/// Passes over all pairs at most.
const MOST_SWEEPS: usize = 20;
/// A sweep that changes no channel by more than this factor is the last.
const SETTLED: f64 = 1.001;

/// What [`equalise`] did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Equalised {
    /// Pairs of layers found; a chain of three layers is two pairs.
    pub pairs: usize,
    /// Passes over all pairs until nothing changed.
    pub sweeps: usize,
    /// Largest factor by which a channel was scaled up or down; 1 when none was.
    pub largest_factor: f64,
}

/// Equalises the weights of every pair of layers that allows it: convolutions (any grouping) and
/// linear layers whose output has a single reader and goes through nothing but ReLU, leaky ReLU,
/// pooling, spatial reductions, resizing, zero padding and channel-keeping reshapes into the next one.
///
/// A channel's bias never grows beyond the layer's largest: a nearly dead channel with a bias would
/// otherwise take over the range of the activations.
pub fn equalise(graph: &mut Graph) -> Equalised {
    let pairs = find_pairs(graph);
    let mut layers: HashMap<usize, Layer> = HashMap::new();
    for node in pairs.iter().flat_map(|&(a, b)| [a, b]) {
        if let Some(layer) = Layer::of(graph, node) {
            layers.entry(node).or_insert(layer);
        }
    }
    let mut sweeps = 0;
    while sweeps < MOST_SWEEPS && !pairs.is_empty() {
        sweeps += 1;
        let changes = pairs.iter().map(|&pair| balance(&mut layers, pair));
        if changes.fold(1.0, f64::max) < SETTLED {
            break;
        }
    }
    let largest_factor = layers
        .values()
        .map(Layer::largest_factor)
        .fold(1.0, f64::max);
    let mut order: Vec<_> = layers.into_iter().collect();
    order.sort_by_key(|(node, _)| *node);
    for (node, layer) in order {
        layer.store(graph, node);
    }
    Equalised {
        pairs: pairs.len(),
        sweeps,
        largest_factor,
    }
}

/// Scales every channel between two layers to the same range on both sides; the largest factor used.
fn balance(layers: &mut HashMap<usize, Layer>, (first, second): (usize, usize)) -> f64 {
    let (Some(a), Some(b)) = (layers.get(&first), layers.get(&second)) else {
        return 1.0;
    };
    let (produced, consumed) = (a.row_ranges(), b.column_ranges());
    let ratio = |c: usize| match produced[c] > 0.0 && consumed[c] > 0.0 {
        true => (consumed[c] / produced[c]).sqrt(),
        false => 1.0,
    };
    let factors: Vec<f64> = (0..produced.len())
        .map(|c| a.allowed_factor(c, ratio(c)))
        .collect();
    if let Some(a) = layers.get_mut(&first) {
        a.scale_rows(&factors);
    }
    if let Some(b) = layers.get_mut(&second) {
        b.unscale_columns(&factors);
    }
    factors.iter().map(|f| f.max(1.0 / f)).fold(1.0, f64::max)
}

/// Pairs of nodes in execution order that share their channels.
fn find_pairs(graph: &Graph) -> Vec<(usize, usize)> {
    let consumers = graph.consumers();
    let outputs: HashSet<ValueId> = graph.outputs.iter().map(|p| p.value).collect();
    let only_reader = |value: ValueId| match consumers.get(&value).map(Vec::as_slice) {
        Some([reader]) if !outputs.contains(&value) => Some(*reader),
        _ => None,
    };
    let next_layer = |node: usize| {
        let mut value = graph.nodes[node].output;
        loop {
            let reader = only_reader(value)?;
            let next = &graph.nodes[reader];
            if next.inputs.first() != Some(&value) {
                return None; // it is the residual or an operand of a product
            }
            if Layer::of(graph, reader).is_some() {
                return Some(reader);
            }
            if !keeps_channel_scales(&next.op, graph.shape(value), graph.shape(next.output)) {
                return None;
            }
            value = next.output;
        }
    };
    let starts = (0..graph.nodes.len())
        .filter(|&n| may_start(&graph.nodes[n].op) && Layer::of(graph, n).is_some());
    let pairs = starts.filter_map(|n| next_layer(n).map(|m| (n, m)));
    pairs
        .filter(|&(n, m)| channels_agree(graph, n, m))
        .collect()
}

/// Whether the output scales with the layer's rows.
fn may_start(op: &Op) -> bool {
    let residual = matches!(
        op,
        Op::Conv { residual: true, .. } | Op::Linear { residual: true, .. }
    );
    !residual && op.activation().is_none_or(is_homogeneous)
}

/// Whether `f(s·x) = s·f(x)` for all `s > 0`.
fn is_homogeneous(kind: UnaryKind) -> bool {
    matches!(kind, UnaryKind::Relu | UnaryKind::LeakyRelu(_))
}

/// Whether scaling a channel of the input scales the same channel of the output.
fn keeps_channel_scales(op: &Op, input: &[usize], output: &[usize]) -> bool {
    let last = input.len().wrapping_sub(1);
    match op {
        Op::Unary(kind) => is_homogeneous(*kind),
        Op::Pool { .. } | Op::Resize { .. } => true,
        Op::Reduce { axes, .. } => !axes.contains(&last),
        Op::Pad {
            before,
            after,
            value,
        } => *value == 0.0 && before.get(last) == Some(&0) && after.get(last) == Some(&0),
        Op::Reshape(_) => input.last() == output.last(),
        _ => false,
    }
}

fn channels_agree(graph: &Graph, first: usize, second: usize) -> bool {
    let channels = |value: ValueId| graph.shape(value).last().copied();
    channels(graph.nodes[first].output) == channels(graph.nodes[second].inputs[0])
}
