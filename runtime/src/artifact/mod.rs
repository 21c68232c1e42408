//! The sealed artifact: a view over `.amp` bytes that checks everything once.

mod bind;
mod decode;
mod golden;
mod io;
pub mod layout;
#[cfg(any(target_os = "none", test))]
mod sha256;
mod step;
mod verify;

use core::marker::PhantomData;

use layout::{HEADER_LEN, SECTION_ENTRY, TENSOR_RECORD, field, section, u32_at};

pub(crate) use bind::Bound;
pub use golden::{Golden, golden_input};
pub use io::{Direction, Io};
pub use step::{Attention, Binary, Blob, Conv, Step};

use crate::error::Error;
use crate::operators::{AllOperators, Kind, Operators};
use crate::preprocess::Preprocess;
use crate::tensor::{CONSTANT_BANK, DType, Shape, Tensor, TensorId};

/// A verified artifact; borrows the bytes and uses them in place.
///
/// ```no_run
/// use ampoule_runtime::Artifact;
/// # fn demo(bytes: &[u8]) -> Result<(), ampoule_runtime::Error> {
/// let artifact = Artifact::verify(bytes)?;
/// assert!(artifact.steps().count() > 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Artifact<'m> {
    bytes: &'m [u8],
    tensors: &'m [u8],
    steps: &'m [u8],
    weights: &'m [u8],
    ios: &'m [u8],
    step_count: u16,
}

impl<'m> Artifact<'m> {
    /// Checks the digest and every invariant that execution relies on.
    ///
    /// After it, running can't read or write outside the artifact, the arena and the inputs, can't
    /// panic and can't allocate, whatever the bytes are. Cost: one SHA-256 of the file, plus time
    /// linear in steps and quadratic (with a tiny constant) in tensors.
    ///
    /// # Errors
    ///
    /// A code that says which part of the format is broken.
    pub fn verify(bytes: &'m [u8]) -> Result<Self, Error> {
        Self::verify_for::<AllOperators>(bytes)
    }

    /// [`Artifact::verify`] for a program that is linked with some operators only, which
    /// [`Session::linked`](crate::Session::linked) then runs.
    ///
    /// Where the build has verified the artifact ([`Operators::PROVEN`]) it compares digest and address only.
    ///
    /// # Errors
    ///
    /// [`Error::NotLinked`] as well. Where the build has verified the artifact, [`Error::Checksum`] for all other bytes,
    /// or [`Error::ArtifactMisaligned`].
    pub fn verify_for<O: Operators>(bytes: &'m [u8]) -> Result<Self, Error> {
        if let Some(digest) = O::PROVEN {
            verify::identity(bytes, &digest)?;
            return Self::open(bytes);
        }
        verify::header(bytes)?;
        verify::digest(bytes)?;
        Self::verify_structure_for::<O>(bytes)
    }

    /// [`Artifact::verify`] without the digest: as safe, but damage inside weights goes unnoticed.
    ///
    /// For boot loaders that have checked a signature over the same bytes, and for fuzzing.
    ///
    /// # Errors
    ///
    /// As [`Artifact::verify`].
    pub fn verify_structure(bytes: &'m [u8]) -> Result<Self, Error> {
        Self::verify_structure_for::<AllOperators>(bytes)
    }

    /// [`Artifact::verify_structure`] for a program that is linked with some operators only; where the build has
    /// verified the artifact, [`Artifact::verify_for`].
    ///
    /// # Errors
    ///
    /// As [`Artifact::verify_for`].
    pub fn verify_structure_for<O: Operators>(bytes: &'m [u8]) -> Result<Self, Error> {
        if O::PROVEN.is_some() {
            return Self::verify_for::<O>(bytes);
        }
        verify::header(bytes)?;
        let artifact = Self::open(bytes)?;
        verify::structure::<O>(&artifact)?;
        Ok(artifact)
    }

    /// Locates the sections of a file whose header is sound.
    fn open(bytes: &'m [u8]) -> Result<Self, Error> {
        let find = |kind| verify::find_section(bytes, kind)?.ok_or(Error::BadSection(kind));
        let steps = u32_at(bytes, field::STEPS).ok_or(Error::Truncated)?;
        Ok(Artifact {
            bytes,
            tensors: find(section::TENSORS)?,
            steps: find(section::STEPS)?,
            weights: find(section::WEIGHTS)?,
            ios: find(section::IO)?,
            step_count: u16::try_from(steps).map_err(|_| Error::BadSection(section::STEPS))?,
        })
    }

