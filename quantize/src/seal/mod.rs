//! Writes the `.amp` container; `docs/format.md` is the specification.

mod file;
mod pack;

use ampoule_runtime::artifact::layout::{
    ALIGN, HEADER_LEN, IO_RECORD, MAGIC, MAX_BANKS, MAX_TENSORS, SECTION_ENTRY, TENSOR_RECORD,
    VERSION_MAJOR, VERSION_MINOR, field, section,
};
use ampoule_runtime::preprocess::Preprocess;
use ampoule_runtime::{Artifact, CONSTANT_BANK, MAX_RANK};
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use file::{AlignedBytes, write_atomically};
pub use pack::{pack, unpack};

use crate::plan::Plan;
use crate::program::{Program, ProgramPort, VirtualTensor};

/// What goes into the optional sections.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Preprocessing of the first input.
    pub preprocess: Option<Preprocess>,
    /// Class labels.
    pub labels: Vec<String>,
    /// Facts for people, JSON.
    pub meta: Option<String>,
    /// Golden vectors: seed and the bytes of all outputs.
    pub golden: Vec<(u32, Vec<u8>)>,
    /// Leave the names out.
    pub strip_names: bool,
}

/// Why a program can't be written.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// More tensors or steps than the format has numbers for.
    #[error("the program has {got} {what}, the format allows {limit}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// Number found.
        got: usize,
        /// Limit.
        limit: usize,
    },
    /// Bigger than the format's 32-bit offsets.
    #[error("the artifact would have {0} bytes; the format ends at 4 GiB")]
    TooLarge(usize),
    /// A step could not be encoded.
    #[error("step {0} could not be encoded: {1}")]
    Encode(usize, postcard::Error),
    /// The result does not pass the runtime's own verification.
    #[error("the sealed artifact is refused by the runtime: {0}")]
    Refused(#[from] ampoule_runtime::Error),
}

/// Serialises a planned program and has the runtime verify it.
///
/// # Errors
///
/// [`SealError`] when a limit of the format is passed.
pub fn seal(program: &Program, plan: &Plan, extras: &Extras) -> Result<AlignedBytes, SealError> {
    for (what, got) in [
        ("tensors", program.tensors.len()),
        ("steps", program.steps.len()),
    ] {
        if got > MAX_TENSORS {
            return Err(SealError::TooMany {
                what,
                got,
                limit: MAX_TENSORS,
            });
        }
    }
    let tensors: Vec<u8> = program
        .tensors
        .iter()
        .enumerate()
        .flat_map(|(i, t)| tensor_record(t, plan, i))
        .collect();
    let mut steps = Vec::new();
    for (i, step) in program.steps.iter().enumerate() {
        steps.extend(postcard::to_stdvec(step).map_err(|e| SealError::Encode(i, e))?);
    }
    let ios: Vec<u8> = ports(program, &program.inputs, 0)
        .chain(ports(program, &program.outputs, 1))
        .collect();
    let mut sections = vec![
        (section::TENSORS, tensors),
        (section::STEPS, steps),
        (section::WEIGHTS, program.constants.bytes().to_vec()),
        (section::IO, ios),
    ];
    sections.extend(optional_sections(program, extras)?);
    let bytes = container(program, plan, &sections)?;
    Artifact::verify(&bytes)?;
    Ok(bytes)
}

/// Record of a tensor; an unused one becomes an empty constant so that numbering stays.
fn tensor_record(t: &VirtualTensor, plan: &Plan, index: usize) -> [u8; TENSOR_RECORD] {
    let mut r = [0u8; TENSOR_RECORD];
    let place = plan.places[index];
    let (bank, offset) = match (t.constant, place) {
        (Some(blob), _) => (CONSTANT_BANK, blob.offset),
        (None, Some(p)) => (p.bank, p.offset as u32),
        (None, None) => (CONSTANT_BANK, 0),
    };
    let unused = t.constant.is_none() && place.is_none();
    r[0] = t.dtype as u8;
    r[1] = bank;
    r[2] = if unused { 0 } else { t.shape.rank() as u8 };
    r[3] = u8::from(t.view.is_some() && !unused);
    r[4..8].copy_from_slice(&offset.to_le_bytes());
    for d in 0..MAX_RANK {
        let dim = if unused { 1 } else { t.shape.dim(d) as u32 };
        r[8 + 4 * d..12 + 4 * d].copy_from_slice(&dim.to_le_bytes());
    }
    r[32..36].copy_from_slice(&t.scale.to_bits().to_le_bytes());
    r[36..40].copy_from_slice(&t.zero_point.to_le_bytes());
    if let Some(p) = place {
        r[40..42].copy_from_slice(&p.first.to_le_bytes());
        r[42..44].copy_from_slice(&p.last.to_le_bytes());
    }
    r
}

