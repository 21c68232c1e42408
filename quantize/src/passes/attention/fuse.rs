//! Product, scale, bias, softmax and product as one node.

use ampoule_runtime::ops::binary::BinaryKind;

use super::factors::{Loops, refine};
use super::strides::{Loop, Strided, merged, trace};
use crate::graph::{Attention, Node, Op, ValueId};
use crate::passes::edit::{Edit, Verdict};
use crate::passes::operands::{binary, scalar};

/// The second product makes the attention.
pub(super) fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let (Op::MatMul, [weights, v]) = (&node.op, &node.inputs[..]) else {
        return Ok(None);
    };
    let Some(scores) = Scores::of(edit, *weights) else {
        return Ok(None);
    };
    let Some((inputs, attention, bias)) = scores.with_values(edit, *v, edit.shape(node.output))
    else {
        return Ok(None);
    };
    let mut inputs = inputs.to_vec();
    if let Some((shape, data)) = bias {
        inputs.push(edit.constant_value(&format!("{}.bias", node.name), &shape, data));
    }
    edit.push(&node.name, Op::Attention(Box::new(attention)), &inputs)
        .map(Some)
}

/// What is done to the scores.
enum Term {
    /// `factor · constant` is added.
    Bias(f32, ValueId),
    /// A constant of zeros and ones multiplies them, and what is added later bars the zeros: what
    /// exporters make of a selection by a mask.
    Keep(ValueId),
}

/// A score that bars a key: softmax gives 0 beside any that does not.
const BARRING: f32 = -1e3;

/// What a barred score becomes: so low that the score itself is lost in it.
const BARRED: f32 = -1e30;

/// What softmax is taken of: `scale · q·kᵀ + Σ factor · bias`.
struct Scores {
    q: ValueId,
    k: ValueId,
    scale: f32,
    /// From the softmax to the product.
    terms: Vec<Term>,
    shape: Vec<usize>,
}

impl Scores {
    fn of(edit: &Edit<'_>, weights: ValueId) -> Option<Scores> {
        let softmax = edit.producer(weights)?;
        if softmax.op != (Op::Softmax { log: false }) || !edit.is_private(weights) {
            return None;
        }
        let (mut at, mut scale, mut terms) = (softmax.inputs[0], 1f32, Vec::new());
        loop {
            if !edit.is_private(at) {
                return None;
            }
            let node = edit.producer(at)?;
            if node.op == Op::MatMul {
                let shape = edit.shape(at).to_vec();
                let [q, k] = node.inputs[..] else { return None };
                // The operator takes no other scales.
                return (scale > 0.0 && scale.is_finite()).then_some(Scores {
                    q,
                    k,
                    scale,
                    terms,
                    shape,
                });
            }
            let (kind, a, b) = binary(node)?;
            let (x, c) = if edit.constant(a).is_some() {
                (b, a)
            } else {
                (a, b)
            };
            edit.constant(c)?;
            if edit.shape(x) != edit.shape(at) {
                return None;
            }
            match (kind, scalar(edit, c)) {
                (BinaryKind::Mul, Some(number)) => scale *= number,
                (BinaryKind::Add, _) => terms.push(Term::Bias(scale, c)),
                (BinaryKind::Mul, None) if is_mask(edit.constant(c)?) => terms.push(Term::Keep(c)),
                _ => return None,
            }
            at = x;
        }
    }

    /// Operands, attributes and bias, where all movements are views.
    fn with_values(
        &self,
        edit: &Edit<'_>,
        v: ValueId,
        out: &[usize],
    ) -> Option<([ValueId; 3], Attention, Option<(Vec<usize>, Vec<f32>)>)> {
        let (q, k, v) = (trace(edit, self.q), trace(edit, self.k), trace(edit, v));
        let y = Strided::contiguous(out);
        let lead = out.len() - 2;
        let axis = |view: &Strided, from_end: usize| -> Option<Vec<Loop>> {
            Some(merged(
                view.axes.get(view.axes.len().checked_sub(from_end)?)?,
            ))
        };
        let row = |loops: Vec<Loop>, size: usize| {
            (loops[..] == [(size, 1)] || (size == 1 && loops.is_empty())).then_some(size)
        };
        let rank = self.shape.len();
        let depth = axis(&q.1, 1)?.iter().map(|l| l.0).product();
        let width = out[lead + 1];
        let [queries, keys] = self.shape[rank - 2..] else {
            return None;
        };
        row(axis(&q.1, 1)?, depth)?;
        row(axis(&k.1, 2)?, depth)?;
        row(axis(&v.1, 1)?, width)?;
        let mut outer = Vec::new();
        for (d, &size) in out[..lead].iter().enumerate() {
            let loops = |view: &Strided| -> Vec<Loop> {
                let axes = view.axes.len() - 2;
                (d + axes)
                    .checked_sub(lead)
                    .map_or(Vec::new(), |d| view.axes[d].clone())
            };
            let lists = [loops(&q.1), loops(&k.1), loops(&v.1), loops(&y)];
            outer.extend(refine(size, [&lists[0], &lists[1], &lists[2], &lists[3]])?);
        }
        let loops = Loops {
            outer,
            queries: refine(queries, [&axis(&q.1, 2)?, &axis(&y, 2)?])?,
            keys: refine(keys, [&axis(&k.1, 1)?, &axis(&v.1, 2)?])?,
            depth,
            width,
            starts: [q.1.start, k.1.start, v.1.start, 0],
        };
        let geometry = loops.geometry()?;
        let [q_len, k_len, v_len] = [q.0, k.0, v.0].map(|v| edit.len(v));
        // Longer rows than the operator has run as products and a softmax.
        geometry
            .fits(q_len, k_len, v_len, out.iter().product())
            .then_some(())?;
        let bias = match self.terms[..] {
            [] => None,
            _ => Some(self.bias(edit, geometry.outer.map(|n| n as usize), &out[..lead])?),
        };
        let attention = Attention {
            sizes: false,
            geometry,
            scale: self.scale,
            bias: bias.is_some(),
            shape: out.to_vec(),
        };
        Some(([q.0, k.0, v.0], attention, bias))
    }

