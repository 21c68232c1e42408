//! Canonical forms, and operations that do nothing.
//!
//! Afterwards constants are the right operand of additions and multiplications, subtractions of and
//! divisions by a constant are additions and multiplications, and chains of them have one constant.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::edit::{Edit, Verdict, sweep};
use super::fold;
use super::operands::{binary, near, scalar, unary, with_constant};
use crate::graph::{Graph, GraphError, Node, Op, ValueId, broadcast, is_identity};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, |edit, node| {
        let x = node.inputs[0];
        match &node.op {
            Op::Reshape(to) => reshape(edit, node, to),
            Op::Transpose(perm) if is_identity(perm) => Ok(Some(x)),
            Op::Broadcast(to) if edit.shape(x) == to => Ok(Some(x)),
            Op::Slice {
                axis,
                start: 0,
                len,
                step: 1,
            } if edit.shape(x)[*axis] == *len => Ok(Some(x)),
            Op::Slice {
                axis,
                start,
                len,
                step: 1,
            } => part_of_concat(edit, node, *axis, *start, *len),
            Op::Pad { before, after, .. } if before.iter().chain(after).all(|&p| p == 0) => {
                Ok(Some(x))
            }
            Op::Reduce { axes, .. } if axes.iter().all(|&a| edit.shape(x)[a] == 1) => Ok(Some(x)),
            Op::Concat { .. } if node.inputs.len() == 1 => Ok(Some(x)),
            Op::Unary(UnaryKind::Relu) if matches!(unary(edit, x), Some((UnaryKind::Relu, _))) => {
                Ok(Some(x))
            }
            Op::Binary { .. } => arithmetic(edit, node),
            _ => Ok(None),
        }
    })
}

/// A slice that lies in one operand of a concatenation is taken from there.
fn part_of_concat(
    edit: &mut Edit<'_>,
    node: &Node,
    axis: usize,
    start: usize,
    len: usize,
) -> Verdict {
    let parts = match edit.producer(node.inputs[0]) {
        Some(Node {
            op: Op::Concat { axis: joined },
            inputs,
            ..
        }) if *joined == axis => inputs.clone(),
        _ => return Ok(None),
    };
    let mut first = 0;
    for part in parts {
        let size = edit.shape(part)[axis];
        if first <= start && start + len <= first + size {
            let op = Op::Slice {
                axis,
                start: start - first,
                len,
                step: 1,
            };
            return edit.push(&node.name, op, &[part]).map(Some);
        }
        first += size;
    }
    Ok(None)
}

fn reshape(edit: &mut Edit<'_>, node: &Node, to: &[usize]) -> Verdict {
    let x = node.inputs[0];
    if edit.shape(x) == to {
        return Ok(Some(x));
    }
    let earlier = match edit.producer(x) {
        Some(Node {
            op: Op::Reshape(_),
            inputs,
            ..
        }) => inputs[0],
        _ => return Ok(None),
    };
    if edit.shape(earlier) == to {
        return Ok(Some(earlier));
    }
    edit.push(&node.name, Op::Reshape(to.to_vec()), &[earlier])
        .map(Some)
}

fn arithmetic(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some((kind, a, b)) = binary(node) else {
        return Ok(None);
    };
    if let Some(v) = without_broadcast(edit, node, kind, a, b)? {
        return Ok(Some(v));
    }
    let commutes = matches!(
        kind,
        BinaryKind::Add | BinaryKind::Mul | BinaryKind::Max | BinaryKind::Min
    );
    if commutes && edit.constant(a).is_some() && edit.constant(b).is_none() {
        return edit
            .push(
                &node.name,
                Op::Binary {
                    kind,
                    activation: None,
                },
                &[b, a],
            )
            .map(Some);
    }
    if kind == BinaryKind::Div
        && edit.constant(a).is_some()
        && scalar(edit, a) == Some(1.0)
        && edit.shape(b) == edit.shape(node.output)
    {
        return edit
            .push(&node.name, Op::Unary(UnaryKind::Reciprocal), &[b])
            .map(Some);
    }
    let Some((kind, x, c)) = with_constant(edit, node) else {
        return Ok(None);
    };
    let number = scalar(edit, c);
    match (kind, number) {
        (BinaryKind::Add | BinaryKind::Sub, Some(0.0)) => return Ok(Some(x)),
        (BinaryKind::Mul | BinaryKind::Div, Some(one)) if (one - 1.0).abs() < 1e-6 => {
            return Ok(Some(x));
        }
        (BinaryKind::Pow, Some(one)) if near(one, 1.0) => return Ok(Some(x)),
        (BinaryKind::Pow, Some(2.0)) => {
            return edit
                .push(&node.name, Op::Unary(UnaryKind::Square), &[x])
                .map(Some);
        }
        (BinaryKind::Pow, Some(0.5)) => {
            return edit
                .push(&node.name, Op::Unary(UnaryKind::Sqrt), &[x])
                .map(Some);
        }
        (BinaryKind::Sub, _) => return swap(edit, node, BinaryKind::Add, x, c, |c| -c),
        (BinaryKind::Div, _)
            if edit
                .constant(c)
                .is_some_and(|d| d.iter().all(|c| c.recip().is_finite())) =>
        {
            return swap(edit, node, BinaryKind::Mul, x, c, f32::recip);
        }
        _ => {}
    }
    merge(edit, node, kind, x, c)
}

