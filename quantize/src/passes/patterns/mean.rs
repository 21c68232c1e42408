//! A sum times the reciprocal of its length is a mean.

use ampoule_runtime::ops::binary::BinaryKind;

use crate::graph::{Node, Op, ReduceKind};
use crate::passes::edit::{Edit, Verdict};
use crate::passes::operands::{near, scalar, with_constant};

pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some((BinaryKind::Mul, sum, factor)) = with_constant(edit, node) else {
        return Ok(None);
    };
    let Some(Node {
        op: Op::Reduce {
            kind: ReduceKind::Sum,
            axes,
        },
        inputs,
        ..
    }) = edit.producer(sum)
    else {
        return Ok(None);
    };
    let (x, axes) = (inputs[0], axes.clone());
    let count: usize = axes.iter().map(|&a| edit.shape(x)[a]).product();
    if !scalar(edit, factor).is_some_and(|f| near(f * count as f32, 1.0)) {
        return Ok(None);
    }
    edit.push(
        &node.name,
        Op::Reduce {
            kind: ReduceKind::Mean,
            axes,
        },
        &[x],
    )
    .map(Some)
}
