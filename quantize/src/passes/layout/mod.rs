//! Layout: transposes move towards the outputs until they meet and cancel.
//!
//! Import puts maps between transposes, NHWC inside and the source's layout outside. A transpose sinks
//! below every operator that can work in the other layout; constants are permuted. What reaches an input
//! or output of the graph becomes part of its port. What then only moves dimensions of size 1 is a
//! reshape.

mod axes;
mod flatten;
mod groups;
mod join;
mod ports;

pub(super) use groups::Groups;

use super::edit::{Edit, Verdict, sweep};
use crate::graph::{Graph, GraphError, Node, Op, ValueId, compose, is_identity};

/// Most sweeps of one run: each moves every transpose by at least one node.
const MAX_ROUNDS: usize = 256;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for _ in 0..MAX_ROUNDS {
        let round = sweep(graph, sink)? + sweep(graph, flatten::rule)? + ports::absorb(graph)?;
        changes += round;
        if round == 0 {
            break;
        }
    }
    Ok(changes + sweep(graph, settle)?)
}

/// Takes a transpose or reshape from above a node to below it.
fn sink(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    match &node.op {
        Op::Transpose(perm) => merge(edit, node, perm),
        Op::Binary { .. } => join::binary(edit, node),
        Op::Concat { axis } => join::concat(edit, node, *axis),
        Op::Reshape(to) => match axes::above_linear(edit, node, to)? {
            None => one_operand(edit, node),
            found => Ok(found),
        },
        _ => one_operand(edit, node),
    }
}

fn one_operand(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    match transposed(edit, node.inputs[0]) {
        Some((x, perm)) => axes::below(edit, node, x, &perm),
        None => axes::below_reshape(edit, node),
    }
}

/// Two transposes in a row are one.
fn merge(edit: &mut Edit<'_>, node: &Node, perm: &[usize]) -> Verdict {
    let Some((x, first)) = transposed(edit, node.inputs[0]) else {
        return Ok(None);
    };
    let perm = compose(&first, perm);
    if is_identity(&perm) {
        return Ok(Some(x));
    }
    edit.push(&node.name, Op::Transpose(perm), &[x]).map(Some)
}

/// A transpose that only moves dimensions of size 1 is a reshape.
fn settle(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Op::Transpose(perm) = &node.op else {
        return Ok(None);
    };
    let shape = edit.shape(node.inputs[0]);
    let kept: Vec<usize> = perm.iter().copied().filter(|&p| shape[p] != 1).collect();
    if !kept.is_sorted() {
        return Ok(None);
    }
    let to = edit.shape(node.output).to_vec();
    edit.push(&node.name, Op::Reshape(to), &[node.inputs[0]])
        .map(Some)
}

/// Operand and permutation, where a value is the result of a transpose.
fn transposed(edit: &Edit<'_>, v: ValueId) -> Option<(ValueId, Vec<usize>)> {
    match edit.producer(v) {
        Some(Node {
            op: Op::Transpose(perm),
            inputs,
            ..
        }) => Some((inputs[0], perm.clone())),
        _ => None,
    }
}

/// Adds the transpose that a node was moved above.
fn restore(edit: &mut Edit<'_>, node: &Node, y: ValueId, perm: &[usize]) -> Verdict {
    edit.push(
        &format!("{}.layout", node.name),
        Op::Transpose(perm.to_vec()),
        &[y],
    )
    .map(Some)
}
