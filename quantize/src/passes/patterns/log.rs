//! The logarithm of a softmax is computed from the softmax's operand: int8 codes of the softmax hold
//! nothing below 1/256.

use ampoule_runtime::ops::unary::UnaryKind;

use crate::graph::{Node, Op};
use crate::passes::edit::{Edit, Verdict};

pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    if node.op != Op::Unary(UnaryKind::Log) {
        return Ok(None);
    }
    let softmax = edit.producer(node.inputs[0]);
    let Some(x) = softmax
        .filter(|n| n.op == (Op::Softmax { log: false }))
        .map(|n| n.inputs[0])
    else {
        return Ok(None);
    };
    edit.push(&node.name, Op::Softmax { log: true }, &[x])
        .map(Some)
}
