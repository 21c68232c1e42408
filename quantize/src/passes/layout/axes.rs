//! Operators of one activation, with their axes in another order.

use super::groups::Groups;
use super::restore;
use crate::graph::{Node, Op, ValueId, is_identity};
use crate::passes::edit::{Edit, Verdict};

/// `node` applied to `x` instead of its transpose, and the transpose after it.
pub(super) fn below(edit: &mut Edit<'_>, node: &Node, x: ValueId, perm: &[usize]) -> Verdict {
    let back = |pads: &[usize]| {
        let mut moved = vec![0; pads.len()];
        perm.iter().zip(pads).for_each(|(&p, &pad)| moved[p] = pad);
        moved
    };
    let last = perm.len().wrapping_sub(1);
    let op = match &node.op {
        Op::Unary(_) | Op::Quantize(_) => node.op.clone(),
        Op::Softmax { .. } | Op::LayerNorm { .. } if perm.get(last) == Some(&last) => {
            node.op.clone()
        }
        // Not where the transpose would move more data than before.
        Op::Linear {
            residual: false, ..
        } if perm.get(last) == Some(&last)
            && edit.len(node.output) <= edit.len(x)
            && edit.is_private(node.inputs[0]) =>
        {
            node.op.clone()
        }
        Op::Pad {
            before,
            after,
            value,
        } => Op::Pad {
            before: back(before),
            after: back(after),
            value: *value,
        },
        Op::Slice {
            axis,
            start,
            len,
            step,
        } => Op::Slice {
            axis: perm[*axis],
            start: *start,
            len: *len,
            step: *step,
        },
        Op::Broadcast(to) if to.len() == perm.len() => Op::Broadcast(back(to)),
        Op::Reduce { kind, axes } => {
            let mut axes: Vec<usize> = axes.iter().map(|&a| perm[a]).collect();
            axes.sort_unstable();
            Op::Reduce { kind: *kind, axes }
        }
        Op::Reshape(to) => return reshape(edit, node, x, perm, to),
        _ => return Ok(None),
    };
    let mut inputs = node.inputs.clone();
    inputs[0] = x;
    let y = edit.push(&node.name, op, &inputs)?;
    restore(edit, node, y, perm)
}

/// A reshape of a transpose, where it keeps together what the transpose moves.
fn reshape(edit: &mut Edit<'_>, node: &Node, x: ValueId, perm: &[usize], to: &[usize]) -> Verdict {
    let Some((to, perm)) =
        Groups::of(edit.shape(node.inputs[0]), to).moved(edit.shape(x), perm, to)
    else {
        return plain(edit, node, x, perm, to);
    };
    let y = if edit.shape(x) == to {
        x
    } else {
        edit.push(&node.name, Op::Reshape(to), &[x])?
    };
    if is_identity(&perm) {
        Ok(Some(y))
    } else {
        restore(edit, node, y, &perm)
    }
}

/// The transpose before a reshape leaves dimensions of size 1 where they are: the reshape places them.
fn plain(edit: &mut Edit<'_>, node: &Node, x: ValueId, perm: &[usize], to: &[usize]) -> Verdict {
    let shape = edit.shape(x);
    let mut moving = perm.iter().copied().filter(|&d| shape[d] != 1);
    let stays = |d: usize| (shape[d] == 1).then_some(d);
    let plain: Vec<usize> = (0..perm.len())
        .filter_map(|d| stays(d).or_else(|| moving.next()))
        .collect();
    if plain == perm || !edit.is_private(node.inputs[0]) {
        return Ok(None);
    }
    let x = edit.push(&format!("{}.order", node.name), Op::Transpose(plain), &[x])?;
    edit.push(&node.name, Op::Reshape(to.to_vec()), &[x])
        .map(Some)
}

