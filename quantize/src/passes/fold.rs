//! Constant folding: nodes of constants only become constants.

use ampoule_runtime::ops::binary::BinaryKind;

use super::edit::{Edit, sweep};
use crate::graph::{Graph, GraphError, Node, Op, broadcast, permute};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, |edit, node| {
        if node.inputs.iter().any(|&v| edit.constant(v).is_none()) {
            return Ok(None);
        }
        let Some(data) = evaluate(edit, node) else {
            return Ok(None);
        };
        let shape = edit.shape(node.output).to_vec();
        Ok(Some(edit.constant_value(&node.name, &shape, data)))
    })
}

/// Result of a node of constants, for operators where that happens after import.
fn evaluate(edit: &Edit<'_>, node: &Node) -> Option<Vec<f32>> {
    let x = edit.constant(node.inputs[0])?;
    let shape = edit.shape(node.inputs[0]);
    let out = edit.shape(node.output);
    match &node.op {
        Op::Broadcast(_) => Some(spread(x, shape, out)),
        Op::Unary(kind) => Some(x.iter().map(|&x| kind.eval(x)).collect()),
        Op::Binary { kind, activation } => {
            let other = node.inputs[1];
            let (a, b) = (
                spread(x, shape, out),
                spread(edit.constant(other)?, edit.shape(other), out),
            );
            let result = a.iter().zip(&b).map(|(&a, &b)| binary(*kind, a, b));
            Some(
                result
                    .map(|y| activation.map_or(y, |k| k.eval(y)))
                    .collect(),
            )
        }
        Op::Concat { axis } => {
            let outer: usize = out[..*axis].iter().product();
            let mut data = Vec::with_capacity(out.iter().product());
            for row in 0..outer {
                for &v in &node.inputs {
                    let part = edit.constant(v)?;
                    let block = part.len() / outer;
                    data.extend_from_slice(&part[row * block..][..block]);
                }
            }
            Some(data)
        }
        op => moved(op, x, shape),
    }
}

/// Result of an operator that only moves data.
pub(super) fn moved(op: &Op, x: &[f32], shape: &[usize]) -> Option<Vec<f32>> {
    match op {
        Op::Reshape(_) => Some(x.to_vec()),
        Op::Transpose(perm) => Some(permute(x, shape, perm)),
        Op::Slice {
            axis,
            start,
            step,
            len,
        } => {
            let inner: usize = shape[axis + 1..].iter().product();
            let block = shape[*axis] * inner;
            let index = |i: usize| (*start as isize + i as isize * step) as usize * inner;
            let one = |block: &[f32]| {
                (0..*len)
                    .flat_map(|i| block[index(i)..][..inner].to_vec())
                    .collect::<Vec<_>>()
            };
            Some(x.chunks(block).flat_map(one).collect())
        }
        _ => None,
    }
}

/// Repeats dimensions of size 1; the shapes are known to broadcast.
pub(super) fn spread(x: &[f32], shape: &[usize], out: &[usize]) -> Vec<f32> {
    debug_assert_eq!(broadcast(shape, out).as_deref(), Some(out));
    let mut data = x.to_vec();
    let mut current = vec![1; out.len() - shape.len()];
    current.extend(shape);
    for axis in (0..out.len()).rev() {
        if current[axis] != out[axis] {
            let inner: usize = current[axis + 1..].iter().product();
            data = data
                .chunks(inner)
                .flat_map(|block| block.repeat(out[axis]))
                .collect();
            current[axis] = out[axis];
        }
    }
    data
}

fn binary(kind: BinaryKind, a: f32, b: f32) -> f32 {
    match kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        BinaryKind::Div => a / b,
        BinaryKind::Max => a.max(b),
        BinaryKind::Min => a.min(b),
        BinaryKind::Pow => a.powf(b),
    }
}
