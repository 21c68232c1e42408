//! What a batch of logits is compared with.

use crate::loss::{LossError, dense_distillation, label_cross_entropy, sparse_cross_entropy};
use crate::store::Store;
use crate::teacher::Panel;

/// Where answers come from.
pub enum Source {
    /// From labels alone.
    Labels,
    /// From a store, whose epochs are used in turn.
    Store(Box<Store>),
    /// From teachers that look at every picture while the student learns.
    Teachers(Panel),
}

/// How labels and teachers are weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighting {
    /// Share of the label in the loss of a sample that has one, where there is a teacher.
    pub labels: f64,
    /// Temperature of the teacher's and the student's distributions.
    pub temperature: f64,
    /// Share of a label that is spread over all classes.
    pub smoothing: f64,
}

/// What the teacher says of a sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Largest probabilities and their classes; the others share what is left.
    Sparse(Vec<u16>, Vec<f32>),
    /// Of all classes.
    Dense(Vec<f32>),
}

/// A label, and its share where pictures are mixed.
pub(super) type Labels = [Option<(u32, f64)>; 2];

impl Answer {
    /// The most probable class.
    pub fn best(&self) -> Option<usize> {
        match self {
            Answer::Sparse(indices, _) => indices.first().map(|&i| i.into()),
            Answer::Dense(p) => ampoule_quantize::metrics::argmax(p),
        }
    }

    /// Loss of a row of logits.
    fn loss(&self, row: &[f32], temperature: f64, gradient: &mut [f32]) -> Result<f64, LossError> {
        match self {
            Answer::Sparse(indices, values) if temperature == 1.0 => {
                sparse_cross_entropy(row, indices, values, gradient)
            }
            Answer::Sparse(indices, values) => {
                let left = 1.0 - values.iter().sum::<f32>();
                let others = row.len().saturating_sub(indices.len()).max(1);
                let mut all = vec![left / others as f32; row.len()];
                for (&index, &value) in indices.iter().zip(values) {
                    let class = all.get_mut(usize::from(index)).ok_or(LossError {
                        what: "class below",
                        expected: row.len(),
                        got: index.into(),
                    })?;
                    *class = value;
                }
                dense_distillation(row, &logs(&all), temperature, gradient)
            }
            Answer::Dense(p) => dense_distillation(row, &logs(p), temperature, gradient),
        }
    }
}

/// Logarithms of probabilities, of which half precision may have made zeros.
fn logs(p: &[f32]) -> Vec<f32> {
    p.iter().map(|p| p.max(1e-8).ln()).collect()
}

impl Weighting {
    /// Loss of a sample's logits, whose gradient is added to `gradient` times `factor`.
    pub(super) fn loss(
        &self,
        row: &[f32],
        answer: Option<&Answer>,
        labels: &Labels,
        factor: f32,
        gradient: &mut [f32],
    ) -> Result<f64, LossError> {
        let mut own = vec![0.0; row.len()];
        let labelled = labels.iter().flatten().map(|(_, share)| share).sum::<f64>();
        let of_labels = match answer {
            Some(_) => self.labels,
            None => 1.0,
        };
        let mut total = 0.0;
        let mut add = |weight: f64, loss: f64, own: &[f32]| {
            total += weight * loss;
            let factor = weight as f32 * factor;
            gradient
                .iter_mut()
                .zip(own)
                .for_each(|(g, x)| *g += factor * x);
        };
        if let Some(answer) = answer {
            let loss = answer.loss(row, self.temperature, &mut own)?;
            add(1.0 - of_labels * labelled, loss, &own);
        }
        for &(label, share) in labels.iter().flatten() {
            let loss = label_cross_entropy(row, label as usize, self.smoothing, &mut own)?;
            add(of_labels * share, loss, &own);
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: [f32; 4] = [0.3, -1.2, 2.0, 0.1];

    fn loss(weighting: Weighting, answer: Option<&Answer>, labels: Labels) -> f64 {
        let mut gradient = [0.0; 4];
        let total = weighting.loss(&ROW, answer, &labels, 1.0, &mut gradient);
        for i in 0..4 {
            let at = |h: f32| {
                let mut row = ROW;
                row[i] += h;
                let total = weighting.loss(&row, answer, &labels, 1.0, &mut [0.0; 4]);
                total.unwrap()
            };
            let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((f64::from(gradient[i]) - difference).abs() < 1e-4, "{i}");
        }
        total.unwrap()
    }

    #[test]
    fn teachers_and_labels_are_weighed() {
        let weighting = |labels, temperature| Weighting {
            labels,
            temperature,
            smoothing: 0.0,
        };
        let sparse = Answer::Sparse(vec![2, 0], vec![0.7, 0.2]);
        let dense = Answer::Dense(vec![0.2, 0.05, 0.7, 0.05]);
        let none = [None, None];
        let label = [Some((2, 1.0)), None];
        // The losses differ by the teacher's entropy, which is no matter to the student.
        let entropy: f64 = [0.2f64, 0.05, 0.7, 0.05].iter().map(|p| -p * p.ln()).sum();
        let of_store = loss(weighting(0.0, 1.0), Some(&sparse), none);
        let online = loss(weighting(0.0, 1.0), Some(&dense), none);
        assert!((of_store - entropy - online).abs() < 1e-6);
        let [a, b] = [&sparse, &dense].map(|x| loss(weighting(0.0, 3.0), Some(x), none));
        assert!((a - b).abs() < 1e-6);
        // Labels alone, also mixed, and shares.
        let alone = loss(weighting(0.3, 1.0), None, label);
        let other = loss(weighting(0.3, 1.0), None, [Some((0, 1.0)), None]);
        let mixed = [Some((2, 0.75)), Some((0, 0.25))];
        let both = loss(weighting(0.3, 1.0), None, mixed);
        assert!((both - 0.75 * alone - 0.25 * other).abs() < 1e-6);
        let weighed = loss(weighting(0.3, 1.0), Some(&sparse), label);
        assert!((weighed - 0.7 * of_store - 0.3 * alone).abs() < 1e-6);
        let unlabelled = loss(weighting(0.3, 1.0), Some(&sparse), none);
        assert!((unlabelled - of_store).abs() < 1e-9);
        let wrong = Answer::Sparse(vec![9], vec![1.0]);
        let error = weighting(0.0, 1.0).loss(&ROW, Some(&wrong), &none, 1.0, &mut [0.0; 4]);
        assert!(error.is_err());
    }
}
