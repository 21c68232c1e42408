//! Input and output records.

use super::Artifact;
use super::layout::{IO_RECORD, u16_at};
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
pub(super) fn decode<'m>(artifact: &Artifact<'m>, index: u16) -> Result<Io<'m>, Error> {
    let bad = Error::BadIo(index);
    let at = usize::from(index) * IO_RECORD;
    let record = artifact.ios.get(at..at + IO_RECORD).ok_or(bad)?;
    let id = u16_at(record, 0).ok_or(bad)?;
    let tensor = artifact.tensor(id)?;
    let direction = match record[2] {
        0 => Direction::Input,
        1 => Direction::Output,
        _ => return Err(bad),
    };
    let rank = tensor.shape.rank();
    let mut layout = [0u8; MAX_RANK];
    layout.copy_from_slice(&record[4..4 + MAX_RANK]);
    let is_permutation = (0..rank).all(|d| layout[..rank].contains(&(d as u8)));
    if usize::from(record[3]) != rank || !is_permutation || record[10..].iter().any(|&b| b != 0) {
        return Err(bad);
    }
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
