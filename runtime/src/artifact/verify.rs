//! The one-time check of everything execution relies on.

use super::bind::Bound;
use super::layout::{
    ALIGN, HEADER_LEN, IO_RECORD, MAGIC, MAX_IOS, MAX_SECTIONS, MAX_TENSORS, SECTION_ENTRY,
    TENSOR_RECORD, VERSION_MAJOR, VERSION_MINOR, field, section, u16_at, u32_at,
};
use super::{Artifact, Direction, Step, io, table_end};
use crate::error::Error;
use crate::operators::Operators;
use crate::tensor::{CONSTANT_BANK, Tensor, TensorId};

/// Magic, version, length and section table.
pub(super) fn header(bytes: &[u8]) -> Result<(), Error> {
    let magic = bytes.get(..MAGIC.len());
    if magic.is_some_and(|m| m != MAGIC) || (magic.is_none() && !MAGIC.starts_with(bytes)) {
        return Err(Error::BadMagic);
    }
    let word = |at| u32_at(bytes, at).ok_or(Error::Truncated);
    let major = u16_at(bytes, field::MAJOR).ok_or(Error::Truncated)?;
    let minor = u16_at(bytes, field::MINOR).ok_or(Error::Truncated)?;
    if major != VERSION_MAJOR || minor > VERSION_MINOR {
        return Err(Error::UnsupportedVersion { major, minor });
    }
    if bytes.len() < HEADER_LEN || word(field::FILE_LEN)? as usize != bytes.len() {
        return Err(Error::Truncated);
    }
    if bytes.as_ptr() as usize % ALIGN != 0 {
        return Err(Error::ArtifactMisaligned);
    }
    let sections = word(field::SECTIONS)? as usize;
    if sections > MAX_SECTIONS || bytes.len() < table_end(sections) {
        return Err(Error::BadSection(0));
    }
    section_table(bytes, sections)
}

/// Sections are aligned, ascending, disjoint, inside the file and of distinct kinds.
fn section_table(bytes: &[u8], count: usize) -> Result<(), Error> {
    let mut free = table_end(count);
    for i in 0..count {
        let (kind, range) = entry(bytes, i).ok_or(Error::Truncated)?;
        let repeated = (0..i).any(|j| entry(bytes, j).is_some_and(|(k, _)| k == kind));
        if range.start % ALIGN != 0 || range.start < free || range.end > bytes.len() || repeated {
            return Err(Error::BadSection(kind));
        }
        free = range.end;
    }
    match section::REQUIRED
        .iter()
        .find(|&&kind| (0..count).all(|i| entry(bytes, i).is_none_or(|(k, _)| k != kind)))
    {
        Some(&missing) => Err(Error::BadSection(missing)),
        None => Ok(()),
    }
}

/// Kind and byte range of entry `i` of the section table.
fn entry(bytes: &[u8], i: usize) -> Option<(u32, core::ops::Range<usize>)> {
    let entry = bytes.get(HEADER_LEN + i * SECTION_ENTRY..)?;
    let &[kind, start, len, _] = entry.as_chunks::<4>().0.first_chunk()?;
    let start = u32::from_le_bytes(start) as usize;
    let end = start.checked_add(u32::from_le_bytes(len) as usize)?;
    Some((u32::from_le_bytes(kind), start..end))
}

/// The bytes of a section, `None` when the file has none of that kind.
pub(super) fn find_section(bytes: &[u8], kind: u32) -> Result<Option<&[u8]>, Error> {
    let count = u32_at(bytes, field::SECTIONS).ok_or(Error::Truncated)? as usize;
    let found = (0..count.min(MAX_SECTIONS))
        .filter_map(|i| entry(bytes, i))
        .find(|(k, _)| *k == kind);
    match found {
        None => Ok(None),
        Some((_, range)) => bytes.get(range).map(Some).ok_or(Error::BadSection(kind)),
    }
}

/// SHA-256 over the file with the digest field left out.
pub(super) fn digest(bytes: &[u8]) -> Result<(), Error> {
    let (head, rest) = bytes
        .split_at_checked(field::DIGEST)
        .ok_or(Error::Truncated)?;
    let (digest, tail) = rest.split_first_chunk().ok_or(Error::Truncated)?;
    match has_digest(head, tail, digest) {
        true => Ok(()),
        false => Err(Error::Checksum),
    }
}

/// Whether these are the bytes of the artifact with that digest: what has been checked of one is true of the other.
pub(super) fn identity(bytes: &[u8], expected: &[u8; 32]) -> Result<(), Error> {
    if bytes.as_ptr() as usize % ALIGN != 0 {
        return Err(Error::ArtifactMisaligned);
    }
    match bytes.get(field::DIGEST..field::DIGEST + expected.len()) {
        Some(stored) if stored == expected => digest(bytes),
        _ => Err(Error::Checksum),
    }
}

