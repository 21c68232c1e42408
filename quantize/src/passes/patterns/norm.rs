//! Layer normalisation: `(x − mean) / sqrt(mean((x − mean)²) + epsilon)`, then a gain and an offset.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use crate::graph::{Node, Op, ValueId, inverse, is_identity};
use crate::passes::edit::{Edit, Verdict};
use crate::passes::operands::{affine, binary, mean, square_of, unary, with_constant};

/// Recognises the normalisation.
pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some((kind, a, b)) = binary(node) else {
        return Ok(None);
    };
    let found = match kind {
        BinaryKind::Div => deviation(edit, b).and_then(|variance| normalised(edit, a, variance)),
        BinaryKind::Mul => [(a, b), (b, a)]
            .iter()
            .find_map(|&(d, r)| normalised(edit, d, reciprocal_deviation(edit, r)?)),
        _ => None,
    };
    let Some(Normalised { x, axes, epsilon }) = found else {
        return Ok(None);
    };
    // The axes go to the end and become one.
    let shape = edit.shape(x).to_vec();
    let kept = (0..shape.len()).filter(|a| !axes.contains(a));
    let perm: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let moved: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let (outer, inner) = moved.split_at(shape.len() - axes.len());
    let channels: usize = inner.iter().product();
    let flat = [outer, &[channels]].concat();
    let steps = [
        (Op::Transpose(perm.clone()), is_identity(&perm)),
        (Op::Reshape(flat.clone()), flat == moved),
    ];
    let back = [
        (Op::Reshape(moved.clone()), flat == moved),
        (Op::Transpose(inverse(&perm)), is_identity(&perm)),
    ];
    let apply = |edit: &mut Edit<'_>, mut v: ValueId, steps: [(Op, bool); 2]| {
        for (op, nothing) in steps {
            if !nothing {
                v = edit.push(&format!("{}.axes", node.name), op, &[v])?;
            }
        }
        Ok(v)
    };
    let x = apply(edit, x, steps)?;
    let constant = |edit: &mut Edit<'_>, what: &str, number: f32| {
        let name = format!("{}.{what}", node.name);
        edit.constant_value(&name, &[channels], vec![number; channels])
    };
    let (gain, offset) = (constant(edit, "gain", 1.0), constant(edit, "offset", 0.0));
    let y = edit.push(&node.name, Op::LayerNorm { epsilon }, &[x, gain, offset])?;
    apply(edit, y, back).map(Some)
}

struct Normalised {
    x: ValueId,
    axes: Vec<usize>,
    epsilon: f32,
}

/// The normalisation that `d` over the root of `variance` is.
fn normalised(edit: &Edit<'_>, d: ValueId, variance: ValueId) -> Option<Normalised> {
    let v = affine(edit, variance);
    let (axes, squares) = mean(edit, v.base)?;
    let (BinaryKind::Sub, x, m) = binary(edit.producer(d)?)? else {
        return None;
    };
    let (mean_axes, mean_of) = mean(edit, m)?;
    let fits =
        v.scale == 1.0 && square_of(edit, squares) == Some(d) && mean_of == x && mean_axes == axes;
    fits.then_some(Normalised {
        x,
        axes,
        epsilon: v.offset,
    })
}

/// The operand of a square root.
fn deviation(edit: &Edit<'_>, v: ValueId) -> Option<ValueId> {
    match unary(edit, v)? {
        (UnaryKind::Sqrt, variance) => Some(variance),
        _ => None,
    }
}

fn reciprocal_deviation(edit: &Edit<'_>, v: ValueId) -> Option<ValueId> {
    match unary(edit, v)? {
        (UnaryKind::Rsqrt, variance) => Some(variance),
        (UnaryKind::Reciprocal, root) => deviation(edit, root),
        _ => None,
    }
}

/// Takes a following gain or offset into the normalisation.
pub(super) fn parameters(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some((kind, x, c)) = with_constant(edit, node) else {
        return Ok(None);
    };
    // Several axes are normalised as one, behind a reshape.
    let reshaped = match edit.producer(x) {
        Some(Node {
            op: Op::Reshape(_),
            inputs,
            ..
        }) => Some(inputs[0]),
        _ => None,
    };
    let y = reshaped.unwrap_or(x);
    let Some(norm) = edit
        .producer(y)
        .filter(|n| matches!(n.op, Op::LayerNorm { .. }))
        .cloned()
    else {
        return Ok(None);
    };
    if !edit.is_private(x)
        || !edit.is_private(y)
        || !matches!(kind, BinaryKind::Mul | BinaryKind::Add)
    {
        return Ok(None);
    }
    let channels = edit.len(norm.inputs[1]);
    let size = edit.len(c);
    let significant: Vec<usize> = edit
        .shape(c)
        .iter()
        .copied()
        .skip_while(|&d| d == 1)
        .collect();
    if size != 1 && !(size == channels && edit.shape(x).ends_with(&significant)) {
        return Ok(None);
    }
    let (Some(gain), Some(offset), Some(c)) = (
        edit.constant(norm.inputs[1]),
        edit.constant(norm.inputs[2]),
        edit.constant(c),
    ) else {
        return Ok(None);
    };
    let at = |i: usize| if c.len() == 1 { c[0] } else { c[i] };
    let (gain, offset): (Vec<f32>, Vec<f32>) = match kind {
        BinaryKind::Mul => gain
            .iter()
            .zip(offset)
            .enumerate()
            .map(|(i, (g, o))| (g * at(i), o * at(i)))
            .unzip(),
        _ => gain
            .iter()
            .zip(offset)
            .enumerate()
            .map(|(i, (g, o))| (*g, o + at(i)))
            .unzip(),
    };
    let gain = edit.constant_value(&format!("{}.gain", norm.name), &[channels], gain);
    let offset = edit.constant_value(&format!("{}.offset", norm.name), &[channels], offset);
    if let Some(node) = edit.producer_mut(y) {
        node.inputs = vec![norm.inputs[0], gain, offset];
    }
    Ok(Some(x))
}
