//! Channel ranges migrate from activations into weights, where every channel has a scale of its own.
//!
//! Normalisations in front of linear layers and the queries, keys and values of attention have channels
//! of very different ranges, which one scale per tensor serves badly. What a channel is multiplied by
//! is undone in the weights that read it (or, between queries and keys, in each other), so the function
//! stays the same up to rounding. After Li et al., "RepQ-ViT", ICCV 2023, section 3.2, for normalisations,
//! without its shift, and with the square root of its factors.
//!
//! Unlike the other passes this one needs to have seen data: it runs after calibration, which is then
//! repeated.

use ampoule_runtime::ops::attention::{Geometry, View};

use crate::calibrate::ChannelStats;
use crate::graph::{Attention, Graph, Node, Op, ValueId};
use crate::observe::Statistics;

/// Channels narrower than this share of the mean are left at it.
const NARROWEST: f32 = 1.0 / 64.0;

/// Runs the pass. Gives the number of nodes whose ranges moved.
pub fn run(graph: &mut Graph, statistics: &Statistics) -> usize {
    let mut changes = 0;
    for at in 0..graph.nodes.len() {
        let changed = match graph.nodes[at].op {
            Op::LayerNorm { .. } => normalisation(graph, at, statistics),
            Op::Attention(_) => attention(graph, at, statistics),
            _ => None,
        };
        changes += usize::from(changed.is_some());
    }
    changes
}

/// Smallest gain, in squared steps, for which a normalisation's channels are worth evening out: ranges
/// by extremes are noisy where channels are alike.
const WORTHWHILE: f32 = 4.0;

/// Brings the ranges of a normalisation's channels together, where only pointwise layers read it.
fn normalisation(graph: &mut Graph, at: usize, statistics: &Statistics) -> Option<()> {
    let norm = graph.nodes[at].clone();
    let readers = readers(graph, norm.output)?;
    readers
        .iter()
        .all(|&r| is_pointwise(&graph.nodes[r], norm.output))
        .then_some(())?;
    let stats = statistics.channels.get(&norm.output)?;
    let widths = widths(stats)?;
    let extreme = |v: &[f32], f: fn(f32, f32) -> f32| v.iter().copied().fold(0.0, f);
    let whole = extreme(stats.max(), f32::max) - extreme(stats.min(), f32::min);
    let squares: Vec<f32> = widths.iter().map(|w| w * w).collect();
    (whole * whole >= WORTHWHILE * mean(&squares)).then_some(())?;
    // Half way, as geometric means go: channels evened out in full have no room for what calibration
    // has not seen.
    let factors: Vec<f32> = relative(&widths).iter().map(|r| r.sqrt()).collect();
    let narrowed = |operand: usize| -> Option<Vec<f32>> {
        let values = data(graph, norm.inputs[operand])?;
        Some(values.iter().zip(&factors).map(|(v, r)| v / r).collect())
    };
    // All is known before anything changes.
    let (gain, offset) = (narrowed(1)?, narrowed(2)?);
    let weights = readers
        .iter()
        .map(|&reader| scale_columns(graph, reader, &factors))
        .collect::<Option<Vec<_>>>()?;
    replace(graph, at, 1, gain);
    replace(graph, at, 2, offset);
    for (reader, weights) in readers.into_iter().zip(weights) {
        replace(graph, reader, 1, weights);
    }
    Some(())
}

