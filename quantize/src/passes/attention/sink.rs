//! Layers between the cutting into windows and the attention go before the cutting.

use std::collections::HashSet;

use crate::graph::{Graph, Node, Op, ValueId};
use crate::passes::edit::{Edit, Verdict};

/// Results of layers that reach a product of two activations through nothing but movements, and of
/// normalisations that only such layers read.
pub(super) fn feeding_products(graph: &Graph) -> HashSet<ValueId> {
    let consumers = graph.consumers();
    let mut wanted = HashSet::new();
    // A value's consumers come after it.
    for node in graph.nodes.iter().rev() {
        let readers = || {
            consumers
                .get(&node.output)
                .into_iter()
                .flatten()
                .map(|&i| &graph.nodes[i])
        };
        let feeds = |reader: &Node| match reader.op {
            Op::MatMul => true,
            ref op if moves(op) => wanted.contains(&reader.output),
            _ => false,
        };
        let wants = match node.op {
            Op::Linear {
                residual: false, ..
            } => readers().any(feeds),
            Op::LayerNorm { .. } => readers().all(|r| {
                matches!(
                    r.op,
                    Op::Linear {
                        residual: false,
                        ..
                    }
                ) && wanted.contains(&r.output)
            }),
            ref op => moves(op) && readers().any(feeds),
        };
        if wants {
            wanted.insert(node.output);
        }
    }
    wanted
}

fn moves(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. })
}

/// `layer(cut(x))` becomes `cut(layer(x))`.
pub(super) fn rule(edit: &mut Edit<'_>, node: &Node, wanted: &HashSet<ValueId>) -> Verdict {
    let is_layer = matches!(
        node.op,
        Op::Linear {
            residual: false,
            ..
        } | Op::LayerNorm { .. }
    );
    if !is_layer || !wanted.contains(&node.output) {
        return Ok(None);
    }
    let mut chain = Vec::new();
    let mut base = node.inputs[0];
    while let Some(above) = edit.producer(base).filter(|n| keeps_rows(edit, n)) {
        chain.push(above.op.clone());
        base = above.inputs[0];
    }
    if !chain.iter().any(|op| matches!(op, Op::Transpose(_))) {
        return Ok(None);
    }
    let mut inputs = node.inputs.clone();
    inputs[0] = base;
    let mut y = edit.push(&node.name, node.op.clone(), &inputs)?;
    let channels = *edit.shape(y).last().unwrap_or(&1);
    for op in chain.into_iter().rev() {
        let op = with_channels(op, channels);
        y = edit.push(&format!("{}.window", node.name), op, &[y])?;
    }
    Ok(Some(y))
}

/// Whether a movement takes rows along the last axis as they are.
pub(super) fn keeps_rows(edit: &Edit<'_>, node: &Node) -> bool {
    let (from, to) = (edit.shape(node.inputs[0]), edit.shape(node.output));
    match &node.op {
        Op::Reshape(_) => from.last() == to.last(),
        Op::Transpose(perm) => perm.last().is_some_and(|&p| p + 1 == perm.len()),
        _ => false,
    }
}

/// The same movement of rows of another length.
pub(super) fn with_channels(op: Op, channels: usize) -> Op {
    match op {
        Op::Reshape(mut shape) => {
            if let Some(last) = shape.last_mut() {
                *last = channels;
            }
            Op::Reshape(shape)
        }
        other => other,
    }
}
