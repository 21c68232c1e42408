//! Random numbers that are the same on every machine, in every version of every library.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// What a generator is for: equal seeds for different purposes give unrelated numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// Every choice made for one picture.
    Picture = 1,
    /// Mixing two pictures.
    Pair = 2,
    /// The seed of a record.
    RecordSeed = 3,
    /// The order of an epoch.
    Order = 4,
    /// Drop path of a training step.
    DropPath = 5,
    /// Which samples are held out, and which labels are used.
    Split = 6,
    /// Which of a picture's captions is used.
    Caption = 7,
    /// Which size of an elastic network learns.
    Size = 8,
}

/// ChaCha with 8 rounds, counter and nonce 0.
///
/// The 32 bytes of its key are three numbers and the purpose, 64-bit little-endian. 64-bit numbers
/// are drawn as two 32-bit ones, the low half first. What is made of them below uses nothing but
/// integer arithmetic and correctly rounded `f64` operations; logarithms, powers, sines and cosines
/// come from `libm`, because those of the system's library differ between systems.
pub(crate) struct Generator(ChaCha8Rng);

impl Generator {
    /// A generator for three numbers and a purpose.
    pub fn new(numbers: [u64; 3], purpose: Purpose) -> Self {
        let mut key = [0; 32];
        let [a, b, c] = numbers;
        for (bytes, word) in key.chunks_exact_mut(8).zip([a, b, c, purpose as u64]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Generator(ChaCha8Rng::from_seed(key))
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// An integer below `limit`, which is at least 1: `⌊bits · limit / 2³²⌋`.
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(limit)) >> 32) as u32
    }

    /// A number in `[0, 1)`: a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        let (low, high) = (u64::from(self.bits()), u64::from(self.bits()));
        ((high << 32 | low) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of that probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number in `[low, high)`.
    pub fn between(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A number in `[low, high)` whose logarithm is uniform.
    pub fn log_between(&mut self, range: [f64; 2]) -> f64 {
        libm::exp(self.between(range.map(libm::log)))
    }

    /// Nearly a standard normal number: the sum of eight random bytes, centred and scaled to
    /// variance 1. It ends at ±4.9.
    pub fn normal(&mut self) -> f64 {
        const MEAN: f64 = 8.0 * 127.5;
        const VARIANCE: f64 = 8.0 * (256.0 * 256.0 - 1.0) / 12.0;
        let bytes = [self.bits().to_le_bytes(), self.bits().to_le_bytes()];
        let sum: u32 = bytes.as_flattened().iter().map(|&b| u32::from(b)).sum();
        (f64::from(sum) - MEAN) / VARIANCE.sqrt()
    }

    /// A number of the distribution Beta(α, α), by Jöhnk's method; α is in `(0, 2]`.
    pub fn beta(&mut self, alpha: f64) -> f64 {
        loop {
            let x = libm::pow(self.unit(), 1.0 / alpha);
            let y = libm::pow(self.unit(), 1.0 / alpha);
            if x + y <= 1.0 && x + y > 0.0 {
                return x / (x + y);
            }
        }
    }

    /// The numbers below `count` in random order, by Fisher and Yates.
    pub fn permutation(&mut self, count: u32) -> Vec<u32> {
        let mut all: Vec<u32> = (0..count).collect();
        for last in (1..count).rev() {
            all.swap(last as usize, self.below(last + 1) as usize);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator() -> Generator {
        Generator::new([7, 0, 0], Purpose::Picture)
    }

    /// Mean and standard deviation of ten thousand draws.
    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let n = 10_000;
        let values: Vec<f64> = (0..n).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        (mean, variance.sqrt())
    }

    #[track_caller]
    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 0.02, "{got} {expected}");
    }

    #[test]
    fn the_stream_is_that_of_chacha() {
        // ChaCha8 of an all-zero key: the first words of the published test vector
        // (draft-strombergson-chacha-test-vectors-01, TC1).
        let mut zero = Generator(ChaCha8Rng::from_seed([0; 32]));
        let expected = [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6];
        let got = [zero.bits().to_le_bytes(), zero.bits().to_le_bytes()];
        assert_eq!(got.as_flattened(), expected);
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut g = generator();
        let (mean, deviation) = moments(|| g.unit());
        close(mean, 0.5);
        close(deviation, 1.0 / 12f64.sqrt());
        let (mean, deviation) = moments(|| g.normal());
        close(mean, 0.0);
        close(deviation, 1.0);
        for alpha in [0.2, 0.8, 1.0, 2.0] {
            let (mean, deviation) = moments(|| g.beta(alpha));
            close(mean, 0.5);
            close(deviation, 0.5 / (2.0 * alpha + 1.0).sqrt());
        }
        let (mean, _) = moments(|| g.log_between([0.75, 4.0 / 3.0]).ln());
        close(mean, 0.0);
        let (mean, _) = moments(|| f64::from(g.below(10)));
        assert!((mean - 4.5).abs() < 0.1, "{mean}");
    }

    #[test]
    fn permutations_hold_every_number_once() {
        for count in [0, 1, 2, 57] {
            let mut all = generator().permutation(count);
            assert!(count < 57 || all.windows(2).any(|p| p[0] > p[1]));
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count));
        }
    }
}