/// Evens out queries against keys, values against the layer that reads the result, and all three with
/// each other where they share a tensor.
fn attention(graph: &mut Graph, at: usize, statistics: &Statistics) -> Option<()> {
    let node = graph.nodes[at].clone();
    let Op::Attention(op) = &node.op else {
        return None;
    };
    let g = op.geometry;
    let producers = graph.producers();
    let consumers = graph.consumers();
    let layer = |v: ValueId| -> Option<usize> {
        let i = *producers.get(&v)?;
        let plain = matches!(
            graph.nodes[i].op,
            Op::Linear {
                residual: false,
                activation: None
            } | Op::Conv {
                groups: 1,
                residual: false,
                activation: None,
                ..
            }
        );
        let private = consumers
            .get(&v)
            .is_some_and(|c| c.iter().all(|&r| r == at));
        (plain && private && !graph.outputs.iter().any(|p| p.value == v)).then_some(i)
    };
    let (q, k, v) = (node.inputs[0], node.inputs[1], node.inputs[2]);
    let layers = [layer(q)?, layer(k)?, layer(v)?];
    let reader = match readers(graph, node.output)?[..] {
        [r] if is_pointwise(&graph.nodes[r], node.output) => r,
        _ => return None,
    };
    let width = |v: ValueId| -> Option<Vec<f32>> { magnitudes(statistics.channels.get(&v)?) };
    let (wq, wk, wv) = (width(q)?, width(k)?, width(v)?);
    let mut factors = [
        vec![1.0; wq.len()],
        vec![1.0; wk.len()],
        vec![1.0; wv.len()],
    ];
    let mut columns = vec![1.0; *graph.shape(node.output).last()?];
    // Per channel: the same factor down for one as up for the other.
    let pairs = pairs(&g, (&g.q, wq.len()), (&g.k, wk.len()), g.depth)?;
    let mut widest = f32::MIN_POSITIVE;
    for &(a, b) in &pairs {
        let (x, y) = (wq[a].max(f32::MIN_POSITIVE), wk[b].max(f32::MIN_POSITIVE));
        let factor = (y / x).sqrt().clamp(NARROWEST, 1.0 / NARROWEST);
        (factors[0][a], factors[1][b]) = (factor, 1.0 / factor);
        widest = widest.max(x * factor).max(y / factor);
    }
    let values = self::pairs(&g, (&g.v, wv.len()), (&g.y, columns.len()), g.width)?;
    let seen: Vec<f32> = values.iter().map(|&(a, _)| wv[a]).collect();
    let even = mean(&seen);
    for (&(a, b), r) in values.iter().zip(relative(&seen)) {
        (factors[2][a], columns[b]) = (1.0 / r, r);
    }
    // A channel that serves as two of them can't have two factors.
    let used = [
        (q, pairs.iter().map(|p| p.0).collect::<Vec<_>>()),
        (k, pairs.iter().map(|p| p.1).collect()),
        (v, values.iter().map(|p| p.0).collect()),
    ];
    let shared = |a: &(ValueId, Vec<usize>), b: &(ValueId, Vec<usize>)| {
        a.0 == b.0 && a.1.iter().any(|channel| b.1.contains(channel))
    };
    if shared(&used[0], &used[1]) || shared(&used[0], &used[2]) || shared(&used[1], &used[2]) {
        return None;
    }
    // One range for all three; what the scores lose is in the scale.
    let common = if q == v || k == v { even / widest } else { 1.0 };
    if !(common.is_finite() && common > 0.0 && even > 0.0) {
        return None;
    }
    for &(a, b) in &pairs {
        factors[0][a] *= common;
        factors[1][b] *= common;
    }
    // All is known before anything changes.
    let weights = scale_columns(graph, reader, &columns)?;
    let constant = |&layer: &usize| {
        let inputs = &graph.nodes[layer].inputs;
        [1, 2].iter().all(|&i| graph.constant(inputs[i]).is_some())
    };
    layers.iter().all(constant).then_some(())?;
    replace(graph, reader, 1, weights);
    for (i, &layer) in layers.iter().enumerate() {
        scale_rows(graph, layer, &factors[i])?;
    }
    let scale = op.scale / (common * common);
    graph.nodes[at].op = Op::Attention(Box::new(Attention {
        scale,
        ..(**op).clone()
    }));
    Some(())
}

