//! The arena: caller's memory, handed to a step as disjoint slices without `unsafe`.

use crate::ARENA_ALIGN;
use crate::artifact::Artifact;
use crate::artifact::layout::MAX_BANKS;
use crate::error::Error;
use crate::tensor::{CONSTANT_BANK, Tensor, TensorId};

/// Memory with the alignment an arena needs.
///
/// ```
/// use ampoule_runtime::Arena;
/// let mut arena = Arena::<1024>::new();
/// assert_eq!(arena.bytes().as_ptr() as usize % 64, 0);
/// ```
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Arena<const N: usize>([u8; N]);

impl<const N: usize> Arena<N> {
    /// Zeroed memory.
    pub const fn new() -> Self {
        Arena([0; N])
    }

    /// The bytes, as [`crate::Session::new`] takes them.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes with the alignment that an artifact needs; [`crate::include_ampoule`] makes them.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Aligned<B: ?Sized>(pub B);

/// The bytes of a file, as `include_bytes!`, with the alignment that [`crate::Artifact::verify`] asks for.
///
/// ```ignore
/// static MODEL: &[u8] = ampoule_runtime::include_ampoule!("model.amp");
/// static mut ARENA: Arena<{ arena_bytes(MODEL) }> = Arena::new();
/// ```
#[macro_export]
macro_rules! include_ampoule {
    ($path:expr) => {{
        static FILE: &$crate::Aligned<[u8]> = &$crate::Aligned(*include_bytes!($path));
        &FILE.0
    }};
}

/// The arena banks of a session.
#[derive(Debug)]
pub(crate) struct Memory<'a> {
    banks: [&'a mut [u8]; MAX_BANKS],
}

/// What one step sees: its output, its working memory and what it reads.
pub(crate) struct Views<'v> {
    pub y: &'v mut [u8],
    pub scratch: &'v mut [u8],
    pub reads: [Read<'v>; 4],
}

/// An operand of a step.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Read<'v> {
    /// The step has no such operand.
    None,
    /// The operand's bytes.
    Bytes(&'v [u8]),
    /// The operand is the output's memory: the step works in place.
    InPlace,
}

impl<'a> Memory<'a> {
    /// Takes one slice per bank the artifact uses, in order.
    pub fn new(
        artifact: &Artifact<'_>,
        banks: impl IntoIterator<Item = &'a mut [u8]>,
    ) -> Result<Self, Error> {
        let mut memory = Memory {
            banks: core::array::from_fn(|_| [].as_mut_slice()),
        };
        for (slot, bank) in memory.banks.iter_mut().zip(banks) {
            *slot = bank;
        }
        for (i, bank) in memory.banks.iter().enumerate() {
            let need = artifact.bank_bytes(i);
            if bank.len() < need {
                return Err(Error::ArenaTooSmall(i as u8));
            }
            if need > 0 && bank.as_ptr() as usize % ARENA_ALIGN != 0 {
                return Err(Error::ArenaMisaligned(i as u8));
            }
        }
        Ok(memory)
    }

    /// The bytes of a tensor, in the arena or in the weights.
    pub fn tensor<'v>(&'v self, artifact: &Artifact<'v>, t: &Tensor) -> Option<&'v [u8]> {
        let (start, len) = (t.offset as usize, t.bytes());
        match t.bank {
            CONSTANT_BANK => artifact.constant(start, len),
            bank => self.banks.get(usize::from(bank))?.get(start..start + len),
        }
    }

    /// The bytes of an arena tensor, to write.
    pub fn tensor_mut(&mut self, t: &Tensor) -> Option<&mut [u8]> {
        let range = t.offset as usize..t.offset as usize + t.bytes();
        self.banks.get_mut(usize::from(t.bank))?.get_mut(range)
    }

    /// The views of a step that writes `y` and `scratch` and reads `reads`.
    pub fn views<'v>(
        &'v mut self,
        artifact: &Artifact<'v>,
        y: TensorId,
        scratch: Option<TensorId>,
        reads: [Option<TensorId>; 4],
    ) -> Option<Views<'v>> {
        let output = Region::find(artifact, y)?;
        // Slot 0 is the output, 1 the working memory, the others the operands.
        let mut wanted = [None; 6];
        wanted[0] = Some(output);
        if let Some(id) = scratch {
            wanted[1] = Some(Region::find(artifact, id)?);
        }
        let mut found = [Read::None; 4];
        // Of operands that are one tensor the first has the slot.
        let mut slots = [None; 4];
        for (i, id) in reads.into_iter().enumerate() {
            let Some(id) = id else { continue };
            let region = Region::find(artifact, id)?;
            if region.bank == CONSTANT_BANK {
                found[i] = Read::Bytes(artifact.constant(region.start, region.len)?);
            } else if region == output {
                found[i] = Read::InPlace;
            } else {
                let known = (0..i).find(|&j| wanted[2 + j] == Some(region));
                let slot = known.unwrap_or(i);
                slots[i] = Some(slot);
                wanted[2 + slot] = Some(region);
            }
        }
        let [y, scratch, operands @ ..] = self.split(wanted)?;
        let operands = operands.map(|operand| &*operand);
        for (read, slot) in found.iter_mut().zip(slots) {
            if let Some(&bytes) = slot.and_then(|slot: usize| operands.get(slot)) {
                *read = Read::Bytes(bytes);
            }
        }
        Some(Views {
            y,
            scratch,
            reads: found,
        })
    }

    /// Disjoint slices for the wanted regions, empty ones for the others; `None` when two of them overlap.
    fn split<const N: usize>(&mut self, mut wanted: [Option<Region>; N]) -> Option<[&mut [u8]; N]> {
        let mut out = [const { None }; N];
        for (number, bank) in self.banks.iter_mut().enumerate() {
            let mut rest: &mut [u8] = bank;
            let mut base = 0;
            // The lowest of those that are left.
            while let Some((region, slot)) = wanted
                .iter_mut()
                .zip(&mut out)
                .filter(|(wanted, _)| wanted.is_some_and(|r| usize::from(r.bank) == number))
                .min_by_key(|(wanted, _)| wanted.map(|r| r.start))
            {
                let r = region.take()?;
                let (_, tail) = rest.split_at_mut_checked(r.start.checked_sub(base)?)?;
                let (mine, tail) = tail.split_at_mut_checked(r.len)?;
                *slot = Some(mine);
                rest = tail;
                base = r.start + r.len;
            }
        }
        Some(out.map(Option::unwrap_or_default))
    }

    /// All banks, for tests that paint the arena.
    pub fn bank(&self, bank: usize) -> Option<&[u8]> {
        self.banks.get(bank).map(|b| &**b)
    }
}

/// A byte range of a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    bank: u8,
    start: usize,
    len: usize,
}

impl Region {
    fn find(artifact: &Artifact<'_>, id: TensorId) -> Option<Self> {
        let t = artifact.record(id)?;
        Some(Region {
            bank: t.bank,
            start: t.offset as usize,
            len: t.bytes(),
        })
    }
}
