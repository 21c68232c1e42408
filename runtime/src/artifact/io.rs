//! Input and output records.

use super::Artifact;
use super::layout::IO_RECORD;
use crate::error::Error;
use crate::tensor::{MAX_RANK, Tensor, TensorId};

/// Whether a record names an input or an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Written by the caller.
    Input,
    /// Read by the caller.
    Output,
}

/// An input or output of the model.
#[derive(Debug, Clone, Copy)]
pub struct Io<'m> {
    /// Direction.
    pub direction: Direction,
    /// The tensor's number.
    pub id: TensorId,
    /// The tensor.
    pub tensor: Tensor,
    /// Source dimension `i` is stored dimension `layout[i]`.
    pub layout: [u8; MAX_RANK],
    /// Name, when the names section is there.
    pub name: Option<&'m str>,
}

/// Record layout: u16 tensor, u8 direction (0 in, 1 out), u8 rank, 6 × u8 layout, 6 reserved zeros.
///
/// Direction, number and record of the tensor; what firmware needs, without the name.
pub(super) fn tensor(
    artifact: &Artifact<'_>,
    index: u16,
) -> Result<(Direction, TensorId, Tensor), Error> {
    let bad = Error::BadIo(index);
    let (direction, id) = port(artifact, index).ok_or(bad)?;
    let &[_, _, _, rank, ref layout @ ..] = record(artifact, index).ok_or(bad)?;
    let tensor = artifact.tensor(id)?;
    let axes = 0..tensor.shape.rank() as u8;
    let is_permutation = axes
        .clone()
        .all(|d| layout.iter().take(axes.len()).any(|&l| l == d));
    let reserved = &layout[MAX_RANK..];
    if rank != axes.end || !is_permutation || reserved.iter().any(|&b| b != 0) {
        return Err(bad);
    }
    Ok((direction, id, tensor))
}

/// Direction and number of the tensor.
pub(super) fn port(artifact: &Artifact<'_>, index: u16) -> Option<(Direction, TensorId)> {
    let &[low, high, direction, ..] = record(artifact, index)?;
    let direction = match direction {
        0 => Direction::Input,
        1 => Direction::Output,
        _ => return None,
    };
    Some((direction, u16::from_le_bytes([low, high])))
}

fn record<'m>(artifact: &Artifact<'m>, index: u16) -> Option<&'m [u8; IO_RECORD]> {
    let rest = artifact.ios.get(usize::from(index) * IO_RECORD..)?;
    rest.first_chunk()
}

/// The record with the name.
pub(super) fn decode<'m>(artifact: &Artifact<'m>, index: u16) -> Result<Io<'m>, Error> {
    let (direction, id, tensor) = tensor(artifact, index)?;
    let record = record(artifact, index).ok_or(Error::BadIo(index))?;
    let layout = core::array::from_fn(|axis| record[4 + axis]);
    // Names of inputs and outputs follow those of the tensors.
    let line = artifact.tensor_count() + usize::from(index);
    let name = artifact
        .section(super::section::NAMES)
        .and_then(|b| core::str::from_utf8(b).ok())
        .and_then(|s| s.lines().nth(line));
    Ok(Io {
        direction,
        id,
        tensor,
        layout,
        name,
    })
}