    /// The whole file.
    pub fn bytes(&self) -> &'m [u8] {
        self.bytes
    }

    /// Bytes of arena bank `bank`; 0 for a bank that is not used.
    pub fn bank_bytes(&self, bank: usize) -> usize {
        layout::bank_bytes(self.bytes, bank).unwrap_or(0)
    }

    /// Number of arena banks in use.
    pub fn banks(&self) -> usize {
        (0..layout::MAX_BANKS)
            .rev()
            .find(|&b| self.bank_bytes(b) > 0)
            .map_or(0, |b| b + 1)
    }

    /// SHA-256 stored in the header: the artifact's identity.
    pub fn digest(&self) -> &'m [u8] {
        &self.bytes[field::DIGEST..field::DIGEST + 32]
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len() / TENSOR_RECORD
    }

    /// Record of a tensor.
    ///
    /// # Errors
    ///
    /// [`Error::BadTensor`] when there is none of that number or it is malformed.
    pub fn tensor(&self, id: TensorId) -> Result<Tensor, Error> {
        self.record(id).ok_or(Error::BadTensor(id))
    }

    /// [`Artifact::tensor`], or `None`: what looks tensors up at each step takes less flash so.
    #[cfg_attr(target_os = "none", inline(never))]
    pub(crate) fn record(&self, id: TensorId) -> Option<Tensor> {
        let at = usize::from(id) * TENSOR_RECORD;
        decode_tensor(self.tensors.get(at..)?.first_chunk()?)
    }

    /// Number of steps.
    pub fn step_count(&self) -> usize {
        usize::from(self.step_count)
    }

    /// The steps in execution order. Decoding stops at the first malformed record.
    pub fn steps(&self) -> Steps<'m> {
        self.steps_for()
    }

    /// [`Artifact::steps`] of a program that is linked with some operators only.
    pub(crate) fn steps_for<O: Operators>(&self) -> Steps<'m, O> {
        Steps {
            rest: self.steps,
            left: self.step_count,
            operators: PhantomData,
        }
    }

    /// Bytes of a constant.
    ///
    /// # Errors
    ///
    /// [`Error::BadSection`] when the range is outside the weights section or misaligned.
    pub fn blob(&self, blob: Blob) -> Result<&'m [u8], Error> {
        let bad = Error::BadSection(section::WEIGHTS);
        let start = blob.offset as usize;
        let end = start.checked_add(blob.len as usize).ok_or(bad)?;
        if start % layout::ALIGN != 0 {
            return Err(bad);
        }
        self.weights.get(start..end).ok_or(bad)
    }

    /// `len` bytes of the weights section from `start` on: a tensor that lives there.
    pub(crate) fn constant(&self, start: usize, len: usize) -> Option<&'m [u8]> {
        self.weights.get(start..start.checked_add(len)?)
    }

    /// Number of input and output records.
    pub fn io_count(&self) -> usize {
        self.ios.len() / layout::IO_RECORD
    }

    /// The record of an input or output, in file order.
    ///
    /// # Errors
    ///
    /// [`Error::BadIo`] when there is none of that number or it is malformed.
    pub fn io(&self, index: u16) -> Result<Io<'m>, Error> {
        io::decode(self, index)
    }

    /// The inputs, in the source model's order.
    pub fn inputs(&self) -> impl Iterator<Item = Io<'m>> + use<'m> {
        self.ports(Direction::Input)
    }

    /// The outputs, in the source model's order.
    pub fn outputs(&self) -> impl Iterator<Item = Io<'m>> + use<'m> {
        self.ports(Direction::Output)
    }

    /// The tensor of the input or output of that number among those of its direction.
    pub(crate) fn port(&self, direction: Direction, number: usize) -> Option<Tensor> {
        let mut left = number;
        for index in 0..self.io_count() as u16 {
            let (found, id) = io::port(self, index)?;
            if found == direction {
                match left {
                    0 => return self.record(id),
                    _ => left -= 1,
                }
            }
        }
        None
    }

    fn ports(&self, direction: Direction) -> impl Iterator<Item = Io<'m>> + use<'m> {
        let artifact = *self;
        let count = artifact.io_count().min(usize::from(u16::MAX)) as u16;
        (0..count)
            .filter_map(move |i| artifact.io(i).ok())
            .filter(move |io| io.direction == direction)
    }

    /// Preprocessing of the first input, when the artifact carries it.
    pub fn preprocess(&self) -> Option<Preprocess> {
        postcard::from_bytes(self.section(section::PREPROCESS)?).ok()
    }

    /// Class labels, in class order.
    pub fn labels(&self) -> Option<core::str::Lines<'m>> {
        core::str::from_utf8(self.section(section::LABELS)?)
            .ok()
            .map(str::lines)
    }

    /// Name of a tensor, from the optional names section.
    pub fn tensor_name(&self, id: TensorId) -> Option<&'m str> {
        core::str::from_utf8(self.section(section::NAMES)?)
            .ok()?
            .lines()
            .nth(usize::from(id))
    }

    /// The JSON facts about the artifact's making.
    pub fn meta(&self) -> Option<&'m str> {
        core::str::from_utf8(self.section(section::META)?).ok()
    }

    /// Golden vectors.
    pub fn golden(&self) -> impl Iterator<Item = Golden<'m>> + use<'m> {
        golden::iter(self.section(section::GOLDEN).unwrap_or(&[]))
    }

    /// Bytes of an optional section.
    pub fn section(&self, kind: u32) -> Option<&'m [u8]> {
        verify::find_section(self.bytes, kind).ok().flatten()
    }

    /// Length of the weights section.
    pub fn weight_bytes(&self) -> usize {
        self.weights.len()
    }
}

