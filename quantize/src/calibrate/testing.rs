//! Deterministic random numbers for the tests; `tests/fixtures/calibrate/make.py` draws the same.

/// Numerical Recipes' linear congruential generator.
pub struct Lcg(pub u32);

impl Lcg {
    /// The next 24 bits.
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f32 {
        self.next() as f32 / (1 << 24) as f32
    }

    /// Nearly standard normal: twelve uniforms, summed exactly and rounded once.
    pub fn gaussian(&mut self) -> f32 {
        let sum: u32 = (0..12).map(|_| self.next()).sum();
        (f64::from(sum) / f64::from(1 << 24) - 6.0) as f32
    }

    /// A vector of [`Lcg::gaussian`].
    pub fn gaussians(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.gaussian()).collect()
    }
}
