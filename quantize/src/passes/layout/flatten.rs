//! A linear layer over a flattened map takes it channels-last, with its weights' columns reordered.

use super::groups::Groups;
use super::transposed;
use crate::graph::{Node, Op, permute};
use crate::passes::edit::{Edit, Verdict};

pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let (
        Op::Linear {
            residual: false, ..
        },
        [x, w, b],
    ) = (&node.op, &node.inputs[..])
    else {
        return Ok(None);
    };
    let Some(Node {
        op: Op::Reshape(to),
        inputs,
        ..
    }) = edit.producer(*x)
    else {
        return Ok(None);
    };
    let (to, flat) = (to.clone(), inputs[0]);
    let Some((source, perm)) = transposed(edit, flat) else {
        return Ok(None);
    };
    let Some(columns) = Groups::of(edit.shape(flat), &to).last(to.len()) else {
        return Ok(None);
    };

    // The flattened dimensions must be the last ones of the source, behind the others in order.
    let (lead, moved) = perm.split_at(columns.start);
    let shape = edit.shape(source);
    let matters: Vec<usize> = lead.iter().copied().filter(|&d| shape[d] != 1).collect();
    let first = moved.iter().copied().filter(|&d| shape[d] != 1).min();
    if columns.end != perm.len() || !matters.is_sorted() || matters.last().copied() > first {
        return Ok(None);
    }
    let mut order: Vec<usize> = (0..moved.len()).collect();
    order.sort_by_key(|&i| moved[i]);
    let rows = edit.shape(*w)[0];
    let sizes: Vec<usize> = std::iter::once(rows)
        .chain(moved.iter().map(|&d| shape[d]))
        .collect();
    let Some(data) = edit.constant(*w) else {
        return Ok(None);
    };
    let data = permute(
        data,
        &sizes,
        &std::iter::once(0)
            .chain(order.iter().map(|i| i + 1))
            .collect::<Vec<_>>(),
    );
    let shape = edit.shape(*w).to_vec();
    let w = edit.constant_value(&format!("{}.weight", node.name), &shape, data);
    let x = edit.push(&format!("{}.flat", node.name), Op::Reshape(to), &[source])?;
    edit.push(&node.name, node.op.clone(), &[x, w, *b])
        .map(Some)
}
