//! An element-wise function behind a layer or binary operator is fused into it.

use super::edit::sweep;
use crate::graph::{Graph, GraphError, Node, Op};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, |edit, node| {
        let Op::Unary(kind) = node.op else {
            return Ok(None);
        };
        let x = node.inputs[0];
        let takes = |n: &Node| {
            matches!(
                n.op,
                Op::Conv { .. } | Op::Linear { .. } | Op::Binary { .. }
            ) && n.op.activation().is_none()
        };
        if !edit.is_private(x) || !edit.producer(x).is_some_and(takes) {
            return Ok(None);
        }
        if let Some(slot) = edit.producer_mut(x).and_then(|n| n.op.activation_mut()) {
            *slot = Some(kind);
        }
        Ok(Some(x))
    })
}
