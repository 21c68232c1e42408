//! SHA-256 (FIPS 180-4) in little flash: what the `sha2` crate unrolls for speed takes four times as much.

/// First 32 bits of the fractional parts of the cube roots of the first 64 primes.
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// First 32 bits of the fractional parts of the square roots of the first 8 primes.
const START: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];

/// The digest, as big-endian words, of `head` followed by `tail`.
pub(super) fn sha256(head: &[u8], tail: &[u8]) -> [u32; 8] {
    let mut state = State {
        words: START,
        block: [0; 16],
        bytes: 0,
    };
    head.iter().chain(tail).for_each(|&byte| state.push(byte));
    let bits = u64::from(state.bytes) * 8;
    state.push(0x80);
    while state.bytes % 64 != 56 {
        state.push(0);
    }
    bits.to_be_bytes().iter().for_each(|&byte| state.push(byte));
    state.words
}

struct State {
    words: [u32; 8],
    block: [u32; 16],
    /// Bytes so far; a file has fewer than 2³².
    bytes: u32,
}

impl State {
    fn push(&mut self, byte: u8) {
        let word = &mut self.block[self.bytes as usize / 4 % 16];
        *word = *word << 8 | u32::from(byte);
        self.bytes = self.bytes.wrapping_add(1);
        if self.bytes % 64 == 0 {
            self.compress();
        }
    }

    #[inline(never)]
    fn compress(&mut self) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.words;
        for (i, &k) in K.iter().enumerate() {
            let w = self.block[i % 16];
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let t1 = h
                .wrapping_add(s1)
                .wrapping_add(g ^ e & (f ^ g))
                .wrapping_add(k)
                .wrapping_add(w);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let t2 = s0.wrapping_add(a & b | c & (a | b));
            (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
            (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
            // The word that takes this one's place sixteen rounds later.
            let (x, y) = (self.block[(i + 1) % 16], self.block[(i + 14) % 16]);
            let s0 = x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
            let s1 = y.rotate_right(17) ^ y.rotate_right(19) ^ y >> 10;
            self.block[i % 16] = w
                .wrapping_add(s0)
                .wrapping_add(self.block[(i + 9) % 16])
                .wrapping_add(s1);
        }
        let round = [a, b, c, d, e, f, g, h];
        for (word, add) in self.words.iter_mut().zip(round) {
            *word = word.wrapping_add(add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn digests_are_those_of_the_sha2_crate() {
        let bytes: [u8; 300] = core::array::from_fn(|i| (i * 7 + i / 13) as u8);
        for len in 0..bytes.len() {
            let (head, tail) = bytes[..len].split_at(len / 3);
            let expected: [u8; 32] = Sha256::digest(&bytes[..len]).into();
            let words = sha256(head, tail);
            let mine: [u8; 32] = core::array::from_fn(|i| words[i / 4].to_be_bytes()[i % 4]);
            assert_eq!(mine, expected, "{len} bytes");
        }
    }
}
