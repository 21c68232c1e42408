//! Batch norms, and factors per channel, as part of convolutions.

use std::collections::HashMap;

use ampoule_distill_kernels::graph::{BatchNorm, Graph, GraphError, Op, ParameterId};
use ampoule_distill_kernels::ops::Window;

use super::rewrite::{Neighbours, Rewrite};

/// The same network with its batch norms, in the form for inference, inside convolutions: the convolution
/// in front of the norm, or a dense one without padding behind it, where nothing else reads what is
/// between. Depthwise 1×1 convolutions, which scale and shift channels, too. Norms without such a
/// neighbour stay.
pub(super) fn run(
    graph: &Graph,
    values: &[Vec<f32>],
) -> Result<(Graph, Vec<Vec<f32>>), GraphError> {
    let neighbours = Neighbours::of(graph);
    let (mut before, mut after) = (HashMap::new(), HashMap::new());
    let mut gone = vec![false; graph.nodes().len()];
    for (i, node) in graph.nodes().iter().enumerate() {
        let Some(affine) = Affine::of(&node.op, values) else {
            continue;
        };
        if let Some(conv) = in_front(&neighbours, graph, i).filter(|&c| !gone[c]) {
            after.insert(conv, affine);
            gone[i] = true;
        } else if let Some(conv) = behind(&neighbours, graph, i) {
            before.insert(conv, affine);
            gone[i] = true;
        }
    }
    let mut new = Rewrite::of(graph, values);
    for (i, node) in graph.nodes().iter().enumerate() {
        let inputs = new.inputs(node);
        let value = match gone[i] {
            true => inputs[0],
            false => {
                let op = match (before.remove(&i), after.remove(&i)) {
                    (None, None) => node.op.clone(),
                    (before, after) => folded(&mut new, &node.op, before, after),
                };
                new.graph.push(&node.name, op, &inputs)?
            }
        };
        new.set(node.output, value);
    }
    Ok(new.finish(graph))
}

/// The convolution that only this norm reads.
fn in_front(neighbours: &Neighbours, graph: &Graph, norm: usize) -> Option<usize> {
    let input = graph.nodes()[norm].inputs[0];
    let conv = neighbours.producer(input)?;
    let alone = neighbours.readers(input) == [Some(norm)];
    (alone && neighbours.owns_kernel(&graph.nodes()[conv].op)).then_some(conv)
}

/// The only reader of this norm, when it is a dense convolution that pads nothing.
fn behind(neighbours: &Neighbours, graph: &Graph, norm: usize) -> Option<usize> {
    let [Some(conv)] = neighbours.readers(graph.nodes()[norm].output)[..] else {
        return None;
    };
    let op = &graph.nodes()[conv].op;
    let bare = matches!(op, Op::Conv { window, .. } if window.pads == [0; 4]);
    (bare && neighbours.owns_kernel(op)).then_some(conv)
}

/// A factor and an addend per channel.
pub(super) struct Affine {
    pub scale: Vec<f64>,
    pub shift: Vec<f64>,
}

impl Affine {
    /// Of a batch norm, or of a depthwise 1×1 convolution.
    pub fn of(op: &Op, values: &[Vec<f32>]) -> Option<Affine> {
        let wide = |p: ParameterId| values[p.0].iter().map(|&v| f64::from(v)).collect();
        match op {
            Op::BatchNorm(norm) => Some(Affine::of_norm(norm, values)),
            Op::Depthwise {
                weight,
                bias,
                window: Window::POINT,
            } => {
                let scale: Vec<f64> = wide(*weight);
                let shift = bias.map_or_else(|| vec![0.0; scale.len()], wide);
                Some(Affine { scale, shift })
            }
            _ => None,
        }
    }

    /// With running statistics.
    fn of_norm(norm: &BatchNorm, values: &[Vec<f32>]) -> Affine {
        let at = |p: ParameterId, c: usize| f64::from(values[p.0][c]);
        let channels = 0..values[norm.weight.0].len();
        let scale =
            |c| at(norm.weight, c) / (at(norm.variance, c) + f64::from(norm.epsilon)).sqrt();
        let shift = |c| at(norm.bias, c) - at(norm.mean, c) * scale(c);
        Affine {
            scale: channels.clone().map(scale).collect(),
            shift: channels.map(shift).collect(),
        }
    }
}

/// A convolution with what is in front of and behind it.
fn folded(new: &mut Rewrite, op: &Op, before: Option<Affine>, after: Option<Affine>) -> Op {
    let mut op = op.clone();
    let (Op::Conv { weight, bias, .. } | Op::Depthwise { weight, bias, .. }) = &mut op else {
        return op;
    };
    let parameter = &new.graph.parameters()[weight.0];
    let (name, out) = (parameter.name.clone(), parameter.shape[0]);
    let mut offsets: Vec<f64> = match bias {
        Some(bias) => new.values[bias.0].iter().map(|&b| b.into()).collect(),
        None => vec![0.0; out],
    };
    let kernel = &mut new.values[weight.0];
    let size = (kernel.len() / out.max(1)).max(1);
    for (o, kernel) in kernel.chunks_exact_mut(size).enumerate() {
        if let Some(Affine { scale, shift }) = &before {
            let taps = (size / scale.len().max(1)).max(1);
            for (c, kernel) in kernel.chunks_exact_mut(taps).enumerate() {
                let sum: f64 = kernel.iter().map(|&k| f64::from(k)).sum();
                offsets[o] += sum * shift[c];
                scale_all(kernel, scale[c]);
            }
        }
        if let Some(Affine { scale, shift }) = &after {
            scale_all(kernel, scale[o]);
            offsets[o] = offsets[o] * scale[o] + shift[o];
        }
    }
    let offsets = offsets.into_iter().map(|b| b as f32).collect();
    match bias {
        Some(bias) => new.values[bias.0] = offsets,
        None => {
            let layer = name.rsplit_once('.').map_or(&*name, |(layer, _)| layer);
            *bias = Some(new.parameter(&format!("{layer}.bias"), &[out], offsets));
        }
    }
    op
}

fn scale_all(kernel: &mut [f32], factor: f64) {
    kernel
        .iter_mut()
        .for_each(|k| *k = (f64::from(*k) * factor) as f32);
}
