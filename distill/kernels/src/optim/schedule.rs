//! Learning rates over a run.

/// Linear from zero to `peak` over `warmup` steps, then half a cosine down to `floor` at `total`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// Highest rate.
    pub peak: f32,
    /// Last rate.
    pub floor: f32,
    /// Steps of rising.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
}

impl WarmupCosine {
    /// Rate of a step, counted from zero.
    pub fn rate(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / self.warmup as f32;
        }
        let span = self.total.saturating_sub(self.warmup).max(1);
        let at = (step - self.warmup).min(span) as f64 / span as f64;
        let share = 0.5 * (1.0 + (std::f64::consts::PI * at).cos());
        self.floor + (self.peak - self.floor) * share as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls() {
        let s = WarmupCosine {
            peak: 1.0,
            floor: 0.1,
            warmup: 4,
            total: 14,
        };
        assert_eq!([0, 1, 3].map(|i| s.rate(i)), [0.25, 0.5, 1.0]);
        assert_eq!(s.rate(4), 1.0);
        assert!((s.rate(9) - 0.55).abs() < 1e-6);
        assert_eq!([14, 20].map(|i| s.rate(i)), [0.1, 0.1]);
    }
}
