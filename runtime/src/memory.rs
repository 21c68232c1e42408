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
        let range = t.offset as usize..t.offset as usize + t.bytes();
        match t.bank {
            CONSTANT_BANK => artifact.constant(t),
            bank => self.banks.get(usize::from(bank))?.get(range),
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
        let region = |id: TensorId| artifact.tensor(id).ok().map(|t| Region::of(&t));
        let y_region = region(y)?;
        // Slot 0 is the output, 1 the working memory, the others the operands.
        let mut wanted = [Some(y_region), None, None, None, None, None];
        if let Some(id) = scratch {
            wanted[1] = Some(region(id)?);
        }
        let mut found = [Read::None; 4];
        // Of operands that are one tensor the first has the slot.
        let mut slots = [0, 1, 2, 3];
        for (i, id) in reads.into_iter().enumerate() {
            let Some(id) = id else { continue };
            let tensor = artifact.tensor(id).ok()?;
            if tensor.bank == CONSTANT_BANK {
                found[i] = Read::Bytes(artifact.constant(&tensor)?);
            } else if Region::of(&tensor) == y_region {
                found[i] = Read::InPlace;
            } else {
                let region = Some(Region::of(&tensor));
                slots[i] = (0..i).find(|&j| wanted[2 + j] == region).unwrap_or(i);
                wanted[2 + slots[i]] = region;
            }
        }
        let [y, scratch, operands @ ..] = self.split(wanted)?;
        let operands: [Option<&[u8]>; 4] = operands.map(|o| o.map(|bytes| &*bytes));
        for ((read, slot), id) in found.iter_mut().zip(slots).zip(reads) {
            if let (Read::None, Some(bytes), Some(_)) = (*read, operands[slot], id) {
                *read = Read::Bytes(bytes);
            }
        }
        Some(Views {
            y: y?,
            scratch: scratch.unwrap_or_default(),
            reads: found,
        })
    }

    /// Disjoint slices for the wanted regions; `None` when two of them overlap.
    fn split<const N: usize>(
        &mut self,
        mut wanted: [Option<Region>; N],
    ) -> Option<[Option<&mut [u8]>; N]> {
        let mut out = [const { None }; N];
        for (number, bank) in self.banks.iter_mut().enumerate() {
            let mut rest: &mut [u8] = bank;
            let mut base = 0;
            loop {
                let here = |r: &Region| usize::from(r.bank) == number;
                let slots = wanted.iter_mut().zip(&mut out);
                let lowest = slots
                    .filter(|(wanted, _)| wanted.as_ref().is_some_and(here))
                    .min_by_key(|(wanted, _)| wanted.map(|r| r.start));
                let Some((region, slot)) = lowest else { break };
                let r = region.take()?;
                let (_, tail) = rest.split_at_mut_checked(r.start.checked_sub(base)?)?;
                let (mine, tail) = tail.split_at_mut_checked(r.len)?;
                *slot = Some(mine);
                rest = tail;
                base = r.start + r.len;
            }
        }
        Some(out)
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
    fn of(t: &Tensor) -> Self {
        Region {
            bank: t.bank,
            start: t.offset as usize,
            len: t.bytes(),
        }
    }
}
