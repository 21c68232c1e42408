//! Operators of several activations: all operands change their layout, or none.

use super::{restore, transposed};
use crate::graph::{Node, Op, ValueId, inverse, permute};
use crate::passes::edit::{Edit, Verdict};

/// A binary operator of a transpose that has the result's shape.
pub(super) fn binary(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    for main in [0, 1] {
        let (large, other) = (node.inputs[main], node.inputs[1 - main]);
        let Some((x, perm)) = transposed(edit, large) else {
            continue;
        };
        if edit.shape(large) != edit.shape(node.output)
            || !worthwhile(edit, other, &perm, edit.len(large))
        {
            continue;
        }
        let other = if other == large {
            x
        } else {
            moved(edit, node, other, &perm)?
        };
        let inputs = if main == 0 { [x, other] } else { [other, x] };
        let y = edit.push(&node.name, node.op.clone(), &inputs)?;
        return restore(edit, node, y, &perm);
    }
    super::axes::below_reshape(edit, node)
}

/// A concatenation where most of the data is transposed in the same way.
pub(super) fn concat(edit: &mut Edit<'_>, node: &Node, axis: usize) -> Verdict {
    let Some(perm) = node
        .inputs
        .iter()
        .find_map(|&v| transposed(edit, v))
        .map(|(_, perm)| perm)
    else {
        return Ok(None);
    };
    let (mut same, mut others) = (0, 0);
    for &v in &node.inputs {
        match transposed(edit, v) {
            Some((_, p)) if p == perm => same += edit.len(v),
            _ if edit.constant(v).is_some() => {}
            _ => others += edit.len(v),
        }
    }
    if others >= same {
        return Ok(None);
    }
    let inputs = node
        .inputs
        .iter()
        .map(|&v| moved(edit, node, v, &perm))
        .collect::<Result<Vec<_>, _>>()?;
    let y = edit.push(&node.name, Op::Concat { axis: perm[axis] }, &inputs)?;
    restore(edit, node, y, &perm)
}

/// Whether the other operand can follow at less cost than it saves.
fn worthwhile(edit: &Edit<'_>, other: ValueId, perm: &[usize], saved: usize) -> bool {
    match transposed(edit, other) {
        Some((_, p)) if p == perm => true,
        _ => edit.constant(other).is_some() || edit.len(other) < saved,
    }
}

/// An operand in the layout before `perm`: the source of a transpose, a permuted constant, or the operand
/// behind the inverse transpose.
fn moved(
    edit: &mut Edit<'_>,
    node: &Node,
    v: ValueId,
    perm: &[usize],
) -> Result<ValueId, crate::graph::GraphError> {
    if let Some((x, _)) = transposed(edit, v).filter(|(_, p)| p == perm) {
        return Ok(x);
    }
    let mut shape = vec![1; perm.len() - edit.shape(v).len()];
    shape.extend(edit.shape(v));
    let back = inverse(perm);
    if let Some(data) = edit.constant(v) {
        let data = permute(data, &shape, &back);
        let shape: Vec<usize> = back.iter().map(|&p| shape[p]).collect();
        return Ok(edit.constant_value(&format!("{}.constant", node.name), &shape, data));
    }
    let full = if edit.shape(v) == shape {
        v
    } else {
        edit.push(&format!("{}.rank", node.name), Op::Reshape(shape), &[v])?
    };
    edit.push(
        &format!("{}.operand", node.name),
        Op::Transpose(back),
        &[full],
    )
}
