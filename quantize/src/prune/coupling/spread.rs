//! How each operator ties the axes of its operands and its result.

use super::factors::{Axis, Factors};
use crate::graph::{Graph, Node, Op, ReduceKind, ValueId};

/// The axes of every value, tied as the nodes demand.
pub(super) struct Spread<'g> {
    graph: &'g Graph,
    pub factors: Factors,
    axes: Vec<Option<Vec<Axis>>>,
}

impl<'g> Spread<'g> {
    /// Over the whole graph.
    pub fn new(graph: &'g Graph) -> Self {
        let mut spread = Spread {
            graph,
            factors: Factors::default(),
            axes: vec![None; graph.values.len()],
        };
        for port in &graph.inputs {
            spread.kept(port.value);
        }
        for node in &graph.nodes {
            let axes = spread.node(node);
            spread.axes[node.output.0 as usize] = Some(axes);
        }
        for port in &graph.outputs {
            for axis in spread.of(port.value) {
                spread.factors.keep(&axis);
            }
        }
        spread
    }

    /// The axes of a value; those of a constant that was not seen before are free.
    pub fn of(&mut self, value: ValueId) -> Vec<Axis> {
        if let Some(known) = &self.axes[value.0 as usize] {
            return known.clone();
        }
        let shape = self.graph.shape(value);
        let axes: Vec<Axis> = shape.iter().map(|&n| self.factors.axis(n)).collect();
        self.axes[value.0 as usize] = Some(axes.clone());
        axes
    }

    fn kept(&mut self, value: ValueId) {
        let axes = self.of(value);
        axes.iter().for_each(|axis| self.factors.keep(axis));
    }

    /// The axes of a node's result.
    fn node(&mut self, node: &Node) -> Vec<Axis> {
        let inputs: Vec<Vec<Axis>> = node.inputs.iter().map(|&v| self.of(v)).collect();
        let x = inputs.first().cloned().unwrap_or_default();
        let shape = self.graph.shape(node.output).to_vec();
        match &node.op {
            Op::Conv {
                groups, residual, ..
            } => {
                let (w, bias) = (&inputs[1], &inputs[2]);
                self.all_kept(&w[1..3]);
                match groups {
                    1 => self.factors.unify(&x[3], &w[3]),
                    _ => self.groups(&x[3], w, *groups),
                }
                self.factors.unify(&w[0], &bias[0]);
                let mut y = self.fresh(&shape);
                (y[0], y[3]) = (x[0].clone(), w[0].clone());
                self.and_residual(y, inputs.get(3).filter(|_| *residual))
            }
            Op::Linear { residual, .. } => {
                let (w, bias) = (&inputs[1], &inputs[2]);
                self.factors.unify(&x[x.len() - 1], &w[1]);
                self.factors.unify(&w[0], &bias[0]);
                let mut y = x;
                y.pop();
                y.push(w[0].clone());
                self.and_residual(y, inputs.get(3).filter(|_| *residual))
            }
            Op::MatMul => {
                let (a, b) = (&inputs[0], &inputs[1]);
                let (m, n) = (a.len(), b.len());
                self.factors.unify(&a[m - 1], &b[n - 2]);
                let mut y = self.broadcast(&[&a[..m - 2], &b[..n - 2]]);
                y.extend([a[m - 2].clone(), b[n - 1].clone()]);
                y
            }
            Op::Binary { .. } => self.broadcast(&[&inputs[0], &inputs[1]]),
            Op::Unary(_) | Op::Quantize(_) => x,
            Op::Softmax { .. } => {
                self.all_kept(&x[x.len() - 1..]);
                x
            }
            Op::LayerNorm { .. } => {
                // A channel less changes the mean and the variance of the others.
                let last = x[x.len() - 1].clone();
                for operand in &inputs[1..] {
                    self.factors.unify(&last, &operand[operand.len() - 1]);
                }
                self.all_kept(&[last]);
                x
            }
            Op::Pool { .. } | Op::Resize { .. } => {
                let mut y = self.fresh(&shape);
                (y[0], y[3]) = (x[0].clone(), x[3].clone());
                y
            }
            Op::Reduce { kind, axes } => {
                let mut y = x.clone();
                for &axis in axes {
                    // A channel of zeros adds nothing to a sum, but counts for the others.
                    if *kind != ReduceKind::Sum {
                        self.all_kept(&x[axis..=axis]);
                    }
                    y[axis] = Axis::new();
                }
                y
            }
            Op::Reshape(to) => match self.factors.reshape(&x, to) {
                Some(axes) => axes,
                None => self.severed(&inputs, &shape),
            },
            Op::Transpose(order) => order.iter().map(|&d| x[d].clone()).collect(),
            Op::Slice {
                axis,
                start,
                len,
                step,
            } => {
                let mut y = x.clone();
                y[*axis] = self.slice(&x[*axis], *start, *len, *step);
                y
            }
            Op::Concat { axis } => {
                let mut y = x;
                for (d, of) in y.iter_mut().enumerate() {
                    if d == *axis {
                        let parts = inputs.iter().map(|i| {
                            let size = self.factors.size(&i[d]);
                            (i[d].clone(), (0..size).collect())
                        });
                        let parts: Vec<_> = parts.collect();
                        *of = self.factors.join(&parts);
                    } else {
                        inputs[1..]
                            .iter()
                            .for_each(|i| self.factors.unify(of, &i[d]));
                    }
                }
                y
            }
            Op::Pad { before, after, .. } => {
                let mut y = x.clone();
                for d in 0..y.len() {
                    if before[d] + after[d] > 0 {
                        self.all_kept(&x[d..=d]);
                        y[d] = self.factors.kept_axis(shape[d]);
                    }
                }
                y
            }
            Op::Broadcast(to) => {
                let repeated = self.fresh(to);
                let skip = to.len() - x.len();
                let kept = |(d, new): (usize, Axis)| match d.checked_sub(skip).map(|d| &x[d]) {
                    Some(old) if !old.is_empty() => old.clone(),
                    _ => new,
                };
                repeated.into_iter().enumerate().map(kept).collect()
            }
            Op::Gather { axis } => {
                self.all_kept(&x[*axis..=*axis]);
                [&x[..*axis], &inputs[1], &x[axis + 1..]].concat()
            }
            Op::ArgMax { axis, .. } => {
                self.all_kept(&x[*axis..=*axis]);
                let mut y = x;
                y[*axis] = Axis::new();
                y
            }
            Op::Attention(_) | Op::Match(_) | Op::Merge { .. } => self.severed(&inputs, &shape),
        }
    }

