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

/// What softmax is taken of: `scale · q·kᵀ + Σ factor · bias`.
struct Scores {
    q: ValueId,
    k: ValueId,
    scale: f32,
    biases: Vec<(f32, ValueId)>,
    shape: Vec<usize>,
}

impl Scores {
    fn of(edit: &Edit<'_>, weights: ValueId) -> Option<Scores> {
        let softmax = edit.producer(weights)?;
        if softmax.op != (Op::Softmax { log: false }) || !edit.is_private(weights) {
            return None;
        }
        let (mut at, mut scale, mut biases) = (softmax.inputs[0], 1.0, Vec::new());
        loop {
            if !edit.is_private(at) {
                return None;
            }
            let node = edit.producer(at)?;
            if node.op == Op::MatMul {
                let shape = edit.shape(at).to_vec();
                let [q, k] = node.inputs[..] else { return None };
                return Some(Scores {
                    q,
                    k,
                    scale,
                    biases,
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
                (BinaryKind::Add, _) => biases.push((scale, c)),
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
        let bias = match self.biases[..] {
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
        for (factor, c) in &self.biases {
            let values = spread(edit.constant(*c)?, edit.shape(*c), &full);
            data.iter_mut()
                .zip(values)
                .for_each(|(d, v)| *d += factor * v);
        }
        // The outer loops are the leading dimensions in the same order.
        let mut shape = outer.to_vec();
        shape.extend(tokens);
        for d in 0..outer.len() {
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
        Some((shape, data))
    }
}

/// Values of `from` repeated to `to`.
fn spread(data: &[f32], from: &[usize], to: &[usize]) -> Vec<f32> {
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
