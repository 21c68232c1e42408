//! Packing artifacts: the coder of what [`ampoule_runtime::packed`] unpacks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ampoule_runtime::packed::{self, BLOCK, LENGTHS, LONGEST, MAGIC};

use super::AlignedBytes;

/// A packed file of an artifact's bytes.
///
/// ```
/// use ampoule_quantize::seal::{pack, unpack};
/// let bytes: Vec<u8> = (0..40_000u32).map(|i| (i % 7) as u8).collect();
/// let packed = pack(&bytes);
/// assert!(packed.len() < bytes.len() / 2);
/// assert_eq!(&unpack(&packed).unwrap()[..], bytes);
/// ```
pub fn pack(artifact: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend((artifact.len() as u32).to_le_bytes());
    for block in artifact.chunks(BLOCK) {
        match encode(block).filter(|coded| coded.len() < block.len()) {
            Some(coded) => {
                out.extend((coded.len() as u16).to_le_bytes());
                out.extend(coded);
            }
            None => {
                out.extend([0, 0]);
                out.extend(block);
            }
        }
    }
    out
}

/// The artifact in a packed file.
///
/// # Errors
///
/// As [`packed::unpack`].
pub fn unpack(file: &[u8]) -> Result<AlignedBytes, ampoule_runtime::Error> {
    let mut out = AlignedBytes::zeroed(packed::unpacked_len(file)?);
    packed::unpack(file, &mut out)?;
    Ok(out)
}

fn encode(block: &[u8]) -> Option<Vec<u8>> {
    let lengths = lengths(block)?;
    let mut out: Vec<u8> = lengths.chunks(2).map(|l| l[0] | l[1] << 4).collect();
    debug_assert_eq!(out.len(), LENGTHS);
    // Canonical codes: shorter before longer, equal lengths in the order of bytes.
    let (mut codes, mut next) = ([0u32; 256], 0u32);
    for length in 1..=LONGEST as u8 {
        for byte in (0..256).filter(|&b| lengths[b] == length) {
            codes[byte] = next >> (LONGEST as u8 - length);
            next += 1 << (LONGEST as u8 - length);
        }
    }
    let (mut bits, mut held) = (0u64, 0);
    for &byte in block {
        let byte = usize::from(byte);
        bits = bits << lengths[byte] | u64::from(codes[byte]);
        held += lengths[byte];
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.push((bits << (8 - held)) as u8);
    }
    Some(out)
}

/// Lengths of Huffman's codes, at most [`LONGEST`]; `None` for an empty block.
fn lengths(block: &[u8]) -> Option<[u8; 256]> {
    let mut counts = [0usize; 256];
    block.iter().for_each(|&b| counts[usize::from(b)] += 1);
    // A code of one bit takes a second byte that is never there.
    if counts.iter().filter(|&&c| c > 0).count() == 1 {
        counts[usize::from(block[0] == 0)] += 1;
    }
    loop {
        let lengths = huffman(&counts)?;
        if lengths.iter().all(|&l| usize::from(l) <= LONGEST) {
            return Some(lengths);
        }
        // Rarer bytes become as frequent as others until no code is too long.
        for count in counts.iter_mut().filter(|c| **c > 0) {
            *count = count.div_ceil(2);
        }
    }
}

fn huffman(counts: &[usize; 256]) -> Option<[u8; 256]> {
    // Nodes by count, then number, so that equal counts give equal trees everywhere.
    let leaves = (0..256).filter(|&b| counts[b] > 0);
    let mut heap: BinaryHeap<_> = leaves.map(|b| Reverse((counts[b], b))).collect();
    let mut children: Vec<[usize; 2]> = Vec::new();
    while heap.len() > 1 {
        let (Reverse(a), Reverse(b)) = (heap.pop()?, heap.pop()?);
        heap.push(Reverse((a.0 + b.0, 256 + children.len())));
        children.push([a.1, b.1]);
    }
    let Reverse((_, root)) = heap.pop()?;
    let mut lengths = [0u8; 256];
    let mut open = vec![(root, 0u8)];
    while let Some((node, depth)) = open.pop() {
        match node.checked_sub(256) {
            Some(inner) => open.extend(children[inner].map(|child| (child, depth + 1))),
            None => lengths[node] = depth,
        }
    }
    Some(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ampoule_runtime::Error;

    fn noise(n: usize, shape: impl Fn(u32) -> u8) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        (0..n).map(|_| shape(next())).collect()
    }

    /// Bell-shaped bytes, uniform ones, one value, skewed ones whose codes would be too long, and odd sizes.
    fn cases() -> Vec<Vec<u8>> {
        let bell = |r: u32| ((r & 63) + (r >> 6 & 63) + (r >> 12 & 63)) as u8;
        let skewed = |r: u32| (r & 0xff_ffff).leading_zeros() as u8;
        let mut cases = vec![vec![], vec![7], vec![0; 20_000], vec![200; 3]];
        for n in [1, 2, 100, BLOCK - 1, BLOCK, BLOCK + 1, 100_000] {
            cases.extend([noise(n, bell), noise(n, |r| r as u8), noise(n, skewed)]);
        }
        let fibonacci = (0..24).scan((1usize, 1usize), |s, i| {
            *s = (s.1, s.0 + s.1);
            Some(vec![i as u8; s.0])
        });
        cases.push(fibonacci.flatten().take(BLOCK).collect());
        cases
    }

    #[test]
    fn what_is_packed_comes_back() {
        for case in cases() {
            let packed = pack(&case);
            assert_eq!(&unpack(&packed).unwrap()[..], case, "{} bytes", case.len());
            assert!(packed.len() <= case.len() + 12 + 2 * case.len().div_ceil(BLOCK));
        }
    }

    /// Entropy is what the code comes to.
    #[test]
    fn few_values_take_few_bits() {
        let packed = pack(&noise(1 << 18, |r| (r & 15) as u8)).len();
        let bits = 8.0 * packed as f64 / f64::from(1 << 18);
        assert!((4.0..4.1).contains(&bits), "{bits}");
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let case = &noise(40_000, |r| ((r & 63) + (r >> 6 & 63)) as u8);
        let packed = pack(case);
        for end in (0..packed.len()).step_by(97).chain(0..300) {
            assert!(unpack(&packed[..end]).is_err(), "{end}");
        }
        let mut state = 9u32;
        for _ in 0..3000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut damaged = packed.clone();
            let at = (state >> 8) as usize % 2000 % damaged.len();
            damaged[at] ^= 1 << (state % 8);
            // What comes out of other codes the artifact's digest refuses.
            if let Ok(out) = unpack(&damaged) {
                assert_eq!(out.len(), case.len());
            }
        }
        let mut longer = packed.clone();
        longer.push(0);
        assert_eq!(unpack(&longer).unwrap_err(), Error::Checksum);
        let mut memory = [0; 100];
        let error = packed::unpack(&packed, &mut memory).unwrap_err();
        let (expected, got) = (40_000, 100);
        assert_eq!(error, Error::Length { expected, got });
        assert_eq!(unpack(b"AMPOULE").unwrap_err(), Error::BadMagic);
        // A length that no file of this size has.
        let mut huge = packed;
        huge[8..12].fill(0xff);
        assert_eq!(unpack(&huge).unwrap_err(), Error::Truncated);
    }
}