/// Iterator over the steps.
#[derive(Debug, Clone)]
pub struct Steps<'m, O = AllOperators> {
    rest: &'m [u8],
    left: u16,
    operators: PhantomData<fn() -> O>,
}

impl<O: Operators> Steps<'_, O> {
    /// Whether the next record is of an operator that is not linked.
    pub(crate) fn is_next_unlinked(&self) -> bool {
        // Tags are single bytes.
        let tag = self.rest.first().copied().unwrap_or(u8::MAX);
        Kind::from_tag(tag).is_some_and(|kind| !O::SET.any(kind))
    }

    /// Bytes not yet decoded.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<O: Operators> Iterator for Steps<'_, O> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.left = self.left.checked_sub(1)?;
        let (step, rest) = Step::decode::<O>(self.rest)?;
        self.rest = rest;
        Some(step)
    }
}

/// Decodes a tensor record; `None` when a field is out of its domain.
fn decode_tensor(r: &[u8; TENSOR_RECORD]) -> Option<Tensor> {
    let [[code, bank, rank, view], ref words @ ..] = *r.as_chunks::<4>().0 else {
        return None;
    };
    let &[offset, d0, d1, d2, d3, d4, d5, scale, zero_point, lives] = words.first_chunk()?;
    let dims = [d0, d1, d2, d3, d4, d5].map(|d| u32::from_le_bytes(d) as usize);
    let [first, last] = [[lives[0], lives[1]], [lives[2], lives[3]]].map(u16::from_le_bytes);
    let tensor = Tensor {
        dtype: DType::from_code(code)?,
        bank,
        offset: u32::from_le_bytes(offset),
        shape: Shape::new(dims.get(..usize::from(rank))?)?,
        scale: f32::from_le_bytes(scale),
        zero_point: i32::from_le_bytes(zero_point),
        first,
        last,
        view: view == 1,
    };
    let domain = tensor.scale.is_finite() && tensor.scale > 0.0;
    let zero = match tensor.dtype {
        DType::I8 => (-128..=127).contains(&tensor.zero_point),
        _ => tensor.zero_point == 0,
    };
    let views = view == 0 || (tensor.view && tensor.bank != CONSTANT_BANK);
    let constant = tensor.bank == CONSTANT_BANK || usize::from(tensor.bank) < layout::MAX_BANKS;
    (domain && zero && constant && tensor.first <= tensor.last && views).then_some(tensor)
}

/// Length that the header, section table and nothing else would have.
pub(crate) const fn table_end(sections: usize) -> usize {
    HEADER_LEN + sections * SECTION_ENTRY
}
