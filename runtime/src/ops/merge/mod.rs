//! Token merging: similar tokens of a transformer become one, so that later layers see fewer.
//!
//! After Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023. [`match_tokens`] pairs tokens by
//! the keys of a block's attention, [`merge`] averages the pairs, [`merge_sizes`] counts how many of the
//! first tokens each stands for, and attention weighs keys by that count ([`super::attention`]).
//!
//! The contract of [`match_tokens`], for heads `h` and tokens `i`:
//!
//! ```text
//! m[i,d] = Σ_h (k[h,i,d] − z)                                        exact for codes
//! u[i]   = 1 / √f32(Σ_d m[i,d]²), 0 where the sum is 0
//! t[i,j] = f32(Σ_d m[i,d] · m[j,d]) · u[j]                           i even, j odd, neither protected
//! j(i)   = the j with the largest t[i,j], of equal ones the lowest
//! s[i]   = t[i,j(i)] · u[i]                                          the cosine of both
//! ```
//!
//! The `merged` even tokens with the largest `s`, of equal ones the lowest, join their `j`. The result is
//! each token's place among those left: the protected ones first, then the even ones that did not join,
//! then the odd ones, each in order. Every operation is one IEEE-754 single operation, so places are the
//! same on every processor.

mod average;
mod matching;
mod reference;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use average::{Token, merge, merge_sizes};
pub use matching::{Key, match_tokens};
pub use reference::{
    match_tokens as match_tokens_reference, merge as merge_reference,
    merge_sizes as merge_sizes_reference,
};

/// Most tokens, and most that one may stand for: sums of codes stay exact.
pub const MAX_TOKENS: usize = 1 << 12;

/// Which tokens are to be merged: sizes, and where the keys are in their tensor, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Matching {
    /// Tokens.
    pub tokens: u32,
    /// Heads, whose keys are summed.
    pub heads: u32,
    /// Values per key, adjacent.
    pub depth: u32,
    /// First element.
    pub start: u32,
    /// Distance between heads.
    pub head: u32,
    /// Distance between tokens.
    pub token: u32,
    /// Tokens at the start that take no part: class token, registers.
    pub protected: u32,
    /// Tokens that join another.
    pub merged: u32,
}

impl Matching {
    /// Whether sums of codes are exact, enough tokens can join, and all keys lie within `len` elements.
    pub fn fits(&self, len: usize) -> bool {
        if self.tokens as usize > MAX_TOKENS || self.protected >= self.tokens {
            return false;
        }
        let sizes = [self.tokens, self.heads, self.depth].map(u64::from);
        let steps = [self.token, self.head, 1].map(u64::from);
        // Codes less their zero point are at most 255 in magnitude.
        let sum = sizes[1].saturating_mul(255);
        let exact = sum < 1 << 15 && sizes[2].saturating_mul(sum * sum) < 1 << 31;
        let last = sizes
            .iter()
            .zip(steps)
            .map(|(&n, step)| u128::from(n.saturating_sub(1)) * u128::from(step))
            .sum::<u128>();
        sizes.iter().all(|&n| n > 0)
            && exact
            && last + u128::from(self.start) < len as u128
            && self.merged > 0
            && self.merged as usize <= self.movers().count()
            && self.partners().count() > 0
    }

    /// Tokens that are left.
    pub fn left(&self) -> usize {
        self.tokens.saturating_sub(self.merged) as usize
    }

    /// Pairs of tokens that are compared.
    pub fn pairs(&self) -> usize {
        self.movers().count() * self.partners().count()
    }

    /// Tokens that may join another.
    fn movers(&self) -> impl Iterator<Item = usize> + Clone {
        (self.protected.next_multiple_of(2) as usize..self.tokens as usize).step_by(2)
    }

    /// Tokens that another may join.
    fn partners(&self) -> impl Iterator<Item = usize> + Clone {
        ((self.protected | 1) as usize..self.tokens as usize).step_by(2)
    }

    /// First element of a token's key.
    fn key(&self, head: usize, token: usize) -> usize {
        self.start as usize + head * self.head as usize + token * self.token as usize
    }

    /// Bytes of working memory that [`match_tokens`] needs for keys of this type, from an address that
    /// is a multiple of 8.
    ///
    /// ```
    /// use ampoule_runtime::ops::merge::Matching;
    /// let matching = Matching { tokens: 197, heads: 3, depth: 64, protected: 1, merged: 13, ..Default::default() };
    /// assert_eq!(matching.scratch_bytes::<i8>(), 98 * 8 + 98 * 4 + 197 * 4 + 197 * 64 * 2);
    /// ```
    pub fn scratch_bytes<K: Key>(&self) -> usize {
        let movers = self.movers().count();
        let tokens = self.tokens as usize;
        movers * (8 + 4) + tokens * 4 + tokens * self.depth as usize * size_of::<K::Metric>()
    }
}

/// The order of scores as that of integers, for finite ones; −0 and +0 are equal.
fn ordered(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    match bits >> 31 {
        0 => bits | 1 << 31,
        _ => !bits,
    }
}
