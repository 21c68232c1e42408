//! Movements behind an attention become its result's view, also from behind the layer that reads it.

use super::factors::{Factor, Loops, merge};
use super::fuse::{spread, without_repeats};
use super::sink::{keeps_rows, with_channels};
use super::strides::Strided;
use crate::graph::{Attention, Node, Op, ValueId};
use crate::passes::edit::{Edit, Verdict};

pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    if !matches!(node.op, Op::Reshape(_) | Op::Transpose(_)) {
        return Ok(None);
    }
    let x = node.inputs[0];
    if let Some(moved) = moved(edit, x, &node.op) {
        let (op, inputs, name) = moved;
        return edit.push(&name, op, &inputs).map(Some);
    }
    // `move(layer(attention))` becomes `layer(move(attention))`.
    let Some(layer) = edit
        .producer(x)
        .filter(|n| {
            matches!(
                n.op,
                Op::Linear {
                    residual: false,
                    ..
                }
            )
        })
        .filter(|_| edit.is_private(x) && keeps_rows(edit, node))
        .cloned()
    else {
        return Ok(None);
    };
    let channels = *edit.shape(layer.inputs[0]).last().unwrap_or(&1);
    let op = with_channels(node.op.clone(), channels);
    let Some((op, inputs, name)) = moved(edit, layer.inputs[0], &op) else {
        return Ok(None);
    };
    let mut operands = layer.inputs.clone();
    operands[0] = edit.push(&name, op, &inputs)?;
    edit.push(&layer.name, layer.op, &operands).map(Some)
}

/// The attention that gives `op(v)`, where `v` is the result of one that nothing else reads.
fn moved(edit: &mut Edit<'_>, v: ValueId, op: &Op) -> Option<(Op, Vec<ValueId>, String)> {
    let node = edit.producer(v).filter(|_| edit.is_private(v))?.clone();
    let Op::Attention(attention) = &node.op else {
        return None;
    };
    let shape = match op {
        Op::Reshape(shape) => shape.clone(),
        Op::Transpose(perm) => perm.iter().map(|&p| attention.shape[p]).collect(),
        _ => return None,
    };
    let view = Strided::contiguous(&attention.shape).after(op)?;
    let to = Strided::contiguous(&shape);
    // Per loop of the new tensor: size, step in the old and in the new one.
    let mut places: Vec<(usize, usize, usize)> = Vec::new();
    for (axis, loops) in view.axes.iter().enumerate() {
        let mut inner = to.axes[axis].first().map_or(1, |l| l.1);
        for &(n, step) in loops.iter().rev() {
            places.push((n, step, inner));
            inner *= n;
        }
    }
    let old = Loops::of(&attention.geometry);
    let outer = split(&old.outer, 3, &places)?;
    let queries = split(&old.queries, 1, &places)?;
    // Rows stay contiguous.
    let row = merge(&split(&[(old.width, [1])], 0, &places)?);
    row.iter().all(|f| *f == (old.width, [1])).then_some(())?;
    let new = Loops {
        outer,
        queries,
        ..old
    };
    let geometry = new.geometry()?;
    let mut inputs = node.inputs.clone();
    if let Some(&bias) = inputs.get(3)
        && geometry.outer != attention.geometry.outer
    {
        // The same matrices in the same order, under other outer indices.
        let mut full = attention.geometry.outer.map(|n| n as usize).to_vec();
        full.extend(&edit.shape(bias)[4..]);
        let data = spread(edit.constant(bias)?, edit.shape(bias), &full);
        let mut shape = geometry.outer.map(|n| n as usize).to_vec();
        shape.extend(&full[4..]);
        let (shape, data) = without_repeats(shape, data);
        inputs[3] = edit.constant_value(&format!("{}.bias", node.name), &shape, data);
    }
    let attention = Attention {
        geometry,
        shape,
        ..(**attention).clone()
    };
    Some((
        Op::Attention(Box::new(attention)),
        inputs,
        node.name.clone(),
    ))
}

/// Replaces step `y` of each loop, which is in the old tensor, by steps in the new one, splitting loops
/// that fall apart there.
fn split<const N: usize>(
    loops: &[Factor<N>],
    y: usize,
    places: &[(usize, usize, usize)],
) -> Option<Vec<Factor<N>>> {
    let mut out = Vec::new();
    for &(size, steps) in loops {
        let (mut rest, mut at, mut done) = (size, steps[y], 1);
        let mut parts: Vec<Factor<N>> = Vec::new();
        while rest > 1 {
            // The place whose range contains the step `at`.
            let &(n, step, to) = places
                .iter()
                .find(|&&(n, step, _)| step <= at && at < step * n && at % step == 0)?;
            let skipped = at / step;
            (n % skipped == 0).then_some(())?;
            let count = (n / skipped).min(rest);
            (rest % count == 0).then_some(())?;
            let mut scaled = steps.map(|s| s * done);
            scaled[y] = to * skipped;
            parts.push((count, scaled));
            (rest, at, done) = (rest / count, at * count, done * count);
        }
        out.extend(parts.into_iter().rev());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_split_where_the_new_tensor_does() {
        // 16 old iterations of step 5 are 4 × 4 in the new tensor.
        let places = [(4, 5, 10), (4, 20, 400), (5, 1, 1)];
        assert_eq!(
            split(&[(16, [7, 5])], 1, &places),
            Some(vec![(4, [28, 400]), (4, [7, 10])])
        );
        assert_eq!(split(&[(2, [7, 10])], 1, &places), Some(vec![(2, [7, 20])]));
        assert_eq!(split(&[(5, [1])], 0, &places), Some(vec![(5, [1])]));
    }
}
