//! Maxima and minima with constants are clamps, and a clamp of a line from 0 to 1 is a hard sigmoid.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use crate::graph::{Node, Op};
use crate::passes::edit::{Edit, Verdict};
use crate::passes::operands::{affine, near, scalar, unary, with_constant};

pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    if let Some((kind, x, c)) = with_constant(edit, node) {
        return match (kind, scalar(edit, c)) {
            (BinaryKind::Max, Some(lo)) => bound(edit, node, x, lo, f32::INFINITY),
            (BinaryKind::Min, Some(hi)) => bound(edit, node, x, f32::NEG_INFINITY, hi),
            (BinaryKind::Mul, Some(factor)) => hard_sigmoid(edit, node, x, factor),
            _ => Ok(None),
        };
    }
    match node.op {
        Op::Unary(UnaryKind::Clamp(0.0, 1.0)) => line(edit, node, node.inputs[0], 1.0),
        _ => Ok(None),
    }
}

/// A clamp of `x`, merged with a clamp that `x` is the result of.
fn bound(edit: &mut Edit<'_>, node: &Node, x: crate::graph::ValueId, lo: f32, hi: f32) -> Verdict {
    let (x, lo, hi) = match unary(edit, x) {
        // `min(max(v, a), hi)` clamps to `a..hi` only when the bounds are in order.
        Some((UnaryKind::Relu, y)) if hi >= 0.0 => (y, lo.max(0.0), hi),
        Some((UnaryKind::Clamp(a, b), y)) if hi >= a && lo <= b => (y, lo.max(a), hi.min(b)),
        _ => (x, lo, hi),
    };
    let kind = if (lo, hi) == (0.0, f32::INFINITY) {
        UnaryKind::Relu
    } else {
        UnaryKind::Clamp(lo, hi)
    };
    edit.push(&node.name, Op::Unary(kind), &[x]).map(Some)
}

/// `clamp(k·x + b, 0, h) / h`.
fn hard_sigmoid(
    edit: &mut Edit<'_>,
    node: &Node,
    x: crate::graph::ValueId,
    factor: f32,
) -> Verdict {
    match unary(edit, x) {
        Some((UnaryKind::Clamp(0.0, hi), y)) if near(hi * factor, 1.0) => {
            line(edit, node, y, factor)
        }
        _ => Ok(None),
    }
}

/// A hard sigmoid of the line `v · factor`, where that has the usual offset.
fn line(edit: &mut Edit<'_>, node: &Node, v: crate::graph::ValueId, factor: f32) -> Verdict {
    let a = affine(edit, v);
    if !near(a.offset * factor, 0.5) {
        return Ok(None);
    }
    edit.push(
        &node.name,
        Op::Unary(UnaryKind::HardSigmoid(a.scale * factor, 0.5)),
        &[a.base],
    )
    .map(Some)
}