#[cfg(not(target_os = "none"))]
fn has_digest(head: &[u8], tail: &[u8], digest: &[u8; 32]) -> bool {
    use sha2::{Digest, Sha256};
    let hash = Sha256::new().chain_update(head).chain_update(tail);
    hash.finalize()[..] == *digest
}

/// Firmware has no room for a fast one.
#[cfg(target_os = "none")]
fn has_digest(head: &[u8], tail: &[u8], digest: &[u8; 32]) -> bool {
    let words = super::sha256::sha256(head, tail);
    let mut pairs = words.iter().zip(digest.as_chunks().0);
    pairs.all(|(word, &stored)| *word == u32::from_be_bytes(stored))
}

/// Tensors, life spans, inputs and outputs, and every step.
pub(super) fn structure<O: Operators>(artifact: &Artifact<'_>) -> Result<(), Error> {
    let count = |at| {
        u32_at(artifact.bytes, at)
            .map(|n| n as usize)
            .ok_or(Error::Truncated)
    };
    let tensors = artifact.tensor_count();
    let whole =
        artifact.tensors.len() == tensors * TENSOR_RECORD && count(field::TENSORS)? == tensors;
    if !whole || tensors > MAX_TENSORS || artifact.step_count() > MAX_TENSORS {
        return Err(Error::BadSection(section::TENSORS));
    }
    if artifact.ios.len() != artifact.io_count() * IO_RECORD
        || count(field::IOS)? != artifact.io_count()
        || artifact.io_count() > MAX_IOS
    {
        return Err(Error::BadSection(section::IO));
    }
    for id in 0..tensors as TensorId {
        place(artifact, id, &artifact.tensor(id)?)?;
    }
    ports(artifact)?;
    steps::<O>(artifact)?;
    overlaps::<O>(artifact)
}

/// A tensor lies inside its bank, aligned.
fn place(artifact: &Artifact<'_>, id: TensorId, t: &Tensor) -> Result<(), Error> {
    let bank = match t.bank {
        CONSTANT_BANK => artifact.weights.len(),
        bank => artifact.bank_bytes(usize::from(bank)),
    };
    // In 64 bits: 2³¹ elements of 4 bytes are more than a 32-bit processor's `usize` counts.
    let bytes = t.shape.elements() as u64 * t.dtype.size() as u64;
    let end = u64::from(t.offset) + bytes;
    let align = if t.view { t.dtype.size() } else { ALIGN };
    if t.offset as usize % align != 0 || end > bank as u64 {
        return Err(Error::BadTensor(id));
    }
    Ok(())
}

/// Inputs live from the first step, outputs until the last, neither is a constant.
fn ports(artifact: &Artifact<'_>) -> Result<(), Error> {
    let end = last_step(artifact);
    let mut outputs = 0;
    for i in 0..artifact.io_count() as u16 {
        let (direction, _, tensor) = io::tensor(artifact, i)?;
        let alive = match direction {
            Direction::Input => tensor.first == 0,
            Direction::Output => tensor.last == end,
        };
        if !alive || tensor.bank == CONSTANT_BANK || tensor.view {
            return Err(Error::BadIo(i));
        }
        outputs += usize::from(direction == Direction::Output);
    }
    if outputs == 0 {
        Err(Error::BadSection(section::IO))
    } else {
        Ok(())
    }
}

fn last_step(artifact: &Artifact<'_>) -> u16 {
    (artifact.step_count() as u16).saturating_sub(1)
}

/// Every step decodes, binds, and uses its tensors inside their life spans.
fn steps<O: Operators>(artifact: &Artifact<'_>) -> Result<(), Error> {
    let mut steps = artifact.steps_for::<O>();
    for index in 0..artifact.step_count() as u16 {
        if steps.is_next_unlinked() {
            return Err(Error::NotLinked(index));
        }
        let step = steps.next().ok_or(Error::BadStep(index))?;
        lifetimes(artifact, index, &step)?;
        if !distinct(&step) || !apart(artifact, &step)? {
            return Err(Error::BadStep(index));
        }
        if !O::SET.serves(artifact, &step) {
            return Err(Error::NotLinked(index));
        }
        Bound::new::<O>(artifact, &step)
            .and_then(|b| b.check_constants::<O>())
            .ok_or(Error::BadStep(index))?;
    }
    // Only alignment padding may follow.
    if steps.remaining() >= ALIGN {
        Err(Error::BadSection(section::STEPS))
    } else {
        Ok(())
    }
}

fn lifetimes(artifact: &Artifact<'_>, index: u16, step: &Step) -> Result<(), Error> {
    let written = [Some(step.output()), step.scratch()];
    for id in written.into_iter().flatten() {
        let t = artifact.tensor(id)?;
        if t.bank == CONSTANT_BANK || index < t.first || index > t.last {
            return Err(Error::BadLifetime(index));
        }
    }
    for id in step.inputs().into_iter().flatten() {
        let t = artifact.tensor(id)?;
        // What comes into being at a step is not there to be read; only inputs are from the start.
        let born = t.first < index || (t.first, index) == (0, 0);
        let alive = born && index <= t.last;
        if t.bank != CONSTANT_BANK && !alive {
            return Err(Error::BadLifetime(index));
        }
    }
    Ok(())
}

