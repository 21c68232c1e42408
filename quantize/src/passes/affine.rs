//! Per-channel scales and offsets (batch normalisation among them) go into the weights before or after.

use ampoule_runtime::ops::binary::BinaryKind;

use super::edit::{Edit, Verdict, sweep};
use super::operands::{binary, per_channel, with_constant};
use crate::graph::{Graph, GraphError, Node, Op, ValueId};

/// Runs the pass: backwards first, so that only what no layer before can take goes forwards.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    Ok(sweep(graph, backwards)? + sweep(graph, forwards)?)
}

/// Into the layer that produces the operand.
fn backwards(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    // `c − x` is an addition to the negated layer, `x − c` one of the negated constant.
    let mut sign = [1.0, 1.0];
    let (kind, x, c) = match with_constant(edit, node) {
        Some((BinaryKind::Sub, x, c)) => {
            sign[1] = -1.0;
            (BinaryKind::Add, x, c)
        }
        Some(found) => found,
        None => match binary(node) {
            Some((BinaryKind::Sub, c, x))
                if edit.constant(c).is_some() && edit.shape(x) == edit.shape(node.output) =>
            {
                sign[0] = -1.0;
                (BinaryKind::Add, x, c)
            }
            _ => return Ok(None),
        },
    };
    let Some(layer) = edit.producer(x).filter(|n| is_plain_layer(n)).cloned() else {
        return Ok(None);
    };
    let channels = edit.len(layer.inputs[2]);
    let (true, Some(c)) = (edit.is_private(x), per_channel(edit, c, channels)) else {
        return Ok(None);
    };
    let (scale, offset) = match kind {
        BinaryKind::Mul => (c, vec![0.0; channels]),
        BinaryKind::Add => (
            vec![sign[0]; channels],
            c.iter().map(|c| sign[1] * c).collect(),
        ),
        _ => return Ok(None),
    };
    let (Some(w), Some(b)) = (
        edit.constant(layer.inputs[1]),
        edit.constant(layer.inputs[2]),
    ) else {
        return Ok(None);
    };
    let row = w.len() / channels;
    let weights = w
        .iter()
        .enumerate()
        .map(|(i, w)| w * scale[i / row])
        .collect();
    let bias = b
        .iter()
        .zip(scale.iter().zip(&offset))
        .map(|(b, (s, o))| b * s + o)
        .collect();
    let (w, b) = parameters(edit, &layer, weights, bias);
    if let Some(layer) = edit.producer_mut(x) {
        (layer.inputs[1], layer.inputs[2]) = (w, b);
    }
    Ok(Some(x))
}

/// Into the layer that reads the result. An offset needs a layer without padding, which stays zero.
fn forwards(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let (groups, padded) = match &node.op {
        Op::Conv { window, groups, .. } => (*groups, window.pad != [0; 4]),
        Op::Linear { .. } => (1, false),
        _ => return Ok(None),
    };
    let x = node.inputs[0];
    let Some((kind, y, c)) = edit.producer(x).and_then(|n| with_constant(edit, n)) else {
        return Ok(None);
    };
    let channels = edit.shape(x).last().copied().unwrap_or(0);
    let (true, Some(c)) = (edit.is_private(x), per_channel(edit, c, channels)) else {
        return Ok(None);
    };
    let (Some(w), Some(b)) = (edit.constant(node.inputs[1]), edit.constant(node.inputs[2])) else {
        return Ok(None);
    };
    let (outputs, per_group) = (b.len(), channels / groups);
    let row = w.len() / outputs;
    // Channel of the operand that weight `i` multiplies.
    let channel = |i: usize| (i / row) / (outputs / groups) * per_group + i % per_group;
    let (weights, bias): (Vec<f32>, Vec<f32>) = match kind {
        BinaryKind::Mul => (
            w.iter()
                .enumerate()
                .map(|(i, w)| w * c[channel(i)])
                .collect(),
            b.to_vec(),
        ),
        BinaryKind::Add if !padded => {
            let shift = |o: usize| {
                (o * row..(o + 1) * row)
                    .map(|i| w[i] * c[channel(i)])
                    .sum::<f32>()
            };
            (
                w.to_vec(),
                b.iter().enumerate().map(|(o, b)| b + shift(o)).collect(),
            )
        }
        _ => return Ok(None),
    };
    let (w, b) = parameters(edit, node, weights, bias);
    let mut inputs = node.inputs.clone();
    (inputs[0], inputs[1], inputs[2]) = (y, w, b);
    edit.push(&node.name, node.op.clone(), &inputs).map(Some)
}

/// Whether a node is a layer whose result nothing has been done to yet.
fn is_plain_layer(node: &Node) -> bool {
    let residual = matches!(
        node.op,
        Op::Conv { residual: true, .. } | Op::Linear { residual: true, .. }
    );
    matches!(node.op, Op::Conv { .. } | Op::Linear { .. })
        && node.op.activation().is_none()
        && !residual
}

fn parameters(
    edit: &mut Edit<'_>,
    layer: &Node,
    weights: Vec<f32>,
    bias: Vec<f32>,
) -> (ValueId, ValueId) {
    let shape = edit.shape(layer.inputs[1]).to_vec();
    let w = edit.constant_value(&format!("{}.weight", layer.name), &shape, weights);
    let b = edit.constant_value(&format!("{}.bias", layer.name), &[bias.len()], bias);
    (w, b)
}