    /// Input and output channels of a convolution in groups: what is cut of the groups is cut of both.
    fn groups(&mut self, x: &Axis, w: &[Axis], groups: usize) {
        let (inner, outer) = (self.factors.size(&w[3]), self.factors.size(&w[0]) / groups);
        let cut = [self.factors.cut(x, inner), self.factors.cut(&w[0], outer)];
        let [Some([of_x, inside]), Some([of_y, _])] = cut else {
            self.all_kept(&[x.clone(), w[0].clone(), w[3].clone()]);
            return;
        };
        self.factors.unify(&of_x, &of_y);
        self.factors.unify(&inside, &w[3]);
        // Every group needs as many channels, but each would be free to lose others.
        if outer > 1 {
            let all = self.factors.cut(&w[0], outer);
            all.iter().for_each(|[_, inside]| self.factors.keep(inside));
        }
    }

    fn slice(&mut self, x: &Axis, start: usize, len: usize, step: isize) -> Axis {
        let size = self.factors.size(x);
        if step == 1 && len == size {
            return x.clone();
        }
        if step == 1 && size % len == 0 && start % len == 0 {
            if let Some([outer, inner]) = self.factors.cut(x, len) {
                self.factors.keep(&outer);
                return inner;
            }
        }
        let index = |i: usize| (start as isize + i as isize * step) as usize;
        let indices: Vec<usize> = (0..len).map(index).collect();
        self.factors.pick(x, &indices)
    }

    /// The axes of an element-wise result.
    fn broadcast(&mut self, operands: &[&[Axis]]) -> Vec<Axis> {
        let rank = operands.iter().map(|o| o.len()).max().unwrap_or(0);
        let mut y = vec![Axis::new(); rank];
        for operand in operands {
            let skip = rank - operand.len();
            for (to, from) in y[skip..].iter_mut().zip(*operand) {
                match (to.is_empty(), from.is_empty()) {
                    (true, _) => to.clone_from(from),
                    (false, true) => {}
                    (false, false) => self.factors.unify(to, from),
                }
            }
        }
        y
    }

    fn and_residual(&mut self, y: Vec<Axis>, residual: Option<&Vec<Axis>>) -> Vec<Axis> {
        match residual {
            Some(r) => self.broadcast(&[&y, r]),
            None => y,
        }
    }

    /// Axes that have nothing to do with those of the operands, which all stay.
    fn severed(&mut self, inputs: &[Vec<Axis>], shape: &[usize]) -> Vec<Axis> {
        inputs.iter().for_each(|axes| self.all_kept(axes));
        self.fresh(shape)
    }

    fn fresh(&mut self, shape: &[usize]) -> Vec<Axis> {
        shape.iter().map(|&n| self.factors.kept_axis(n)).collect()
    }

    fn all_kept(&mut self, axes: &[Axis]) {
        axes.iter().for_each(|axis| self.factors.keep(axis));
    }
}