/// Whether a step writes no tensor twice and reads none that it writes, but for the operand it may
/// work on in place.
fn distinct(step: &Step) -> bool {
    let (y, scratch) = (step.output(), step.scratch());
    let reads = |id: TensorId| {
        step.inputs()
            .into_iter()
            .flatten()
            .filter(|&x| x == id)
            .count()
    };
    let in_place = step.in_place_operand() == Some(y) && reads(y) == 1;
    (reads(y) == 0 || in_place) && scratch.is_none_or(|s| s != y && reads(s) == 0)
}

/// Whether what a step writes lies apart from all else it touches, but for the one operand that it may work on
/// in place; and whether operands are the same bytes or different ones. Only views need this check: other
/// tensors that are alive together lie apart.
fn apart(artifact: &Artifact<'_>, step: &Step) -> Result<bool, Error> {
    let y = artifact.tensor(step.output())?;
    let scratch = match step.scratch() {
        Some(id) => Some(artifact.tensor(id)?),
        None => None,
    };
    let same = |a: &Tensor, b: &Tensor| (a.offset, a.bytes()) == (b.offset, b.bytes());
    let mut reads = [None; 3];
    for (slot, id) in reads.iter_mut().zip(step.inputs()) {
        *slot = match id {
            Some(id) => Some((id, artifact.tensor(id)?)),
            None => None,
        };
    }
    let mut in_place = 0;
    for (i, &(id, ref x)) in reads.iter().flatten().enumerate() {
        let alike = step.in_place_operand() == Some(id) && same(x, &y) && x.dtype == y.dtype;
        in_place += usize::from(share(x, &y));
        let earlier = reads.iter().flatten().take(i);
        if (share(x, &y) && !alike)
            || scratch.is_some_and(|s| share(x, &s))
            || earlier.clone().any(|(_, e)| share(x, e) && !same(x, e))
        {
            return Ok(false);
        }
    }
    Ok(in_place <= 1 && scratch.is_none_or(|s| !share(&s, &y)))
}

/// Whether two tensors have a byte of the arena in common.
fn share(a: &Tensor, b: &Tensor) -> bool {
    let (ao, bo) = (a.offset as usize, b.offset as usize);
    let arena = a.bank == b.bank && a.bank != CONSTANT_BANK;
    arena && ao < bo + b.bytes() && bo < ao + a.bytes()
}

/// Whether sharing is what a view is for: it lies inside the other, or both are views.
fn viewed(a: &Tensor, b: &Tensor) -> bool {
    let inside = |a: &Tensor, b: &Tensor| {
        let (ao, bo) = (a.offset as usize, b.offset as usize);
        a.view && bo <= ao && ao + a.bytes() <= bo + b.bytes()
    };
    (a.view && b.view) || inside(a, b) || inside(b, a)
}

/// No two tensors share memory while both are alive, but for views, and for the one step that turns
/// an input into its output in place.
fn overlaps<O: Operators>(artifact: &Artifact<'_>) -> Result<(), Error> {
    let count = artifact.tensor_count() as TensorId;
    for i in 0..count {
        let a = artifact.tensor(i)?;
        if a.bank == CONSTANT_BANK {
            continue;
        }
        for j in i + 1..count {
            let b = artifact.tensor(j)?;
            let in_time = a.first <= b.last && b.first <= a.last;
            let clash = in_time && share(&a, &b) && !viewed(&a, &b);
            if clash && !in_place::<O>(artifact, i, &a, j, &b)? {
                return Err(Error::Overlap(i, j));
            }
        }
    }
    Ok(())
}

/// Whether one of the two tensors becomes the other in a step that allows it.
fn in_place<O: Operators>(
    artifact: &Artifact<'_>,
    i: TensorId,
    a: &Tensor,
    j: TensorId,
    b: &Tensor,
) -> Result<bool, Error> {
    let (earlier, later, shared) = if a.last == b.first {
        (i, j, a.last)
    } else {
        (j, i, b.last)
    };
    let alike = a.offset == b.offset && a.dtype == b.dtype && a.bytes() == b.bytes();
    let same = alike && (a.last == b.first || b.last == a.first);
    if !same {
        return Ok(false);
    }
    let step = artifact
        .steps_for::<O>()
        .nth(usize::from(shared))
        .ok_or(Error::BadStep(shared))?;
    let reads = step.inputs().into_iter().flatten();
    let once = reads.filter(|&id| id == earlier).count() == 1;
    Ok(step.output() == later && step.in_place_operand() == Some(earlier) && once)
}
