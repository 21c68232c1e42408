//! Data movement: reshape, transpose, slice, concatenate, pad, broadcast.

use ampoule_runtime::artifact::Step;
use ampoule_runtime::ops::copy::Strided;
use ampoule_runtime::{DType, MAX_RANK, TensorId};

use super::{LowerError, Lowering};
use crate::graph::{Node, Op};
use crate::program::Stage;

impl Lowering<'_> {
    /// Lowers a selection of slices; a constant table is stored with the result's parameters.
    pub(super) fn gather(
        &mut self,
        node: &Node,
        axis: usize,
        dtype: DType,
    ) -> Result<(), LowerError> {
        let y = self.result(node.output, Stage::Post, dtype)?;
        let table = node.inputs[0];
        let x = if self.graph.constant(table).is_some() {
            let like = self.program.tensor(y);
            self.constant_with(table, dtype, like.scale, like.zero_point)?
        } else {
            self.same_parameters(node, table, y, dtype)?
        };
        let indices = self.operand(node.inputs[1], DType::I32)?;
        let axis = axis as u8;
        self.program.push(
            &node.name,
            0,
            Step::Gather {
                x,
                indices,
                y,
                axis,
            },
        );
        Ok(())
    }

    /// Lowers an arg-max, which reads its operand in whatever type that has.
    pub(super) fn arg_max(
        &mut self,
        node: &Node,
        axis: usize,
        last: bool,
    ) -> Result<(), LowerError> {
        let value = node.inputs[0];
        let dtype = [DType::I8, DType::I32, DType::F32]
            .into_iter()
            .find(|&d| self.find(value, Stage::Post, d).is_some())
            .unwrap_or(DType::F32);
        let x = self.operand(value, dtype)?;
        let y = self.result(node.output, Stage::Post, DType::I32)?;
        let axis = axis as u8;
        self.program
            .push(&node.name, 0, Step::ArgMax { x, y, axis, last });
        Ok(())
    }

    /// Lowers a node that moves elements without computing.
    pub(super) fn movement(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let y = self.result(node.output, Stage::Post, dtype)?;
        let out_shape = self.graph.shape(node.output).to_vec();
        let out_strides = contiguous(&out_shape);
        let mut parts: Vec<(TensorId, Strided)> = Vec::new();
        for (i, &input) in node.inputs.iter().enumerate() {
            let x = self.same_parameters(node, input, y, dtype)?;
            let shape = self.graph.shape(input).to_vec();
            let strides = contiguous(&shape);
            parts.push((
                x,
                match &node.op {
                    Op::Reshape(_) | Op::Quantize(_) => whole(shape.iter().product()),
                    Op::Transpose(perm) => {
                        let moved: Vec<i64> = perm.iter().map(|&p| strides[p]).collect();
                        strided(&out_shape, 0, &moved, 0, &out_strides)
                    }
                    Op::Slice {
                        axis, start, step, ..
                    } => {
                        let mut moved = strides.clone();
                        moved[*axis] *= *step as i64;
                        strided(
                            &out_shape,
                            *start as i64 * strides[*axis],
                            &moved,
                            0,
                            &out_strides,
                        )
                    }
                    Op::Concat { axis } => {
                        let before: usize = node.inputs[..i]
                            .iter()
                            .map(|&v| self.graph.shape(v)[*axis])
                            .sum();
                        strided(
                            &shape,
                            0,
                            &strides,
                            before as i64 * out_strides[*axis],
                            &out_strides,
                        )
                    }
                    Op::Pad { before, .. } => {
                        let start = before
                            .iter()
                            .zip(&out_strides)
                            .map(|(&b, &s)| b as i64 * s)
                            .sum();
                        strided(&shape, 0, &strides, start, &out_strides)
                    }
                    _ => {
                        let lead = out_shape.len() - shape.len();
                        let repeated: Vec<i64> = (0..out_shape.len())
                            .map(|d| {
                                if d < lead || shape[d - lead] == 1 {
                                    0
                                } else {
                                    strides[d - lead]
                                }
                            })
                            .collect();
                        strided(&out_shape, 0, &repeated, 0, &out_strides)
                    }
                },
            ));
        }
        if let Op::Pad { value, .. } = node.op {
            let bits = match dtype {
                DType::F32 => value.to_bits(),
                _ => self.program.tensor(y).zero_point as u32,
            };
            self.program
                .push(&format!("{}:fill", node.name), 0, Step::Fill { y, bits });
        }
        for (x, map) in parts {
            self.program.push(&node.name, 0, Step::Copy { x, y, map });
        }
        Ok(())
    }

    /// The operand in the result's own scale and zero point, so that moving codes is exact.
    pub(super) fn same_parameters(
        &mut self,
        node: &Node,
        input: crate::graph::ValueId,
        y: TensorId,
        dtype: DType,
    ) -> Result<TensorId, LowerError> {
        let x = self.operand(input, dtype)?;
        let (a, b) = (self.program.tensor(x), self.program.tensor(y));
        if a.scale == b.scale && a.zero_point == b.zero_point {
            return Ok(x);
        }
        let mut rescaled = a.clone();
        (rescaled.scale, rescaled.zero_point) = (b.scale, b.zero_point);
        rescaled.name = format!("{}:rescaled", a.name);
        rescaled.origin = None;
        rescaled.constant = None;
        let to = self.program.add_tensor(rescaled);
        self.program.push(
            &format!("{}:rescale", node.name),
            0,
            Step::Convert { x, y: to },
        );
        Ok(to)
    }
}

/// The movement of `n` adjacent elements.
pub(super) fn whole(n: usize) -> Strided {
    strided(&[n], 0, &[1], 0, &[1])
}

/// A movement over `shape`, right-aligned to the format's rank.
fn strided(shape: &[usize], x_start: i64, x: &[i64], y_start: i64, y: &[i64]) -> Strided {
    let mut map = Strided {
        dims: [1; MAX_RANK],
        x_start: x_start as u32,
        x_strides: [0; MAX_RANK],
        y_start: y_start as u32,
        y_strides: [0; MAX_RANK],
    };
    let lead = MAX_RANK - shape.len();
    for d in 0..shape.len() {
        map.dims[lead + d] = shape[d] as u32;
        map.x_strides[lead + d] = x[d] as i32;
        map.y_strides[lead + d] = y[d] as i32;
    }
    map
}

/// Strides of a row-major tensor, in elements.
fn contiguous(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![1i64; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * shape[d + 1] as i64;
    }
    strides
}
