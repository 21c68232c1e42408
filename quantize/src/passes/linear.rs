//! A matrix product with a constant matrix is a linear layer.

use super::edit::sweep;
use crate::graph::{Graph, GraphError, Op, permute};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, |edit, node| {
        let (Op::MatMul, [x, w]) = (&node.op, &node.inputs[..]) else {
            return Ok(None);
        };
        let Some(data) = edit.constant(*w) else {
            return Ok(None);
        };
        let shape = edit.shape(*w);
        let rank = shape.len();
        if shape[..rank - 2].iter().any(|&d| d != 1) || rank > edit.shape(*x).len() {
            return Ok(None);
        }
        let (inputs, outputs) = (shape[rank - 2], shape[rank - 1]);
        let data = permute(data, &[inputs, outputs], &[1, 0]);
        let w = edit.constant_value(&format!("{}.weight", node.name), &[outputs, inputs], data);
        let b = edit.constant_value(
            &format!("{}.bias", node.name),
            &[outputs],
            vec![0.0; outputs],
        );
        edit.push(
            &node.name,
            Op::Linear {
                residual: false,
                activation: None,
            },
            &[*x, w, b],
        )
        .map(Some)
    })
}
