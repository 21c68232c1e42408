//! What rules ask about operands.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use super::edit::Edit;
use crate::graph::{Node, Op, ReduceKind, ValueId};

/// Whether two numbers are the same up to the rounding of exporters.
pub(super) fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-4 * b.abs().max(1e-3)
}

/// The number that all elements of a constant equal.
pub(super) fn scalar(edit: &Edit<'_>, v: ValueId) -> Option<f32> {
    let data = edit.constant(v)?;
    let first = *data.first()?;
    data.iter()
        .all(|x| x.to_bits() == first.to_bits())
        .then_some(first)
}

/// A constant with one number for each of `channels` channels (the last axis), or for all of them.
pub(super) fn per_channel(edit: &Edit<'_>, v: ValueId, channels: usize) -> Option<Vec<f32>> {
    let data = edit.constant(v)?;
    let shape = edit.shape(v);
    match data {
        [one] => Some(vec![*one; channels]),
        _ if data.len() == channels && shape.last() == Some(&channels) => Some(data.to_vec()),
        _ => scalar(edit, v)
            .filter(|_| shape.last().is_none_or(|&c| c == channels))
            .map(|one| vec![one; channels]),
    }
}

/// Kind and operands of a binary node without activation.
pub(super) fn binary(node: &Node) -> Option<(BinaryKind, ValueId, ValueId)> {
    match (&node.op, &node.inputs[..]) {
        (
            Op::Binary {
                kind,
                activation: None,
            },
            [a, b],
        ) => Some((*kind, *a, *b)),
        _ => None,
    }
}

/// A binary node of an activation, which has the result's shape, and a constant on its right.
pub(super) fn with_constant(
    edit: &Edit<'_>,
    node: &Node,
) -> Option<(BinaryKind, ValueId, ValueId)> {
    let (kind, x, c) = binary(node)?;
    let fits = edit.constant(c).is_some()
        && edit.constant(x).is_none()
        && edit.shape(x) == edit.shape(node.output);
    fits.then_some((kind, x, c))
}

/// Function and operand, where a value is the result of one.
pub(super) fn unary(edit: &Edit<'_>, v: ValueId) -> Option<(UnaryKind, ValueId)> {
    match edit.producer(v) {
        Some(Node {
            op: Op::Unary(kind),
            inputs,
            ..
        }) => Some((*kind, inputs[0])),
        _ => None,
    }
}

/// Axes and operand, where a value is a mean.
pub(super) fn mean(edit: &Edit<'_>, v: ValueId) -> Option<(Vec<usize>, ValueId)> {
    match edit.producer(v) {
        Some(Node {
            op:
                Op::Reduce {
                    kind: ReduceKind::Mean,
                    axes,
                },
            inputs,
            ..
        }) => Some((axes.clone(), inputs[0])),
        _ => None,
    }
}

/// The operand whose square a value is.
pub(super) fn square_of(edit: &Edit<'_>, v: ValueId) -> Option<ValueId> {
    if let Some((UnaryKind::Square, x)) = unary(edit, v) {
        return Some(x);
    }
    match binary(edit.producer(v)?)? {
        (BinaryKind::Mul, a, b) if a == b => Some(a),
        _ => None,
    }
}

/// A value as `scale · base + offset` with numbers for scale and offset, as far down as that goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine {
    pub scale: f32,
    pub offset: f32,
    pub base: ValueId,
}

/// Takes scalar additions and multiplications off a value.
pub(super) fn affine(edit: &Edit<'_>, v: ValueId) -> Affine {
    let mut a = Affine {
        scale: 1.0,
        offset: 0.0,
        base: v,
    };
    while let Some((kind, x, c)) = edit.producer(a.base).and_then(|n| with_constant(edit, n)) {
        let Some(c) = scalar(edit, c) else { break };
        match kind {
            BinaryKind::Mul => a.scale *= c,
            BinaryKind::Add => a.offset += a.scale * c,
            _ => break,
        }
        a.base = x;
    }
    a
}
