//! Random weights.

use super::super::network::Role;

/// Deviation of matrices, biases and tables.
const DEVIATION: f64 = 0.02;

/// SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014).
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Values of a parameter from which training starts.
    pub fn initial(&mut self, role: Role, shape: &[usize]) -> Vec<f32> {
        let constant = match role {
            Role::Gain | Role::Variance => 1.0,
            Role::NegativeGain => -1.0,
            Role::LayerScale => 1e-5,
            Role::LastGain | Role::Offset | Role::Mean | Role::Bias | Role::Table => 0.0,
            _ => return self.alive(role, shape),
        };
        vec![constant; shape.iter().product()]
    }

    /// Values of a parameter none of which is without effect.
    pub fn alive(&mut self, role: Role, shape: &[usize]) -> Vec<f32> {
        let fan_in = || shape[1..].iter().product::<usize>() as f64;
        let mut draw = || match role {
            Role::Kernel { activated } => {
                let gain = if activated { 2.0 } else { 1.0 };
                self.normal() * (gain / fan_in()).sqrt()
            }
            Role::Matrix
            | Role::Embedding
            | Role::Bias
            | Role::Table
            | Role::SignedTable { .. } => self.short_normal() * DEVIATION,
            Role::Gain | Role::LastGain | Role::Variance => 0.5 + self.uniform(),
            Role::LayerScale => (0.5 + self.uniform()) * 0.1,
            Role::NegativeGain => -0.5 - self.uniform(),
            Role::Offset | Role::Mean => self.normal() * 0.1,
        };
        let elements = shape.iter().product();
        (0..elements).map(|_| draw() as f32).collect()
    }

    /// Of mean 0 and deviation 1: a sum of uniform numbers, which, unlike logarithms, is the same everywhere.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// Normal, cut at two deviations.
    fn short_normal(&mut self) -> f64 {
        loop {
            let value = self.normal();
            if value.abs() <= 2.0 {
                return value;
            }
        }
    }

    /// In 0..1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let mut random = Random::new(1);
        let mut check = |role, shape: &[usize], mean: f32, deviation: f32| {
            let values = random.alive(role, shape);
            let n = values.len() as f32;
            let m = values.iter().sum::<f32>() / n;
            let d = (values.iter().map(|v| (v - m).powi(2)).sum::<f32>() / n).sqrt();
            assert!((m - mean).abs() < 0.05 * deviation, "{role:?}: mean {m}");
            assert!(
                (d / deviation - 1.0).abs() < 0.03,
                "{role:?}: deviation {d}"
            );
        };
        check(Role::Kernel { activated: true }, &[400, 2, 5, 5], 0.0, 0.2);
        check(
            Role::Kernel { activated: false },
            &[400, 2, 5, 5],
            0.0,
            0.2 / 2f32.sqrt(),
        );
        // Cutting at two deviations leaves 0.8796 of the deviation.
        check(Role::Matrix, &[100, 200], 0.0, 0.02 * 0.8796);
        check(Role::Variance, &[20_000], 1.0, 1.0 / 12f32.sqrt());
        check(Role::Mean, &[20_000], 0.0, 0.1);
    }
}
