//! Operators that move data: axes, slices, joins, padding, repetition.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::{
    Gather, GatherNd, MultiBroadcastTo, Pad, PadMode, Slice, StridedSlice, Tile, TypedConcat,
};
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::downsample::Downsample;
use tract_onnx::tract_core::ops::identity::Identity;
use tract_onnx::tract_hir::internal::{DimLike, ToDim};

use super::operand::{self, Operand};
use super::{Lowered, Lowering};
use crate::graph::{Op, ValueId};

/// Most pieces that one gather or repetition may be cut into.
const MAX_PIECES: usize = 256;

impl Lowering<'_> {
    pub(super) fn moves(&mut self, node: &TypedNode, inputs: &[Operand]) -> Lowered {
        let op = &node.op;
        if op.is::<Identity>() {
            return Ok(vec![inputs[0].clone()]);
        }
        if let Some(op) = op.downcast_ref::<AxisOp>() {
            return self.axis(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<TypedConcat>() {
            let values = inputs
                .iter()
                .map(|x| self.activation(node, x))
                .collect::<Result<Vec<_>, _>>()?;
            return self.emit(node, "", Op::Concat { axis: op.axis }, &values);
        }
        if let Some(op) = op.downcast_ref::<Slice>() {
            let (Ok(start), Ok(end)) = (op.start.to_usize(), op.end.to_usize()) else {
                return Err(self.unsupported(node, "bounds that depend on data"));
            };
            let x = self.activation(node, &inputs[0])?;
            let len = end.saturating_sub(start);
            return self.emit(
                node,
                "",
                Op::Slice {
                    axis: op.axis,
                    start,
                    len,
                    step: 1,
                },
                &[x],
            );
        }
        if let Some(op) = op.downcast_ref::<Downsample>() {
            return self.downsample(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<StridedSlice>() {
            return self.strided_slice(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<Pad>() {
            return self.pad(node, op, inputs);
        }
        if op.is::<MultiBroadcastTo>() {
            let x = self.activation(node, &inputs[0])?;
            let shape = self.output_shape(node)?;
            return self.emit(node, "", Op::Broadcast(shape), &[x]);
        }
        if op.is::<Tile>() {
            return self.tile(node, inputs);
        }
        if let Some(op) = op.downcast_ref::<Gather>() {
            return self.gather(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<GatherNd>() {
            return self.gather_nd(node, op, inputs);
        }
        if let Some(op) = op.downcast_ref::<Cast>() {
            let from = self
                .model
                .node_input_facts(node.id)
                .ok()
                .and_then(|f| f.first().map(|f| f.datum_type));
            let same =
                |from| op.to == from || (operand::is_integer(op.to) && operand::is_integer(from));
            if from.is_some_and(same) {
                return Ok(vec![inputs[0].clone()]);
            }
            return Err(
                self.unsupported(node, "conversion of activations; export the model in f32")
            );
        }
        if op.name() == "Dropout" {
            return self.dropout(node, inputs);
        }
        Err(self.unsupported(
            node,
            "there is no counterpart; replace it or cut the model before it",
        ))
    }

    /// Dropout in inference gives its operand.
    fn dropout(&mut self, node: &TypedNode, inputs: &[Operand]) -> Lowered {
        let trains = match inputs.get(2) {
            Some(Operand::Constant(mode)) => self.floats(node, mode)?.iter().any(|&m| m != 0.0),
            Some(Operand::Value(_)) => true,
            None => false,
        };
        if trains || self.is_read(node, 1) {
            return Err(self.unsupported(node, "training mode or its mask; export for inference"));
        }
        // Nothing reads the mask, but its slot must exist.
        Ok(vec![inputs[0].clone(); node.outputs.len()])
    }

    fn axis(&mut self, node: &TypedNode, op: &AxisOp, inputs: &[Operand]) -> Lowered {
        let x = self.activation(node, &inputs[0])?;
        if let AxisOp::Move(from, to) = op {
            let mut perm: Vec<usize> = (0..self.graph.shape(x).len()).collect();
            let moved = perm.remove(*from);
            perm.insert(*to, moved);
            return self.emit(node, "", Op::Transpose(perm), &[x]);
        }
        let shape = self.output_shape(node)?;
        self.emit(node, "", Op::Reshape(shape), &[x])
    }

    fn downsample(&mut self, node: &TypedNode, op: &Downsample, inputs: &[Operand]) -> Lowered {
        let x = self.activation(node, &inputs[0])?;
        let size = self.graph.shape(x)[op.axis];
        let len = self.output_shape(node)?[op.axis];
        let start = match op.stride {
            1.. => op.modulo,
            _ if op.modulo == 0 => size - 1,
            _ => return Err(self.unsupported(node, "a backward slice with an offset")),
        };
        self.emit(
            node,
            "",
            Op::Slice {
                axis: op.axis,
                start,
                len,
                step: op.stride,
            },
            &[x],
        )
    }

    fn strided_slice(
        &mut self,
        node: &TypedNode,
        op: &StridedSlice,
        inputs: &[Operand],
    ) -> Lowered {
        let mut x = self.activation(node, &inputs[0])?;
        let mut parameters = Vec::new();
        for operand in &inputs[1..] {
            match operand {
                Operand::Constant(t) => parameters.push(t.clone()),
                Operand::Value(_) => {
                    return Err(self.unsupported(node, "bounds that depend on data"));
                }
            }
        }
        let rank = self.graph.shape(x).len();
        let numbers = |slot: Option<usize>| match slot.and_then(|i| parameters.get(i - 1)) {
            Some(t) => operand::integers(t).map(Some),
            None => Ok(None),
        };
        let invalid =
            |e: TractError| self.unsupported(node, &format!("its parameters are invalid: {e:#}"));
        let steps = numbers(op.optional_steps_input)
            .map_err(invalid)?
            .unwrap_or_else(|| vec![1; rank]);
        let steps: Vec<i32> = steps
            .iter()
            .map(|&s| s.clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32)
            .collect();
        let axes = numbers(op.optional_axes_input)
            .map_err(invalid)?
            .unwrap_or_else(|| (0..rank as i64).collect());
        let mut shrunk = Vec::new();
        for (i, &axis) in axes.iter().enumerate() {
            let axis = if axis < 0 { axis + rank as i64 } else { axis };
            let Some(axis) = usize::try_from(axis).ok().filter(|&a| a < rank) else {
                return Err(self.unsupported(node, "no such axis"));
            };
            let size = self.graph.shape(x)[axis];
            let dim = op.prepare_one_dim(i, &size.to_dim(), &parameters[0], &parameters[1], &steps);
            let dim = dim.map_err(|e| {
                self.unsupported(node, &format!("its parameters are invalid: {e:#}"))
            })?;
            let (Some(begin), Some(len)) = (
                dim.begin.as_i64(),
                dim.soft_len().ok().and_then(|l| l.as_i64()),
            ) else {
                return Err(self.unsupported(node, "bounds that depend on data"));
            };
            let (Ok(start), Ok(len)) = (usize::try_from(begin), usize::try_from(len)) else {
                return Err(self.unsupported(node, "negative bounds"));
            };
            if dim.shrink {
                shrunk.push(axis);
            }
            if (start, len, dim.stride) != (0, size, 1) {
                x = self.value(
                    node,
                    "",
                    Op::Slice {
                        axis,
                        start,
                        len,
                        step: dim.stride as isize,
                    },
                    &[x],
                )?;
            }
        }
        if shrunk.is_empty() {
            return Ok(vec![Operand::Value(x)]);
        }
        let shape = self.output_shape(node)?;
        self.emit(node, "squeeze", Op::Reshape(shape), &[x])
    }

    fn pad(&mut self, node: &TypedNode, op: &Pad, inputs: &[Operand]) -> Lowered {
        let x = self.activation(node, &inputs[0])?;
        let PadMode::Constant(value) = &op.mode else {
            return Err(self.unsupported(
                node,
                "only constant padding is supported; pad the image beforehand",
            ));
        };
        let value = self.floats(node, value)?.first().copied().unwrap_or(0.0);
        let (before, after) = op.pads.iter().copied().unzip();
        self.emit(
            node,
            "",
            Op::Pad {
                before,
                after,
                value,
            },
            &[x],
        )
    }

    fn tile(&mut self, node: &TypedNode, inputs: &[Operand]) -> Lowered {
        let mut x = self.activation(node, &inputs[0])?;
        let wanted = self.output_shape(node)?;
        for (axis, &size) in wanted.iter().enumerate() {
            let copies = size / self.graph.shape(x)[axis];
            if copies > MAX_PIECES {
                return Err(self.unsupported(node, "too many repetitions"));
            }
            if copies > 1 {
                x = self.value(node, "", Op::Concat { axis }, &vec![x; copies])?;
            }
        }
        Ok(vec![Operand::Value(x)])
    }

    /// Indices that one column of coordinates holds, the others being dimensions of size 1.
    fn gather_nd(&mut self, node: &TypedNode, op: &GatherNd, inputs: &[Operand]) -> Lowered {
        let [x, Operand::Value(coordinates)] = inputs else {
            return Err(self.unsupported(node, "coordinates that constants do not fold"));
        };
        let (x, coordinates) = (self.activation(node, x)?, *coordinates);
        let columns = self.graph.shape(coordinates).last().copied().unwrap_or(0);
        let sizes = self.graph.shape(x)[..columns].to_vec();
        let wide: Vec<usize> = (0..columns).filter(|&c| sizes[c] != 1).collect();
        let (0, [axis]) = (op.batch_dims, &wide[..]) else {
            return Err(self.unsupported(node, "coordinates along more than one axis"));
        };
        let last = self.graph.shape(coordinates).len() - 1;
        let column = Op::Slice {
            axis: last,
            start: *axis,
            len: 1,
            step: 1,
        };
        let indices = self.value(node, "column", column, &[coordinates])?;
        let picked = self.value(node, "", Op::Gather { axis: *axis }, &[x, indices])?;
        let shape = self.output_shape(node)?;
        self.emit(node, "squeeze", Op::Reshape(shape), &[picked])
    }

    /// Constant indices: a slice for each run of equally spaced ones, joined.
    fn gather(&mut self, node: &TypedNode, op: &Gather, inputs: &[Operand]) -> Lowered {
        let [x, Operand::Constant(indices)] = inputs else {
            let (x, indices) = (
                self.activation(node, &inputs[0])?,
                self.activation(node, &inputs[1])?,
            );
            return self.emit(node, "", Op::Gather { axis: op.axis }, &[x, indices]);
        };
        let x = self.activation(node, x)?;
        let size = self.graph.shape(x)[op.axis] as i64;
        let indices = operand::integers(indices)
            .map_err(|e| self.unsupported(node, &format!("its indices are invalid: {e:#}")))?;
        let indices: Vec<usize> = indices
            .iter()
            .map(|&i| if i < 0 { i + size } else { i })
            .filter_map(|i| usize::try_from(i).ok().filter(|&i| (i as i64) < size))
            .collect();
        let shape = self.output_shape(node)?;
        if indices.is_empty()
            || shape.iter().product::<usize>() * size as usize
                != self.graph.shape(x).iter().product::<usize>() * indices.len()
        {
            return Err(self.unsupported(node, "indices out of range"));
        }
        let pieces = runs(&indices);
        if pieces.len() > MAX_PIECES {
            return Err(self.unsupported(node, "too many scattered indices"));
        }
        let mut parts: Vec<ValueId> = Vec::with_capacity(pieces.len());
        for (start, len, step) in pieces {
            parts.push(self.value(
                node,
                "",
                Op::Slice {
                    axis: op.axis,
                    start,
                    len,
                    step,
                },
                &[x],
            )?);
        }
        let joined = match &parts[..] {
            [one] => *one,
            many => self.value(node, "join", Op::Concat { axis: op.axis }, many)?,
        };
        self.emit(node, "squeeze", Op::Reshape(shape), &[joined])
    }
}

/// Cuts indices into runs of constant distance: start, length, step.
fn runs(indices: &[usize]) -> Vec<(usize, usize, isize)> {
    let mut runs: Vec<(usize, usize, isize)> = Vec::new();
    for &i in indices {
        if let Some((start, len, step)) = runs.last_mut() {
            let last = *start as isize + (*len as isize - 1) * *step;
            let distance = i as isize - last;
            if distance != 0 && (*len == 1 || distance == *step) {
                (*len, *step) = (*len + 1, distance);
                continue;
            }
        }
        runs.push((i, 1, 1));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn indices_fall_into_runs() {
        assert_eq!(runs(&[3]), [(3, 1, 1)]);
        assert_eq!(runs(&[0, 1, 2]), [(0, 3, 1)]);
        assert_eq!(runs(&[4, 2, 0]), [(4, 3, -2)]);
        assert_eq!(runs(&[1, 1, 5, 7]), [(1, 1, 1), (1, 2, 4), (7, 1, 1)]);
    }
}