/// A reshape of a linear layer that reads a reshape: both become one, above the layer.
pub(super) fn above_linear(edit: &mut Edit<'_>, node: &Node, to: &[usize]) -> Verdict {
    let Some(layer) = edit.producer(node.inputs[0]).cloned() else {
        return Ok(None);
    };
    let (
        Op::Linear {
            residual: false, ..
        },
        [x, w, b],
    ) = (&layer.op, &layer.inputs[..])
    else {
        return Ok(None);
    };
    // A reshape that keeps the channels sinks below the layer instead.
    let source = match edit.producer(*x) {
        Some(Node {
            op: Op::Reshape(_),
            inputs,
            ..
        }) if edit.shape(inputs[0]).last() != edit.shape(*x).last() => inputs[0],
        _ => return Ok(None),
    };
    let keeps = to.last() == edit.shape(layer.output).last();
    if !keeps || !edit.is_private(*x) || !edit.is_private(layer.output) {
        return Ok(None);
    }
    let mut shape = to.to_vec();
    shape.pop();
    shape.extend(edit.shape(*x).last());
    let x = edit.push(
        &format!("{}.shape", node.name),
        Op::Reshape(shape),
        &[source],
    )?;
    edit.push(&layer.name, layer.op.clone(), &[x, *w, *b])
        .map(Some)
}

/// A reshape sinks below what does not look at shapes, to meet the next one.
pub(super) fn below_reshape(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let source = |edit: &Edit<'_>, v: ValueId| match edit.producer(v) {
        Some(Node {
            op: Op::Reshape(_),
            inputs,
            ..
        }) => Some(inputs[0]),
        _ => None,
    };
    let Some(x) = source(edit, node.inputs[0]) else {
        return Ok(None);
    };
    let inputs = match (&node.op, &node.inputs[..]) {
        (Op::Unary(_) | Op::Quantize(_), _) => vec![x],
        (Op::Reduce { axes, .. }, _)
            if axes[..] == [edit.shape(node.inputs[0]).len() - 1]
                && edit.shape(x).last() == edit.shape(node.inputs[0]).last() =>
        {
            vec![x]
        }
        (Op::LayerNorm { .. }, [_, gain, offset])
            if edit.shape(x).last() == edit.shape(node.inputs[0]).last() =>
        {
            vec![x, *gain, *offset]
        }
        (
            Op::Linear {
                residual: false, ..
            },
            [_, w, b],
        ) if edit.shape(x).last() == edit.shape(node.inputs[0]).last() => vec![x, *w, *b],
        (Op::Binary { .. }, [a, b]) if edit.shape(*a) == edit.shape(node.output) => {
            match source(edit, *b) {
                Some(y)
                    if edit.shape(x) == edit.shape(y) && edit.shape(*a) == edit.shape(*b)
                        || reduces(edit, x, y) && reduces(edit, *a, *b) =>
                {
                    vec![x, y]
                }
                _ => match follow(edit, node, x, *a, *b) {
                    Some(b) => vec![x, b],
                    None => return Ok(None),
                },
            }
        }
        _ => return Ok(None),
    };
    let op = match &node.op {
        Op::Reduce { kind, .. } => Op::Reduce {
            kind: *kind,
            axes: vec![edit.shape(x).len() - 1],
        },
        op => op.clone(),
    };
    let y = edit.push(&node.name, op, &inputs)?;
    let to = edit.shape(node.output).to_vec();
    edit.push(&format!("{}.shape", node.name), Op::Reshape(to), &[y])
        .map(Some)
}

/// Whether `b` has one number for the channels of `a` at each place.
fn reduces(edit: &Edit<'_>, a: ValueId, b: ValueId) -> bool {
    match (edit.shape(a).split_last(), edit.shape(b).split_last()) {
        (Some((_, places)), Some((1, others))) => places == others,
        _ => false,
    }
}

/// A constant operand of a binary operator whose other operand loses its reshape from `x` to `a`, in the
/// shape that goes with `x`: dimensions that the reshape makes of the same ones are all repeated, or none.
fn follow(edit: &mut Edit<'_>, node: &Node, x: ValueId, a: ValueId, c: ValueId) -> Option<ValueId> {
    let data = edit.constant(c)?.to_vec();
    let (from, to) = (edit.shape(x), edit.shape(a));
    let mut sizes = vec![1; to.len() - edit.shape(c).len()];
    sizes.extend(edit.shape(c));
    let mut shape = vec![1; from.len()];
    if data.len() != 1 {
        for (source, result) in Groups::of(from, to).iter() {
            if sizes[result.clone()] == to[result.clone()] {
                shape[source.clone()].copy_from_slice(&from[source.clone()]);
            } else if sizes[result.clone()].iter().any(|&s| s != 1) {
                return None;
            }
        }
    }
    // The rank is no larger than it must be: one number has none, one for each channel has one.
    let first = shape.iter().position(|&s| s != 1).unwrap_or(shape.len());
    let name = format!("{}.constant", node.name);
    Some(edit.constant_value(&name, &shape[first..], data))
}
