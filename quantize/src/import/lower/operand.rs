//! What a wire of the typed model is while lowering.

use std::sync::Arc;

use tract_onnx::prelude::*;

use crate::graph::ValueId;

/// A value of the graph, or a constant that is not in the graph yet.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Value(ValueId),
    Constant(Arc<Tensor>),
}

/// Whether activations of a type are indices in the graph.
pub(super) fn is_integer(kind: DatumType) -> bool {
    kind.is_integer() || kind.is_tdim()
}

/// Data of a numeric tensor as f32, row-major.
pub(super) fn floats(t: &Tensor) -> TractResult<Vec<f32>> {
    let t = t.cast_to::<f32>()?;
    Ok(t.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

/// Data of an integer tensor.
pub(super) fn integers(t: &Tensor) -> TractResult<Vec<i64>> {
    let t = t.cast_to::<i64>()?;
    Ok(t.try_as_plain_ram()?.as_slice::<i64>()?.to_vec())
}
