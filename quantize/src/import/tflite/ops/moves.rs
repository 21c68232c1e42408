//! Operators that move elements.

use tract_tflite::tflite::{ActivationFunctionType, BuiltinOperator};

use super::super::file::Operator;
use super::super::lower::Lowering;
use crate::graph::{Op, ValueId};
use crate::import::error::Problem;

impl Lowering<'_, '_> {
    /// The shape of the result is the file's own; what makes it need not be constant.
    pub(super) fn reshape(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let x = self.value(op, 0)?;
        let name = self.node_name(op);
        self.finish(op, &name, x)
    }

    pub(super) fn pad(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let rank = self.tensor(op, 0)?.shape.len();
        let pads = self.integers(op, 1)?;
        let most = self.result(op).elements() as i64;
        if pads.len() != 2 * rank || pads.iter().any(|p| !(0..=most).contains(p)) {
            return Err(self.unsupported(
                op,
                "its padding is not one pair of sizes for each dimension",
            ));
        }
        let value = match (op.code, self.has(op, 2)) {
            (BuiltinOperator::PADV2, true) => match self.tensor(op, 2)?.floats().as_deref() {
                Some(&[value]) if value.is_finite() => value,
                _ => return Err(self.unsupported(op, "the value of its padding is not constant")),
            },
            _ => 0.0,
        };
        let side = |which: usize| {
            pads.iter()
                .skip(which)
                .step_by(2)
                .map(|&p| p as usize)
                .collect()
        };
        let (before, after) = (side(0), side(1));
        let x = self.value(op, 0)?;
        let pad = Op::Pad {
            before,
            after,
            value,
        };
        self.emit(op, pad, &[x])
    }

    pub(super) fn concat(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op.options.builtin_options_as_concatenation_options() else {
            return Err(self.no_options(op));
        };
        if options.fused_activation_function() != ActivationFunctionType::NONE {
            return Err(self.unsupported(op, "with an activation"));
        }
        let rank = self.tensor(op, 0)?.shape.len();
        let axis = self.axis(op, i64::from(options.axis()), rank)?;
        let parts = (0..op.inputs.len()).map(|i| self.value(op, i));
        let parts: Vec<ValueId> = parts.collect::<Result<_, _>>()?;
        self.emit(op, Op::Concat { axis }, &parts)
    }

    pub(super) fn transpose(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let rank = self.tensor(op, 0)?.shape.len();
        let mut perm = Vec::new();
        for axis in self.integers(op, 1)? {
            perm.push(self.axis(op, axis, rank)?);
        }
        let x = self.value(op, 0)?;
        self.emit(op, Op::Transpose(perm), &[x])
    }

    pub(super) fn slice(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let (begin, size) = (self.integers(op, 1)?, self.integers(op, 2)?);
        let shape = self.tensor(op, 0)?.shape.clone();
        if begin.len() != shape.len() || size.len() != shape.len() {
            return Err(self.unsupported(op, "its bounds are not one for each dimension"));
        }
        let ends = begin.iter().zip(&size).zip(&shape).map(|((&b, &s), &d)| {
            let end = if s < 0 { d as i64 } else { b.saturating_add(s) };
            (b, end, 1)
        });
        let bounds = ends.collect::<Vec<_>>();
        self.cut(op, &shape, &bounds)
    }

    pub(super) fn strided_slice(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op.options.builtin_options_as_strided_slice_options() else {
            return Err(self.no_options(op));
        };
        if options.ellipsis_mask() != 0 || options.new_axis_mask() != 0 {
            return Err(self.unsupported(op, "with an ellipsis or a new axis"));
        }
        let [begin, end, step] = [
            self.integers(op, 1)?,
            self.integers(op, 2)?,
            self.integers(op, 3)?,
        ];
        let shape = self.tensor(op, 0)?.shape.clone();
        if [&begin, &end, &step].iter().any(|v| v.len() != shape.len()) {
            return Err(self.unsupported(op, "its bounds are not one for each dimension"));
        }
        let is_set = |mask: i32, d: usize| mask >> d & 1 == 1;
        let bounds: Vec<_> = (0..shape.len())
            .map(|d| {
                let size = shape[d] as i64;
                let place = |v: i64| if v < 0 { v.saturating_add(size) } else { v }.clamp(0, size);
                let first = if is_set(options.begin_mask(), d) {
                    0
                } else {
                    place(begin[d])
                };
                let last = if is_set(options.shrink_axis_mask(), d) {
                    first + 1
                } else if is_set(options.end_mask(), d) {
                    size
                } else {
                    place(end[d])
                };
                (first, last, step[d])
            })
            .collect();
        self.cut(op, &shape, &bounds)
    }

    /// Takes `start..end` in positive steps along each dimension.
    fn cut(
        &mut self,
        op: &Operator<'_>,
        shape: &[usize],
        bounds: &[(i64, i64, i64)],
    ) -> Result<(), Problem> {
        let mut x = self.value(op, 0)?;
        let name = self.node_name(op);
        for (axis, &(start, end, step)) in bounds.iter().enumerate() {
            let size = shape[axis] as i64;
            if step < 1 || start < 0 || start >= end || end > size {
                return Err(
                    self.unsupported(op, "its bounds are outside its operand, or run backwards")
                );
            }
            if (start, end, step) == (0, size, 1) {
                continue;
            }
            let cut = Op::Slice {
                axis,
                start: start as usize,
                len: (end - start).div_euclid(step) as usize
                    + usize::from((end - start) % step != 0),
                step: step as isize,
            };
            let part = self.name(&format!("{name}.{axis}"));
            x = self.graph.push(&part, cut, &[x])?;
        }
        self.finish(op, &name, x)
    }
}
