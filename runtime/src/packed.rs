//! Artifacts that are stored smaller: entropy-coded files, unpacked once into memory of the caller.
//!
//! Weights in int8 are not evenly distributed: their entropy is some seven of eight bits, and less where many are
//! zero or few values remain. A packed file is the whole artifact in blocks of [`BLOCK`] bytes, each with a
//! Huffman code of its own. What comes out is the artifact, bit for bit, which [`Artifact`](crate::Artifact) verifies with
//! its digest as ever. Programs that do not call [`unpack`] do not have it linked.
//!
//! Layout, little-endian: [`MAGIC`], `u32` bytes of the artifact, then per block a `u16` with the bytes that follow.
//! 0 says that the block is stored as it is. A coded one begins with 256 code lengths of 4 bits (0 to 11, low half
//! first), then codes, most significant bit first: shorter before longer, equal lengths in the order of their bytes
//! (canonical). The last byte is filled up with zeros.
//!
//! ```
//! use ampoule_runtime::packed;
//! // A block that is stored as it is.
//! let mut file = packed::MAGIC.to_vec();
//! file.extend([3, 0, 0, 0, 0, 0, b'a', b'm', b'p']);
//! let mut memory = [0; 3];
//! assert_eq!(packed::unpacked_len(&file), Ok(3));
//! assert_eq!(packed::unpack(&file, &mut memory), Ok(&mut b"amp".clone()[..]));
//! ```

use crate::Error;

/// What a packed file begins with.
pub const MAGIC: [u8; 8] = *b"AMPACKED";
/// Bytes of the artifact in each block but the last.
pub const BLOCK: usize = 1 << 14;
/// Longest code in bits.
pub const LONGEST: usize = 11;
/// Bytes of a block's code lengths.
pub const LENGTHS: usize = 128;

/// Where the blocks begin.
const HEADER: usize = MAGIC.len() + 4;

/// Whether a file is packed.
pub fn is_packed(file: &[u8]) -> bool {
    file.starts_with(&MAGIC)
}

/// Bytes of the artifact in a packed file.
///
/// # Errors
///
/// [`Error::BadMagic`] for other files, [`Error::Truncated`].
pub fn unpacked_len(file: &[u8]) -> Result<usize, Error> {
    if !is_packed(file) {
        return Err(Error::BadMagic);
    }
    let length = file.get(MAGIC.len()..).and_then(|rest| rest.first_chunk());
    let length = u32::from_le_bytes(*length.ok_or(Error::Truncated)?) as usize;
    // Each block has two bytes at least, so that a small file can't ask for much memory.
    match length.div_ceil(BLOCK) <= (file.len() - HEADER) / 2 {
        true => Ok(length),
        false => Err(Error::Truncated),
    }
}

/// Unpacks a file into the beginning of `memory`, which must be aligned as artifacts are, and gives the artifact.
/// Takes 4 KiB of stack, and time in proportion to the artifact's bytes.
///
/// # Errors
///
/// [`Error::Length`] where `memory` is less than [`unpacked_len`], [`Error::Truncated`], and [`Error::Checksum`] for blocks
/// that are no code. The digest is not looked at: verifying the artifact does that.
pub fn unpack<'m>(file: &[u8], memory: &'m mut [u8]) -> Result<&'m mut [u8], Error> {
    let expected = unpacked_len(file)?;
    let got = memory.len();
    let out = memory
        .get_mut(..expected)
        .ok_or(Error::Length { expected, got })?;
    let mut rest = file.get(HEADER..).ok_or(Error::Truncated)?;
    for block in out.chunks_mut(BLOCK) {
        let (length, tail) = rest.split_first_chunk().ok_or(Error::Truncated)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let stored = if length == 0 { block.len() } else { length };
        let (content, tail) = tail.split_at_checked(stored).ok_or(Error::Truncated)?;
        match length {
            0 => block.copy_from_slice(content),
            _ => decode(content, block)?,
        }
        rest = tail;
    }
    match rest {
        [] => Ok(out),
        _ => Err(Error::Checksum),
    }
}

/// Decodes a block: code lengths and codes.
fn decode(content: &[u8], out: &mut [u8]) -> Result<(), Error> {
    let (lengths, mut codes) = content
        .split_first_chunk::<LENGTHS>()
        .ok_or(Error::Truncated)?;
    let table = table(lengths).ok_or(Error::Checksum)?;
    // At most 57 bits are held, the next one on top; behind the end come zeros.
    let (mut bits, mut held, mut used) = (0u64, 0u32, 0usize);
    for byte in out {
        if held < LONGEST as u32 {
            if let Some((next, tail)) = codes.split_first_chunk() {
                bits |= u64::from(u32::from_be_bytes(*next)) << (32 - held);
                (held, codes) = (held + 32, tail);
            } else {
                for &next in codes {
                    bits |= u64::from(next) << (56 - held);
                    held += 8;
                }
                (held, codes) = (held.max(LONGEST as u32), &[]);
            }
        }
        let entry = table[(bits >> (64 - LONGEST)) as usize];
        let length = u32::from(entry & 15);
        *byte = (entry >> 4) as u8;
        bits <<= length;
        held -= length;
        used += length as usize;
    }
    match used.div_ceil(8) == content.len() - LENGTHS {
        true => Ok(()),
        false => Err(Error::Checksum),
    }
}

/// For each beginning of [`LONGEST`] bits the byte (times 16) and the length of its code. `None` unless the code is
/// complete.
fn table(lengths: &[u8; LENGTHS]) -> Option<[u16; 1 << LONGEST]> {
    let mut table = [0; 1 << LONGEST];
    let mut at = 0;
    for length in 1..=LONGEST {
        for byte in 0..256usize {
            let half = lengths[byte / 2] >> (4 * (byte % 2)) & 15;
            if usize::from(half) == length {
                let entries = table.get_mut(at..at + (1 << (LONGEST - length)))?;
                entries.fill((byte << 4 | length) as u16);
                at += entries.len();
            }
        }
    }
    (at == table.len()).then_some(table)
}