    /// The sum of the biases as `[outer.., queries, keys]`, with outer loops it repeats along as 1.
    fn bias(
        &self,
        edit: &Edit<'_>,
        outer: [usize; 4],
        lead: &[usize],
    ) -> Option<(Vec<usize>, Vec<f32>)> {
        let tokens = &self.shape[self.shape.len() - 2..];
        let full: Vec<usize> = lead.iter().chain(tokens).copied().collect();
        let mut data = vec![0.0; full.iter().product()];
        for term in &self.terms {
            let (Term::Bias(_, c) | Term::Keep(c)) = term;
            let values = spread(edit.constant(*c)?, edit.shape(*c), &full);
            match term {
                Term::Bias(factor, _) => data
                    .iter_mut()
                    .zip(values)
                    .for_each(|(d, v)| *d += factor * v),
                Term::Keep(_) => bar(&mut data, &values, tokens[1])?,
            }
        }
        // The outer loops are the leading dimensions in the same order.
        let mut shape = outer.to_vec();
        shape.extend(tokens);
        Some(without_repeats(shape, data))
    }
}

/// Whether a constant takes and drops what it multiplies.
fn is_mask(data: &[f32]) -> bool {
    data.iter().all(|&v| v == 0.0 || v == 1.0)
}

/// Bars what a mask drops, where the bias does that already. A row that keeps nothing weighs its keys
/// by the bias alone, which must be the same for all of them.
fn bar(bias: &mut [f32], keep: &[f32], keys: usize) -> Option<()> {
    for (bias, keep) in bias.chunks_exact_mut(keys).zip(keep.chunks_exact(keys)) {
        let dropped = || bias.iter().zip(keep).filter(|(_, k)| **k == 0.0);
        let low = dropped().all(|(&b, _)| b <= BARRING);
        let even = dropped().count() < keys || bias.iter().all(|&b| b == bias[0]);
        (low && even).then_some(())?;
        for (b, _) in bias.iter_mut().zip(keep).filter(|(_, k)| **k == 0.0) {
            *b = BARRED;
        }
    }
    Some(())
}

/// A bias `[outer.., queries, keys]` with the outer dimensions that it repeats along as 1.
pub(super) fn without_repeats(mut shape: Vec<usize>, mut data: Vec<f32>) -> (Vec<usize>, Vec<f32>) {
    for d in 0..shape.len() - 2 {
        let inner: usize = shape[d + 1..].iter().product();
        let run = inner * shape[d];
        let repeats = |run: &[f32]| run.chunks_exact(inner).all(|slice| *slice == run[..inner]);
        if shape[d] > 1 && data.chunks_exact(run).all(repeats) {
            data = data
                .chunks_exact(run)
                .flat_map(|run| &run[..inner])
                .copied()
                .collect();
            shape[d] = 1;
        }
    }
    (shape, data)
}

/// Values of `from` repeated to `to`.
pub(super) fn spread(data: &[f32], from: &[usize], to: &[usize]) -> Vec<f32> {
    let lead = to.len() - from.len();
    let mut out = Vec::with_capacity(to.iter().product());
    let mut steps = vec![0; to.len()];
    let mut step = 1;
    for (d, &n) in from.iter().enumerate().rev() {
        if n > 1 {
            steps[lead + d] = step;
        }
        step *= n;
    }
    let mut index = vec![0; to.len()];
    for _ in 0..to.iter().product() {
        out.push(data[index.iter().zip(&steps).map(|(i, s)| i * s).sum::<usize>()]);
        for d in (0..to.len()).rev() {
            index[d] += 1;
            if index[d] < to[d] {
                break;
            }
            index[d] = 0;
        }
    }
    out
}
