//! Byte layout of the container: field offsets, section kinds, record sizes.
//!
//! The specification is `docs/format.md`; the writer in `ampoule-quantize` uses these constants too.

/// First bytes of every ampoule.
pub const MAGIC: [u8; 8] = *b"AMPOULE\0";
/// Major version: a reader refuses any other.
pub const VERSION_MAJOR: u16 = 1;
/// Minor version: a reader refuses a newer one.
pub const VERSION_MINOR: u16 = 3;
/// Arena banks an artifact may use.
pub const MAX_BANKS: usize = 8;
/// Alignment of sections and of every blob and tensor.
pub const ALIGN: usize = 64;

/// Offsets of the header fields, all little-endian.
pub mod field {
    /// u16 major version.
    pub const MAJOR: usize = 8;
    /// u16 minor version.
    pub const MINOR: usize = 10;
    /// u32 length of the file.
    pub const FILE_LEN: usize = 12;
    /// Eight u32: bytes of each arena bank.
    pub const BANKS: usize = 16;
    /// u32 number of sections.
    pub const SECTIONS: usize = 48;
    /// u32 number of steps.
    pub const STEPS: usize = 52;
    /// u32 number of tensors.
    pub const TENSORS: usize = 56;
    /// u32 number of input and output records.
    pub const IOS: usize = 60;
    /// SHA-256 of the file with these 32 bytes left out.
    pub const DIGEST: usize = 64;
}

/// Bytes of the header; the section table follows.
pub const HEADER_LEN: usize = 96;
/// Bytes of an entry of the section table: u32 kind, offset, length, reserved.
pub const SECTION_ENTRY: usize = 16;
/// Most sections a file may have.
pub const MAX_SECTIONS: usize = 32;
/// Bytes of a tensor record.
pub const TENSOR_RECORD: usize = 44;
/// Bytes of an input/output record.
pub const IO_RECORD: usize = 16;
/// Most tensors, and most steps, of an artifact.
pub const MAX_TENSORS: usize = 16_384;
/// Most input and output records of an artifact.
pub const MAX_IOS: usize = 256;

/// Kinds of section.
pub mod section {
    /// Tensor records.
    pub const TENSORS: u32 = 1;
    /// Postcard steps.
    pub const STEPS: u32 = 2;
    /// Constants.
    pub const WEIGHTS: u32 = 3;
    /// Input and output records.
    pub const IO: u32 = 4;
    /// Postcard preprocessing of input 0 (optional).
    pub const PREPROCESS: u32 = 5;
    /// Class labels, UTF-8, one a line (optional).
    pub const LABELS: u32 = 6;
    /// Golden vectors (optional).
    pub const GOLDEN: u32 = 7;
    /// Names of tensors and inputs/outputs, UTF-8, one a line (optional, strippable).
    pub const NAMES: u32 = 8;
    /// Facts for people: UTF-8 JSON (optional, never read by the runtime).
    pub const META: u32 = 9;
    /// Kinds the runtime needs in every file.
    pub const REQUIRED: [u32; 4] = [TENSORS, STEPS, WEIGHTS, IO];
}

/// Reads a little-endian u16 at `at`.
#[inline(always)]
pub const fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    match at.checked_add(2) {
        Some(end) if end <= bytes.len() => Some(u16::from_le_bytes([bytes[at], bytes[at + 1]])),
        _ => None,
    }
}

/// Reads a little-endian u32 at `at`.
#[inline(always)]
pub const fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    match at.checked_add(4) {
        Some(end) if end <= bytes.len() => Some(u32::from_le_bytes([
            bytes[at],
            bytes[at + 1],
            bytes[at + 2],
            bytes[at + 3],
        ])),
        _ => None,
    }
}

/// Bytes of arena bank `bank` that the artifact asks for, or `None` when the bytes are no ampoule.
pub const fn bank_bytes(bytes: &[u8], bank: usize) -> Option<usize> {
    if bytes.len() < HEADER_LEN || bank >= MAX_BANKS {
        return None;
    }
    let mut i = 0;
    while i < MAGIC.len() {
        if bytes[i] != MAGIC[i] {
            return None;
        }
        i += 1;
    }
    match u32_at(bytes, field::BANKS + 4 * bank) {
        Some(n) => Some(n as usize),
        None => None,
    }
}

/// Bytes of the first arena bank, for sizing a static arena at compile time.
///
/// ```ignore
/// static MODEL: &[u8] = include_bytes!("model.amp");
/// static mut ARENA: Arena<{ arena_bytes(MODEL) }> = Arena::new();
/// ```
///
/// # Panics
///
/// When the bytes are not an ampoule, which in a `const` is a compile-time error. At run time use
/// [`crate::Artifact::bank_bytes`].
pub const fn arena_bytes(bytes: &[u8]) -> usize {
    match bank_bytes(bytes, 0) {
        Some(n) => n,
        None => panic!("not an ampoule"),
    }
}
