//! Products: matrix products, linear layers and Einstein sums.
//!
//! Every axis of a product has a label. A label is summed (`k`), or belongs to one operand (`m`, `n`) or
//! to both (batch). A constant operand without batch labels makes a linear layer, anything else a matrix
//! product of two activations.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::einsum::EinSum;

use ampoule_runtime::ops::binary::BinaryKind;

use super::operand::Operand;
use super::{Lowered, Lowering};
use crate::graph::{Op, ReduceKind, ValueId};
use crate::import::error::Problem;

/// An activation with a label for each dimension.
#[derive(Clone)]
struct Term {
    value: ValueId,
    labels: Vec<char>,
}

impl Lowering<'_> {
    pub(super) fn einsum(&mut self, node: &TypedNode, op: &EinSum, inputs: &[Operand]) -> Lowered {
        if op.q_params.is_some() {
            return Err(self.unsupported(node, "is quantized already; import the float model"));
        }
        let (inputs_labels, output) = op.axes.to_strs();
        let output: Vec<char> = output[0].chars().collect();
        let labels: Vec<Vec<char>> = inputs_labels.iter().map(|s| s.chars().collect()).collect();
        if labels
            .iter()
            .chain([&output])
            .any(|l| l.iter().enumerate().any(|(i, c)| l[..i].contains(c)))
        {
            return Err(self.unsupported(node, "a repeated label (diagonal)"));
        }
        let result = match inputs {
            [x] => {
                let x = Term {
                    value: self.activation(node, x)?,
                    labels: labels[0].clone(),
                };
                self.sum_missing(node, x, &output)?
            }
            [x, Operand::Constant(w)] => {
                self.with_constant(node, (x, &labels[0]), (w, &labels[1]), &output)?
            }
            [Operand::Constant(w), x] => {
                self.with_constant(node, (x, &labels[1]), (w, &labels[0]), &output)?
            }
            [a, b] => {
                let a = Term {
                    value: self.activation(node, a)?,
                    labels: labels[0].clone(),
                };
                let b = Term {
                    value: self.activation(node, b)?,
                    labels: labels[1].clone(),
                };
                self.product(node, a, b, &output)?
            }
            _ => return Err(self.unsupported(node, "more than two operands; split the expression")),
        };
        let result = self.arrange(node, result, &output)?;
        Ok(vec![Operand::Value(result)])
    }

    /// Product with a constant: a linear layer where it has only summed labels and labels of its own.
    fn with_constant(
        &mut self,
        node: &TypedNode,
        (x, x_labels): (&Operand, &[char]),
        (w, w_labels): (&Tensor, &[char]),
        output: &[char],
    ) -> Result<Term, Problem> {
        let x = Term {
            value: self.activation(node, x)?,
            labels: x_labels.to_vec(),
        };
        // Dimensions of size 1 broadcast, which is as good as not being there.
        let mut w_shape = w.shape().to_vec();
        let mut w_labels = w_labels.to_vec();
        for i in (0..w_labels.len()).rev() {
            if w_shape[i] == 1 && x.labels.contains(&w_labels[i]) {
                w_shape.remove(i);
                w_labels.remove(i);
            }
        }
        let summed: Vec<char> = w_labels
            .iter()
            .copied()
            .filter(|c| x.labels.contains(c) && !output.contains(c))
            .collect();
        let own: Vec<char> = w_labels
            .iter()
            .copied()
            .filter(|c| !x.labels.contains(c) && output.contains(c))
            .collect();
        let data = self.floats(node, w)?;
        if summed.is_empty() || summed.len() + own.len() != w_labels.len() {
            let name = self.name(&node.name, "constant");
            let value = self.graph.constant_value(&name, &w_shape, data);
            return self.product(
                node,
                x,
                Term {
                    value,
                    labels: w_labels,
                },
                output,
            );
        }
        let order: Vec<usize> = own
            .iter()
            .chain(&summed)
            .filter_map(|c| w_labels.iter().position(|l| l == c))
            .collect();
        let size = |labels: &[char]| -> Vec<usize> {
            labels
                .iter()
                .filter_map(|c| w_labels.iter().position(|l| l == c))
                .map(|i| w_shape[i])
                .collect()
        };
        let (own_sizes, summed_sizes) = (size(&own), size(&summed));
        let (rows, columns): (usize, usize) =
            (own_sizes.iter().product(), summed_sizes.iter().product());
        let data = crate::graph::permute(&data, &w_shape, &order);

        let mut kept = summed.clone();
        kept.extend(output.iter().filter(|c| x.labels.contains(c)));
        let x = self.sum_missing(node, x, &kept)?;
        let rest: Vec<char> = x
            .labels
            .iter()
            .copied()
            .filter(|c| !summed.contains(c))
            .collect();
        let wanted: Vec<char> = rest.iter().chain(&summed).copied().collect();
        let x = self.arrange(
            node,
            Term {
                value: x.value,
                labels: x.labels,
            },
            &wanted,
        )?;
        let rest_sizes = self.graph.shape(x)[..rest.len()].to_vec();
        let x = self.reshape(node, x, [&rest_sizes[..], &[columns]].concat())?;

        let name = self.name(&node.name, "weight");
        let w = self.graph.constant_value(&name, &[rows, columns], data);
        let name = self.name(&node.name, "bias");
        let b = self.graph.constant_value(&name, &[rows], vec![0.0; rows]);
        let y = self.value(
            node,
            "",
            Op::Linear {
                residual: false,
                activation: None,
            },
            &[x, w, b],
        )?;
        let y = self.reshape(node, y, [rest_sizes, own_sizes].concat())?;
        Ok(Term {
            value: y,
            labels: rest.into_iter().chain(own).collect(),
        })
    }

    /// Product of two activations.
    fn product(
        &mut self,
        node: &TypedNode,
        a: Term,
        b: Term,
        output: &[char],
    ) -> Result<Term, Problem> {
        let keep: Vec<char> = b.labels.iter().chain(output).copied().collect();
        let a = self.sum_missing(node, a, &keep)?;
        let keep: Vec<char> = a.labels.iter().chain(output).copied().collect();
        let b = self.sum_missing(node, b, &keep)?;
        let both = |c: &&char| a.labels.contains(c) && b.labels.contains(c);
        let batch: Vec<char> = output.iter().filter(both).copied().collect();
        let summed: Vec<char> = a
            .labels
            .iter()
            .filter(|c| !output.contains(c))
            .copied()
            .collect();
        let rows: Vec<char> = a
            .labels
            .iter()
            .filter(|c| output.contains(c) && !batch.contains(c))
            .copied()
            .collect();
        let columns: Vec<char> = b
            .labels
            .iter()
            .filter(|c| output.contains(c) && !batch.contains(c))
            .copied()
            .collect();
        if summed.is_empty() {
            return self.outer(node, a, b, output);
        }
        let (rows_sizes, columns_sizes) = (self.sizes(&a, &rows), self.sizes(&b, &columns));
        let inner = self.sizes(&a, &summed);
        if inner != self.sizes(&b, &summed) {
            return Err(self.unsupported(node, "summed dimensions of different sizes"));
        }
        let (m, k, n) = (
            rows_sizes.iter().product(),
            inner.iter().product(),
            columns_sizes.iter().product(),
        );

        let a_batch = self.sizes(&a, &batch);
        let left = self.arrange(node, a, &[&batch[..], &rows, &summed].concat())?;
        let left = self.reshape(node, left, [&a_batch[..], &[m, k]].concat())?;
        let b_batch = self.sizes(&b, &batch);
        let right = self.arrange(node, b, &[&batch[..], &summed, &columns].concat())?;
        let right = self.reshape(node, right, [&b_batch[..], &[k, n]].concat())?;
        let y = self.value(node, "", Op::MatMul, &[left, right])?;
        let batch_sizes = self.graph.shape(y)[..batch.len()].to_vec();
        let y = self.reshape(node, y, [batch_sizes, rows_sizes, columns_sizes].concat())?;
        Ok(Term {
            value: y,
            labels: [batch, rows, columns].concat(),
        })
    }

    /// Product without a sum: a broadcast multiplication.
    fn outer(
        &mut self,
        node: &TypedNode,
        a: Term,
        b: Term,
        output: &[char],
    ) -> Result<Term, Problem> {
        let mut spread = |term: Term| {
            let order: Vec<char> = output
                .iter()
                .copied()
                .filter(|c| term.labels.contains(c))
                .collect();
            let shape: Vec<usize> = output
                .iter()
                .map(|c| {
                    term.labels
                        .iter()
                        .position(|l| l == c)
                        .map_or(1, |i| self.graph.shape(term.value)[i])
                })
                .collect();
            let value = self.arrange(node, term, &order)?;
            self.reshape(node, value, shape)
        };
        let (a, b) = (spread(a)?, spread(b)?);
        let value = self.value(
            node,
            "",
            Op::Binary {
                kind: BinaryKind::Mul,
                activation: None,
            },
            &[a, b],
        )?;
        Ok(Term {
            value,
            labels: output.to_vec(),
        })
    }

    /// Sums over the labels that are not in `keep`.
    fn sum_missing(
        &mut self,
        node: &TypedNode,
        term: Term,
        keep: &[char],
    ) -> Result<Term, Problem> {
        let axes: Vec<usize> = (0..term.labels.len())
            .filter(|&i| !keep.contains(&term.labels[i]))
            .collect();
        if axes.is_empty() {
            return Ok(term);
        }
        let shape = self.graph.shape(term.value).to_vec();
        let labels: Vec<char> = term
            .labels
            .iter()
            .copied()
            .filter(|c| keep.contains(c))
            .collect();
        let left: Vec<usize> = (0..shape.len())
            .filter(|i| !axes.contains(i))
            .map(|i| shape[i])
            .collect();
        let value = self.value(
            node,
            "sum",
            Op::Reduce {
                kind: ReduceKind::Sum,
                axes,
            },
            &[term.value],
        )?;
        Ok(Term {
            value: self.reshape(node, value, left)?,
            labels,
        })
    }

    /// Transposes a term to the order of `wanted`, which has the same labels.
    fn arrange(
        &mut self,
        node: &TypedNode,
        term: Term,
        wanted: &[char],
    ) -> Result<ValueId, Problem> {
        let perm: Vec<usize> = wanted
            .iter()
            .filter_map(|c| term.labels.iter().position(|l| l == c))
            .collect();
        if perm.len() != term.labels.len() || perm.len() != wanted.len() {
            return Err(self.unsupported(node, "labels that broadcast to new dimensions"));
        }
        if perm.iter().copied().eq(0..perm.len()) {
            return Ok(term.value);
        }
        self.value(node, "order", Op::Transpose(perm), &[term.value])
    }

    fn reshape(
        &mut self,
        node: &TypedNode,
        value: ValueId,
        shape: Vec<usize>,
    ) -> Result<ValueId, Problem> {
        if self.graph.shape(value) == shape {
            return Ok(value);
        }
        self.value(node, "shape", Op::Reshape(shape), &[value])
    }

    fn sizes(&self, term: &Term, labels: &[char]) -> Vec<usize> {
        let shape = self.graph.shape(term.value);
        labels
            .iter()
            .filter_map(|c| term.labels.iter().position(|l| l == c))
            .map(|i| shape[i])
            .collect()
    }
}