/// Binary operators broadcast by themselves.
fn without_broadcast(
    edit: &mut Edit<'_>,
    node: &Node,
    kind: BinaryKind,
    a: ValueId,
    b: ValueId,
) -> Verdict {
    let narrow = |edit: &Edit<'_>, v: ValueId| match edit.producer(v) {
        Some(Node {
            op: Op::Broadcast(_),
            inputs,
            ..
        }) => inputs[0],
        _ => v,
    };
    for (na, nb) in [
        (narrow(edit, a), narrow(edit, b)),
        (narrow(edit, a), b),
        (a, narrow(edit, b)),
    ] {
        let same =
            broadcast(edit.shape(na), edit.shape(nb)).as_deref() == Some(edit.shape(node.output));
        if (na, nb) != (a, b) && same {
            return edit
                .push(
                    &node.name,
                    Op::Binary {
                        kind,
                        activation: None,
                    },
                    &[na, nb],
                )
                .map(Some);
        }
    }
    Ok(None)
}

/// The same with another operator and a converted constant.
fn swap(
    edit: &mut Edit<'_>,
    node: &Node,
    kind: BinaryKind,
    x: ValueId,
    c: ValueId,
    f: fn(f32) -> f32,
) -> Verdict {
    let shape = edit.shape(c).to_vec();
    let data = edit
        .constant(c)
        .unwrap_or_default()
        .iter()
        .map(|&c| f(c))
        .collect();
    let c = edit.constant_value(&format!("{}.constant", node.name), &shape, data);
    edit.push(
        &node.name,
        Op::Binary {
            kind,
            activation: None,
        },
        &[x, c],
    )
    .map(Some)
}

/// `(x + a) + b` and `(x · a) · b` with one constant.
fn merge(edit: &mut Edit<'_>, node: &Node, kind: BinaryKind, x: ValueId, c: ValueId) -> Verdict {
    let Some((inner, y, d)) = edit.producer(x).and_then(|n| with_constant(edit, n)) else {
        return Ok(None);
    };
    if inner != kind || !matches!(kind, BinaryKind::Add | BinaryKind::Mul) || !edit.is_private(x) {
        return Ok(None);
    }
    let (sc, sd) = (edit.shape(c).to_vec(), edit.shape(d).to_vec());
    let (small, large) = if edit.len(c) < edit.len(d) {
        (c, d)
    } else {
        (d, c)
    };
    if edit.len(small) != 1 && sc != sd {
        return logit_addends(edit, node, kind, y, [d, c]);
    }
    let (Some(small), Some(many)) = (edit.constant(small), edit.constant(large)) else {
        return Ok(None);
    };
    let one = |i: usize| if small.len() == 1 { small[0] } else { small[i] };
    let data = many
        .iter()
        .enumerate()
        .map(|(i, m)| {
            if kind == BinaryKind::Add {
                m + one(i)
            } else {
                m * one(i)
            }
        })
        .collect();
    let shape = edit.shape(large).to_vec();
    let c = edit.constant_value(&format!("{}.constant", node.name), &shape, data);
    edit.push(
        &node.name,
        Op::Binary {
            kind,
            activation: None,
        },
        &[y, c],
    )
    .map(Some)
}

/// Bias and mask of attention logits are one addend, repeated where only one of them varies.
fn logit_addends(
    edit: &mut Edit<'_>,
    node: &Node,
    kind: BinaryKind,
    logits: ValueId,
    addends: [ValueId; 2],
) -> Verdict {
    let product = matches!(edit.producer(logits), Some(Node { op: Op::MatMul, .. }));
    let [a, b] = addends.map(|v| edit.shape(v).to_vec());
    let Some(shape) = broadcast(&a, &b).filter(|_| product && kind == BinaryKind::Add) else {
        return Ok(None);
    };
    let [Some(x), Some(y)] = addends.map(|v| edit.constant(v)) else {
        return Ok(None);
    };
    let (x, y) = (fold::spread(x, &a, &shape), fold::spread(y, &b, &shape));
    let sum = x.iter().zip(&y).map(|(x, y)| x + y).collect();
    let c = edit.constant_value(&format!("{}.constant", node.name), &shape, sum);
    let op = Op::Binary {
        kind,
        activation: None,
    };
    edit.push(&node.name, op, &[logits, c]).map(Some)
}
