//! What the tests of all operators share.

use crate::isa::{Capability, Isa};
use std::vec::Vec;

/// A small generator of test data.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    /// Any code, with the extremes more often than by chance.
    pub fn code(&mut self) -> i8 {
        match self.bits() % 16 {
            0 => -128,
            1 => 127,
            _ => self.bits() as i8,
        }
    }

    pub fn codes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.code()).collect()
    }

    /// Uniform in `lo..hi`.
    pub fn real(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * (self.bits() >> 8) as f32 / (1 << 24) as f32
    }

    pub fn reals(&mut self, n: usize, lo: f32, hi: f32) -> Vec<f32> {
        (0..n).map(|_| self.real(lo, hi)).collect()
    }

    pub fn table(&mut self) -> [i8; 256] {
        core::array::from_fn(|_| self.code())
    }
}

/// The instruction sets that this machine has, after a line that names the others.
pub(crate) fn capabilities(test: &str) -> Vec<Capability> {
    let (found, missing): (Vec<_>, Vec<_>) = Isa::ALL
        .into_iter()
        .map(|isa| (isa, Capability::new(isa)))
        .partition(|c| c.1.is_ok());
    let names: Vec<_> = missing.iter().map(|(isa, _)| isa.name()).collect();
    std::println!(
        "{test}: {} instruction sets run, {} skipped {names:?}",
        found.len(),
        names.len()
    );
    #[cfg(target_arch = "x86_64")]
    if crate::arch::x86::amx_is_emulated() && found.iter().any(|(isa, _)| *isa == Isa::Amx) {
        std::println!("{test}: amx is emulated, this processor has none");
    }
    found.into_iter().filter_map(|(_, cap)| cap.ok()).collect()
}

/// A buffer of `len` elements with poison behind, which [`Guarded::check`] finds intact.
pub(crate) struct Guarded<T> {
    data: Vec<T>,
    len: usize,
    poison: T,
}

impl<T: Copy + PartialEq + core::fmt::Debug> Guarded<T> {
    const MARGIN: usize = 128;

    pub fn new(len: usize, poison: T) -> Self {
        Guarded {
            data: std::vec![poison; len + 2 * Self::MARGIN],
            len,
            poison,
        }
    }

    /// Holding a copy of `values`.
    pub fn holding(values: &[T], poison: T) -> Self {
        let mut this = Self::new(values.len(), poison);
        this.get().copy_from_slice(values);
        this
    }

    pub fn get(&mut self) -> &mut [T] {
        &mut self.data[Self::MARGIN..Self::MARGIN + self.len]
    }

    /// The content, after a look at the poison around it.
    pub fn check(&self) -> &[T] {
        let (before, rest) = self.data.split_at(Self::MARGIN);
        let (content, after) = rest.split_at(self.len);
        assert!(
            before.iter().chain(after).all(|v| *v == self.poison),
            "wrote past the slice"
        );
        content
    }
}
