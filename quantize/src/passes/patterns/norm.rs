//! Layer normalisation: `(x − mean) / sqrt(mean((x − mean)²) + epsilon)`, then a gain and an offset.

use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use crate::graph::{Node, Op, ValueId};
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
    let Some(Normalised { x, first, epsilon }) = found else {
        return Ok(None);
    };
    let shape = edit.shape(x).to_vec();
    let channels: usize = shape[first..].iter().product();
    let flat = [&shape[..first], &[channels]].concat();
    let gain = edit.constant_value(
        &format!("{}.gain", node.name),
        &[channels],
        vec![1.0; channels],
    );
    let offset = edit.constant_value(
        &format!("{}.offset", node.name),
        &[channels],
        vec![0.0; channels],
    );
    let x = if flat == shape {
        x
    } else {
        edit.push(
            &format!("{}.flat", node.name),
            Op::Reshape(flat.clone()),
            &[x],
        )?
    };
    let y = edit.push(&node.name, Op::LayerNorm { epsilon }, &[x, gain, offset])?;
    if flat == shape {
        return Ok(Some(y));
    }
    edit.push(&format!("{}.shape", node.name), Op::Reshape(shape), &[y])
        .map(Some)
}

struct Normalised {
    x: ValueId,
    /// First of the axes, which go to the last.
    first: usize,
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
    let trailing = axes.iter().copied().eq(*axes.first()?..edit.shape(x).len());
    let fits =
        v.scale == 1.0 && square_of(edit, squares) == Some(d) && mean_of == x && mean_axes == axes;
    (trailing && fits).then_some(Normalised {
        x,
        first: axes[0],
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
