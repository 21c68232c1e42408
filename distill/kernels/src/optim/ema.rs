//! Exponential moving average of weights.

/// Averages of parameters and statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct Ema {
    /// Share of the old average in a new one.
    pub decay: f32,
    /// The averages, in the parameters' order.
    pub average: Vec<Vec<f32>>,
}

impl Ema {
    /// Starts at the parameters.
    pub fn new(decay: f32, parameters: &[Vec<f32>]) -> Self {
        Ema {
            decay,
            average: parameters.to_vec(),
        }
    }

    /// Takes in parameters and running statistics after a step. The first steps count more, so that the
    /// start is soon forgotten: the decay is at most `(1 + steps) / (10 + steps)`.
    pub fn update(&mut self, parameters: &[Vec<f32>], steps: u64) {
        let warm = (1.0 + steps as f32) / (10.0 + steps as f32);
        let share = 1.0 - self.decay.min(warm);
        for (average, new) in self.average.iter_mut().zip(parameters) {
            for (a, x) in average.iter_mut().zip(new) {
                *a += share * (x - *a);
            }
        }
    }
}
