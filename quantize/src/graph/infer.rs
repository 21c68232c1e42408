//! Shape inference.

use super::{Graph, GraphError, Op, ValueId};

/// The shape of `op` applied to `inputs`, or what is wrong with them.
pub fn infer_shape(
    graph: &Graph,
    node: &str,
    op: &Op,
    inputs: &[ValueId],
) -> Result<Vec<usize>, GraphError> {
    let arity = |expected: usize| {
        if inputs.len() == expected {
            return Ok(());
        }
        Err(GraphError::Arity {
            node: node.to_owned(),
            op: op.name(),
            expected,
            got: inputs.len(),
        })
    };
    let fail = |what: String| GraphError::Shape {
        node: node.to_owned(),
        op: op.name(),
        what,
        shapes: inputs.iter().map(|&v| graph.shape(v).to_vec()).collect(),
    };
    let check = |ok: bool, what: &str| {
        if ok {
            Ok(())
        } else {
            Err(fail(what.to_owned()))
        }
    };
    let shape = |i: usize| graph.shape(inputs[i]);
    for (i, &v) in inputs.iter().enumerate() {
        let wanted = match op {
            Op::Gather { .. } => i == 1,
            Op::ArgMax { .. } => continue,
            Op::Attention(a) => a.sizes && i + 1 == inputs.len(),
            Op::Merge { .. } => i > 0 || inputs.len() == 2,
            _ if op.moves() => graph.value(inputs[0]).is_index,
            _ => false,
        };
        let what = if wanted {
            "an operand must hold indices"
        } else {
            "an operand holds indices instead of numbers"
        };
        check(graph.value(v).is_index == wanted, what)?;
    }
    match op {
        Op::Conv {
            window,
            groups,
            residual,
            ..
        } => {
            arity(3 + usize::from(*residual))?;
            let (x, w, b) = (shape(0), shape(1), shape(2));
            check(
                x.len() == 4 && w.len() == 4 && *groups > 0,
                "needs rank 4 operands and a group",
            )?;
            check(
                w[1..3] == [window.kernel[0] as usize, window.kernel[1] as usize],
                "kernel size differs from the window",
            )?;
            check(
                x[3] == w[3] * groups && w[0] % groups == 0 && b == [w[0]],
                "channels, groups and bias disagree",
            )?;
            let h = window
                .output(0, x[1])
                .ok_or_else(|| fail(format!("window {window:?} does not fit")))?;
            let wd = window
                .output(1, x[2])
                .ok_or_else(|| fail(format!("window {window:?} does not fit")))?;
            let out = vec![x[0], h, wd, w[0]];
            check(
                !residual || shape(3) == out,
                "the residual's shape differs from the result's",
            )?;
            Ok(out)
        }
        Op::Linear { residual, .. } => {
            arity(3 + usize::from(*residual))?;
            let (x, w, b) = (shape(0), shape(1), shape(2));
            check(
                w.len() == 2 && x.last() == Some(&w[1]) && b == [w[0]],
                "channels and bias disagree",
            )?;
            let mut out = x.to_vec();
            *out.last_mut().expect("checked above") = w[0];
            check(
                !residual || shape(3) == out,
                "the residual's shape differs from the result's",
            )?;
            Ok(out)
        }
        Op::MatMul => {
            arity(2)?;
            let (a, b) = (shape(0), shape(1));
            check(a.len() >= 2 && b.len() >= 2, "needs rank 2 or more")?;
            let (ra, rb) = (a.len(), b.len());
            check(a[ra - 1] == b[rb - 2], "inner dimensions differ")?;
            let mut out = broadcast(&a[..ra - 2], &b[..rb - 2])
                .ok_or_else(|| fail("leading dimensions differ".into()))?;
            out.extend([a[ra - 2], b[rb - 1]]);
            Ok(out)
        }
        Op::Binary { .. } => {
            arity(2)?;
            broadcast(shape(0), shape(1)).ok_or_else(|| fail("shapes do not broadcast".into()))
        }
        Op::Unary(_) | Op::Quantize(_) => {
            arity(1)?;
            Ok(shape(0).to_vec())
        }
        Op::Softmax { .. } => {
            arity(1)?;
            check(!shape(0).is_empty(), "needs a last axis")?;
            Ok(shape(0).to_vec())
        }
        Op::LayerNorm { .. } => {
            arity(3)?;
            let c = shape(0).last().copied();
            check(
                c.is_some() && shape(1).last().copied() == c && shape(2).last().copied() == c,
                "channels differ",
            )?;
            Ok(shape(0).to_vec())
        }
        Op::Pool { window, .. } => {
            arity(1)?;
            let x = shape(0);
            check(x.len() == 4, "needs rank 4")?;
            let h = window
                .output(0, x[1])
                .ok_or_else(|| fail(format!("window {window:?} does not fit")))?;
            let w = window
                .output(1, x[2])
                .ok_or_else(|| fail(format!("window {window:?} does not fit")))?;
            Ok(vec![x[0], h, w, x[3]])
        }
        Op::Reduce { axes, .. } => {
            arity(1)?;
            let mut out = shape(0).to_vec();
            for &a in axes {
                *out.get_mut(a).ok_or_else(|| fail(format!("no axis {a}")))? = 1;
            }
            Ok(out)
        }
        Op::Reshape(to) => {
            arity(1)?;
            check(
                to.iter().product::<usize>() == shape(0).iter().product::<usize>(),
                "element counts differ",
            )?;
            Ok(to.clone())
        }
        Op::Transpose(perm) => {
            arity(1)?;
            let x = shape(0);
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            check(
                sorted.iter().copied().eq(0..x.len()),
                "not a permutation of the axes",
            )?;
            Ok(perm.iter().map(|&p| x[p]).collect())
        }
        Op::Slice {
            axis,
            start,
            len,
            step,
        } => {
            arity(1)?;
            let mut out = shape(0).to_vec();
            let size = *out
                .get(*axis)
                .ok_or_else(|| fail(format!("no axis {axis}")))? as isize;
            let last = *start as isize + (*len as isize - 1) * step;
            check(
                *len > 0 && (*start as isize) < size && last >= 0 && last < size,
                "indices out of range",
            )?;
            out[*axis] = *len;
            Ok(out)
        }
        Op::Concat { axis } => {
            check(!inputs.is_empty(), "needs an operand")?;
            let mut out = shape(0).to_vec();
            check(*axis < out.len(), "no such axis")?;
            out[*axis] = 0;
            for i in 0..inputs.len() {
                let s = shape(i);
                let same = s.len() == out.len()
                    && s.iter()
                        .zip(&out)
                        .enumerate()
                        .all(|(d, (a, b))| d == *axis || a == b);
                check(same, "other dimensions differ")?;
                out[*axis] += s[*axis];
            }
            Ok(out)
        }
        Op::Pad { before, after, .. } => {
            arity(1)?;
            let x = shape(0);
            check(
                before.len() == x.len() && after.len() == x.len(),
                "one pair of pads per dimension",
            )?;
            Ok(x.iter()
                .zip(before.iter().zip(after))
                .map(|(d, (b, a))| d + b + a)
                .collect())
        }
        Op::Broadcast(to) => {
            arity(1)?;
            check(
                broadcast(shape(0), to).as_ref() == Some(to),
                "does not broadcast to that shape",
            )?;
            Ok(to.clone())
        }
        Op::Gather { axis } => {
            arity(2)?;
            let (x, indices) = (shape(0), shape(1));
            check(*axis < x.len(), "no such axis")?;
            Ok([&x[..*axis], indices, &x[axis + 1..]].concat())
        }
        Op::ArgMax { axis, .. } => {
            arity(1)?;
            let mut out = shape(0).to_vec();
            *out.get_mut(*axis)
                .ok_or_else(|| fail(format!("no axis {axis}")))? = 1;
            Ok(out)
        }
        Op::Resize { size, .. } => {
            arity(1)?;
            let x = shape(0);
            check(
                x.len() == 4 && size[0] > 0 && size[1] > 0,
                "needs rank 4 and a size",
            )?;
            Ok(vec![x[0], size[0], size[1], x[3]])
        }
        Op::Attention(a) => {
            arity(3 + usize::from(a.bias) + usize::from(a.sizes))?;
            let len = |s: &[usize]| s.iter().product::<usize>();
            let g = &a.geometry;
            check(
                g.fits(len(shape(0)), len(shape(1)), len(shape(2)), len(&a.shape)),
                "a view reaches beyond its tensor",
            )?;
            if a.bias {
                let b = shape(3);
                let outer = g
                    .outer
                    .iter()
                    .zip(b)
                    .all(|(&n, &d)| d == 1 || d == n as usize);
                check(
                    b.len() == 6 && outer && b[4..] == [g.query_count(), g.key_count()],
                    "the bias does not match the scores",
                )?;
            }
            if a.sizes {
                check(
                    !a.bias && shape(3) == [g.key_count()],
                    "needs one size per key and no bias",
                )?;
            }
            Ok(a.shape.clone())
        }
        Op::Match(matching) => {
            arity(1)?;
            let len = shape(0).iter().product();
            check(matching.fits(len), "the keys do not fit")?;
            Ok(vec![matching.tokens as usize])
        }
        Op::Merge { left } => {
            let sized = inputs.len() == 3;
            arity(2 + usize::from(sized))?;
            let (x, places) = (shape(0), shape(1));
            let rows = &x[..x.len() - usize::from(sized).min(x.len())];
            let count = rows.iter().product::<usize>();
            let axis = rows.iter().position(|&n| n == count);
            let one_each = places == [count] && (!sized || shape(2) == [count]);
            let Some(axis) = axis.filter(|_| one_each && (1..=count).contains(left)) else {
                return Err(fail("needs a place per token".to_owned()));
            };
            let mut out = x.to_vec();
            out[axis] = *left;
            Ok(out)
        }
    }
}

/// The common shape of two right-aligned shapes, sizes equal or 1.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| {
        if i + s.len() < rank {
            1
        } else {
            s[i + s.len() - rank]
        }
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}