/// The channels of two views that belong together: each of one to one of the other, or `None`.
fn pairs(
    g: &Geometry,
    (a, a_channels): (&View, usize),
    (b, b_channels): (&View, usize),
    depth: u32,
) -> Option<Vec<(usize, usize)>> {
    let mut to_b = vec![None; a_channels];
    let mut to_a = vec![None; b_channels];
    for number in 0..g.outer_count() {
        let index = g.outer_index(number);
        let start = |v: &View, channels: usize| v.row(index, [0, 0]) % channels;
        for d in 0..depth as usize {
            let (x, y) = (start(a, a_channels) + d, start(b, b_channels) + d);
            let (ab, ba) = (to_b.get_mut(x)?, to_a.get_mut(y)?);
            if ab.is_some_and(|seen| seen != y) || ba.is_some_and(|seen| seen != x) {
                return None;
            }
            (*ab, *ba) = (Some(y), Some(x));
        }
    }
    // Tokens are whole rows of channels.
    let whole = |v: &View, channels: usize| v.token.iter().all(|&s| s as usize % channels == 0);
    (whole(a, a_channels) && whole(b, b_channels)).then(|| {
        to_b.iter()
            .enumerate()
            .filter_map(|(x, y)| Some((x, (*y)?)))
            .collect()
    })
}

/// Nodes that read a value, unless it is an output.
fn readers(graph: &Graph, v: ValueId) -> Option<Vec<usize>> {
    let read = |n: &Node| n.inputs.contains(&v);
    let readers: Vec<usize> = (0..graph.nodes.len())
        .filter(|&i| read(&graph.nodes[i]))
        .collect();
    (!readers.is_empty() && !graph.outputs.iter().any(|p| p.value == v)).then_some(readers)
}

/// Whether a node is a layer over the last axis that reads `v` and does not add it.
fn is_pointwise(node: &Node, v: ValueId) -> bool {
    let layer = match &node.op {
        Op::Linear { .. } => true,
        Op::Conv {
            window, groups: 1, ..
        } => window.is_point(),
        _ => false,
    };
    layer && node.inputs[0] == v && !node.inputs[1..].contains(&v)
}

/// Extent of each channel.
fn widths(stats: &ChannelStats) -> Option<Vec<f32>> {
    let widths: Vec<f32> = stats
        .max()
        .iter()
        .zip(stats.min())
        .map(|(hi, lo)| hi - lo)
        .collect();
    widths.iter().all(|w| w.is_finite()).then_some(widths)
}

/// Largest magnitude of each channel.
fn magnitudes(stats: &ChannelStats) -> Option<Vec<f32>> {
    let m: Vec<f32> = stats
        .max()
        .iter()
        .zip(stats.min())
        .map(|(hi, lo)| hi.max(-lo))
        .collect();
    m.iter().all(|w| w.is_finite()).then_some(m)
}

/// Ranges over their mean, none of them tiny.
fn relative(widths: &[f32]) -> Vec<f32> {
    let mean = mean(widths);
    let over = |w: f32| {
        if mean > 0.0 {
            (w / mean).max(NARROWEST)
        } else {
            1.0
        }
    };
    widths.iter().map(|&w| over(w)).collect()
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64) as f32
}

fn data(graph: &Graph, v: ValueId) -> Option<Vec<f32>> {
    graph.constant(v).map(|d| d.to_vec())
}

/// The weights of a pointwise layer with each input channel multiplied.
fn scale_columns(graph: &Graph, layer: usize, factors: &[f32]) -> Option<Vec<f32>> {
    let weights = data(graph, graph.nodes[layer].inputs[1])?;
    (weights.len() % factors.len() == 0).then(|| {
        weights
            .iter()
            .zip(factors.iter().cycle())
            .map(|(w, f)| w * f)
            .collect()
    })
}

/// Multiplies weights and bias of each output channel.
fn scale_rows(graph: &mut Graph, layer: usize, factors: &[f32]) -> Option<()> {
    for operand in [1, 2] {
        let values = data(graph, graph.nodes[layer].inputs[operand])?;
        let row = values.len() / factors.len();
        let scaled = values
            .iter()
            .enumerate()
            .map(|(i, w)| w * factors[i / row])
            .collect();
        replace(graph, layer, operand, scaled);
    }
    Some(())
}

/// Gives a node a constant of its own: others may share the old one.
fn replace(graph: &mut Graph, node: usize, operand: usize, data: Vec<f32>) {
    let old = graph.value(graph.nodes[node].inputs[operand]);
    let (name, shape) = (old.name.clone(), old.shape.clone());
    let new = graph.constant_value(&name, &shape, data);
    graph.nodes[node].inputs[operand] = new;
}