fn ports<'p>(
    program: &'p Program,
    ports: &'p [ProgramPort],
    direction: u8,
) -> impl Iterator<Item = u8> + 'p {
    ports.iter().flat_map(move |p| {
        let mut r = [0u8; IO_RECORD];
        r[..2].copy_from_slice(&p.tensor.to_le_bytes());
        r[2] = direction;
        r[3] = program.tensor(p.tensor).shape.rank() as u8;
        for (slot, &d) in r[4..4 + MAX_RANK].iter_mut().zip(&p.layout) {
            *slot = d as u8;
        }
        r
    })
}

fn optional_sections(program: &Program, extras: &Extras) -> Result<Vec<(u32, Vec<u8>)>, SealError> {
    let mut out = Vec::new();
    if let Some(preprocess) = &extras.preprocess {
        let bytes = postcard::to_stdvec(preprocess).map_err(|e| SealError::Encode(0, e))?;
        out.push((section::PREPROCESS, bytes));
    }
    if !extras.labels.is_empty() {
        out.push((
            section::LABELS,
            one_per_line(extras.labels.iter().map(String::as_str)),
        ));
    }
    if !extras.golden.is_empty() {
        let mut bytes = Vec::new();
        for (seed, outputs) in &extras.golden {
            bytes.extend(seed.to_le_bytes());
            bytes.extend((outputs.len() as u32).to_le_bytes());
            bytes.extend(outputs);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        out.push((section::GOLDEN, bytes));
    }
    if !extras.strip_names {
        let ports = program
            .inputs
            .iter()
            .chain(&program.outputs)
            .map(|p| p.name.as_str());
        let names = program.tensors.iter().map(|t| t.name.as_str()).chain(ports);
        out.push((section::NAMES, one_per_line(names)));
    }
    if let Some(meta) = &extras.meta {
        out.push((section::META, meta.clone().into_bytes()));
    }
    Ok(out)
}

fn one_per_line<'s>(lines: impl Iterator<Item = &'s str>) -> Vec<u8> {
    let mut text = String::new();
    for line in lines {
        text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
        text.push('\n');
    }
    text.into_bytes()
}

/// Header, section table and aligned sections.
fn container(
    program: &Program,
    plan: &Plan,
    sections: &[(u32, Vec<u8>)],
) -> Result<AlignedBytes, SealError> {
    let mut out = vec![0u8; HEADER_LEN + sections.len() * SECTION_ENTRY];
    for (i, (kind, bytes)) in sections.iter().enumerate() {
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        let entry = [*kind, out.len() as u32, bytes.len() as u32, 0];
        for (j, word) in entry.into_iter().enumerate() {
            let at = HEADER_LEN + i * SECTION_ENTRY + 4 * j;
            out[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        out.extend(bytes);
    }
    if u32::try_from(out.len()).is_err()
        || plan.bank_bytes.iter().any(|&n| u32::try_from(n).is_err())
    {
        return Err(SealError::TooLarge(out.len()));
    }
    out[..8].copy_from_slice(&MAGIC);
    out[field::MAJOR..field::MAJOR + 2].copy_from_slice(&VERSION_MAJOR.to_le_bytes());
    out[field::MINOR..field::MINOR + 2].copy_from_slice(&VERSION_MINOR.to_le_bytes());
    let mut word =
        |at: usize, value: usize| out[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    for (i, &n) in plan.bank_bytes.iter().take(MAX_BANKS).enumerate() {
        word(field::BANKS + 4 * i, n);
    }
    word(field::SECTIONS, sections.len());
    word(field::STEPS, program.steps.len());
    word(field::TENSORS, program.tensors.len());
    word(field::IOS, program.inputs.len() + program.outputs.len());
    let len = out.len() as u32;
    out[field::FILE_LEN..field::FILE_LEN + 4].copy_from_slice(&len.to_le_bytes());
    let mut hash = Sha256::new();
    hash.update(&out[..field::DIGEST]);
    hash.update(&out[field::DIGEST + 32..]);
    out[field::DIGEST..field::DIGEST + 32].copy_from_slice(&hash.finalize());
    Ok(AlignedBytes::from(out.as_slice()))
}
