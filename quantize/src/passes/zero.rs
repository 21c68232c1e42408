//! What is multiplied by zero is not computed.
//!
//! Values are taken to be finite: an infinite one times zero would be no number. With the gate of a mixture of
//! experts fixed ([`fix`](crate::prune::fix)), the experts that it does not ask go this way, whether their products
//! are added up or stacked, scaled and summed over the stack. A factor may have become part of a layer before.

use ampoule_runtime::ops::binary::BinaryKind;

use super::edit::{Edit, Verdict, sweep};
use super::operands::with_constant;
use crate::graph::{Graph, GraphError, Node, Op, ReduceKind, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, |edit, node| match &node.op {
        Op::Binary { .. } => product(edit, node),
        Op::Conv {
            residual: false,
            activation: None,
            ..
        }
        | Op::Linear {
            residual: false,
            activation: None,
        } => Ok(layer(edit, node)),
        Op::Reduce {
            kind: ReduceKind::Sum,
            axes,
        } => sum(edit, node, axes),
        _ => Ok(None),
    })
}

/// A product with zeros, everywhere or in some parts of a concatenation.
fn product(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some((BinaryKind::Mul, x, c)) = with_constant(edit, node) else {
        return Ok(None);
    };
    if is_zero(edit, c) {
        return Ok(Some(zeros(edit, node)));
    }
    let Some(Node {
        op: Op::Concat { axis },
        inputs,
        ..
    }) = edit.producer(x)
    else {
        return Ok(None);
    };
    let (axis, parts) = (*axis, inputs.clone());
    let Some(factors) = split(edit, node, c, axis, &parts) else {
        return Ok(None);
    };
    if !factors.iter().any(|&f| is_zero(edit, f)) {
        return Ok(None);
    }
    let mut scaled = Vec::new();
    for (part, factor) in parts.into_iter().zip(factors) {
        let op = Op::Binary {
            kind: BinaryKind::Mul,
            activation: None,
        };
        scaled.push(edit.push(&node.name, op, &[part, factor])?);
    }
    edit.push(&node.name, Op::Concat { axis }, &scaled)
        .map(Some)
}

/// A layer without weights gives its bias.
fn layer(edit: &mut Edit<'_>, node: &Node) -> Option<ValueId> {
    if !is_zero(edit, node.inputs[1]) {
        return None;
    }
    let bias = edit.constant(node.inputs[2])?.to_vec();
    let shape = edit.shape(node.output).to_vec();
    let data = bias.repeat(edit.len(node.output) / bias.len());
    Some(edit.constant_value(&format!("{}.bias", node.name), &shape, data))
}

/// A sum over stacked values of which some are zero.
fn sum(edit: &mut Edit<'_>, node: &Node, axes: &[usize]) -> Verdict {
    let parts = match edit.producer(node.inputs[0]) {
        Some(Node {
            op: Op::Concat { axis },
            inputs,
            ..
        }) if axes == [*axis] => inputs.clone(),
        _ => return Ok(None),
    };
    let one_each = parts.iter().all(|&p| edit.shape(p)[axes[0]] == 1);
    if !one_each || !parts.iter().any(|&p| is_zero(edit, p)) {
        return Ok(None);
    }
    let mut left = parts
        .into_iter()
        .filter(|&p| !is_zero(edit, p))
        .collect::<Vec<_>>()
        .into_iter();
    let Some(mut total) = left.next() else {
        return Ok(Some(zeros(edit, node)));
    };
    for part in left {
        let op = Op::Binary {
            kind: BinaryKind::Add,
            activation: None,
        };
        total = edit.push(&node.name, op, &[total, part])?;
    }
    Ok(Some(total))
}

/// The parts of a constant that belong to parts of a concatenation along `axis`; `None` where it is the same for all.
fn split(
    edit: &mut Edit<'_>,
    node: &Node,
    c: ValueId,
    axis: usize,
    parts: &[ValueId],
) -> Option<Vec<ValueId>> {
    let (shape, rank) = (edit.shape(c).to_vec(), edit.shape(node.output).len());
    // Constants are aligned on the right.
    let at = axis.checked_sub(rank - shape.len())?;
    if shape[at] == 1 {
        return None;
    }
    let data = edit.constant(c)?.to_vec();
    let inner: usize = shape[at + 1..].iter().product();
    let mut start = 0;
    let mut out = Vec::new();
    for &part in parts {
        let mut of = shape.clone();
        of[at] = edit.shape(part)[axis];
        let (from, to) = (start * inner, (start + of[at]) * inner);
        let rows = data.chunks_exact(shape[at] * inner);
        out.push((of, rows.flat_map(|row| &row[from..to]).copied().collect()));
        start += edit.shape(part)[axis];
    }
    let name = format!("{}.constant", node.name);
    let constants = out.into_iter();
    Some(
        constants
            .map(|(of, data)| edit.constant_value(&name, &of, data))
            .collect(),
    )
}

fn is_zero(edit: &Edit<'_>, v: ValueId) -> bool {
    let data = edit.constant(v);
    data.is_some_and(|d| d.iter().all(|&c| c == 0.0))
}

fn zeros(edit: &mut Edit<'_>, node: &Node) -> ValueId {
    let shape = edit.shape(node.output).to_vec();
    let data = vec![0.0; shape.iter().product()];
    edit.constant_value(&format!("{}.zero", node.name), &shape, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_multiplied_by_zero_goes() {
        let mut g = Graph::default();
        let x = g.input("x", &[1, 1, 4]);
        let double = g.constant_value("two", &[1], vec![2.0]);
        let op = |kind| Op::Binary {
            kind,
            activation: None,
        };
        let y = g.push("double", op(BinaryKind::Mul), &[x, double]).unwrap();
        let both = g.push("stack", Op::Concat { axis: 1 }, &[x, y]).unwrap();
        let gate = g.constant_value("gate", &[1, 2, 1], vec![0.0, 3.0]);
        let scaled = g.push("gated", op(BinaryKind::Mul), &[both, gate]).unwrap();
        let op = Op::Reduce {
            kind: ReduceKind::Sum,
            axes: vec![1],
        };
        let sum = g.push("sum", op, &[scaled]).unwrap();
        g.output("y", sum);
        while run(&mut g).unwrap() > 0 {}
        g.validate().unwrap();
        let factors: Vec<&[f32]> = g
            .nodes
            .iter()
            .map(|n| &g.constant(n.inputs[1]).unwrap()[..])
            .collect();
        assert_eq!(factors, [[2.0], [3.0]]);
    }

    #[test]
    fn a_constant_without_zeros_stays() {
        let mut g = Graph::default();
        let x = g.input("x", &[1, 1, 4]);
        let both = g.push("stack", Op::Concat { axis: 1 }, &[x, x]).unwrap();
        let gate = g.constant_value(
            "gate",
            &[1, 2, 4],
            vec![0.0, 1.0, 0.0, 1.0, 3.0, 0.0, 1.0, 2.0],
        );
        let op = Op::Binary {
            kind: BinaryKind::Mul,
            activation: None,
        };
        let scaled = g.push("gated", op, &[both, gate]).unwrap();
        g.output("y", scaled);
        assert_eq!(run(&mut g).unwrap(), 0);
    }
}
