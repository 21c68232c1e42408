//! Linear layers of few weights.

use super::super::{Artifact, Blob, step::Conv};
use super::conv::{Form, MAX_DEPTH, codes};
use super::lookup::slice;
use super::{Bound, rule};
use crate::operators::Operators;
use crate::ops::sparse::{Blocks, SparseI8};
use crate::tensor::DType;

pub(super) fn sparse<'m, O: Operators>(
    artifact: &Artifact<'m>,
    c: &Conv,
    starts: Blob,
    quads: Blob,
) -> Option<Bound<'m>> {
    let form = Form::new::<O>(artifact, c)?;
    let (conv, residual) = codes::<O>(artifact, c, &form)?;
    let blocks = Blocks {
        starts: slice(artifact, starts)?,
        quads: slice(artifact, quads)?,
        weights: slice(artifact, c.weights)?,
    };
    rule::<O>(|| {
        form.types() == (DType::I8, DType::I8)
            && c.window.is_point()
            && form.input[2] <= MAX_DEPTH
            && blocks.starts.len().checked_sub(1) == Some(form.output[2])
            && blocks.quads.len() == blocks.weights.len()
    })?;
    Some(Bound::Sparse {
        op: SparseI8 { conv, blocks },
        residual,
    })
}
