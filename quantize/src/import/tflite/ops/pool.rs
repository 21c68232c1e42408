//! Pooling and reductions.

use ampoule_runtime::ops::pool::PoolKind;
use tract_tflite::tflite::BuiltinOperator;

use super::super::file::Operator;
use super::super::lower::Lowering;
use crate::graph::{Op, ReduceKind};
use crate::import::error::Problem;

impl Lowering<'_, '_> {
    pub(super) fn pool(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let Some(options) = op.options.builtin_options_as_pool_2_doptions() else {
            return Err(self.no_options(op));
        };
        let (input, _) = self.map(op, 0)?;
        let kernel = [options.filter_height(), options.filter_width()];
        let kernel = kernel.map(|k| usize::try_from(k).unwrap_or(0));
        let window = self.window(
            op,
            input,
            kernel,
            [options.stride_h(), options.stride_w()],
            [1, 1],
            options.padding(),
        )?;
        if self
            .activation(op, options.fused_activation_function())?
            .is_some()
        {
            return Err(self.unsupported(op, "with an activation"));
        }
        let x = self.value(op, 0)?;
        let kind = match op.code {
            BuiltinOperator::MAX_POOL_2D => PoolKind::Max,
            _ => PoolKind::Average,
        };
        let pool = Op::Pool {
            kind,
            window,
            include_pad: false,
        };
        self.emit(op, pool, &[x])
    }

    pub(super) fn reduce(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let rank = self.tensor(op, 0)?.shape.len();
        let mut axes = Vec::new();
        for axis in self.integers(op, 1)? {
            axes.push(self.axis(op, axis, rank)?);
        }
        axes.sort_unstable();
        axes.dedup();
        let x = self.value(op, 0)?;
        let kind = match op.code {
            BuiltinOperator::SUM => ReduceKind::Sum,
            BuiltinOperator::REDUCE_MAX => ReduceKind::Max,
            BuiltinOperator::REDUCE_MIN => ReduceKind::Min,
            _ => ReduceKind::Mean,
        };
        self.emit(op, Op::Reduce { kind, axes }, &[x])
    }

    pub(super) fn arg_max(&mut self, op: &Operator<'_>) -> Result<(), Problem> {
        let rank = self.tensor(op, 0)?.shape.len();
        let axis = match self.integers(op, 1)?[..] {
            [axis] => self.axis(op, axis, rank)?,
            _ => return Err(self.unsupported(op, "more than one axis")),
        };
        let x = self.value(op, 0)?;
        self.emit(op, Op::ArgMax { axis, last: false }, &[x])
    }
}
