//! Cross-entropy against labels, dense distributions, or a teacher's stored largest probabilities.

/// What a batch of logits is compared with.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Target<'a> {
    /// One class per sample, of which `smoothing` is spread over all classes.
    Labels {
        /// `[batch]`
        labels: &'a [u32],
        /// At least 0, below 1.
        smoothing: f32,
    },
    /// A distribution per sample, `[batch, classes]`.
    Dense(&'a [f32]),
    /// The `k` largest probabilities per sample, `[batch, k]` each; what they leave of 1 is spread evenly
    /// over the other classes (TinyViT, Wu et al. 2022).
    Sparse {
        /// Classes.
        indices: &'a [u32],
        /// Their probabilities.
        values: &'a [f32],
        /// Classes stored per sample.
        k: usize,
    },
}

/// Mean over the batch of `−Σ target · log softmax(logits)`; `gradient` gets its derivative with respect
/// to `logits[batch, classes]`.
///
/// # Panics
///
/// When lengths do not match, or a class does not exist.
pub fn cross_entropy(
    logits: &[f32],
    classes: usize,
    target: Target<'_>,
    gradient: &mut [f32],
) -> f64 {
    let batch = logits.len() / classes.max(1);
    assert_eq!(
        [batch * classes, gradient.len()],
        [logits.len(); 2],
        "whole rows of {classes} logits"
    );
    let (mut total, mut t) = (0.0, vec![0.0f64; classes]);
    let rows = logits
        .chunks_exact(classes)
        .zip(gradient.chunks_exact_mut(classes));
    for (sample, (row, gradient)) in rows.enumerate() {
        target.write(sample, &mut t);
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let sum: f64 = row.iter().map(|&x| (x as f64 - most).exp()).sum();
        let log = most + sum.ln();
        let mass: f64 = t.iter().sum();
        for ((&x, g), t) in row.iter().zip(gradient).zip(&t) {
            total -= t * (x as f64 - log);
            *g = ((mass * (x as f64 - log).exp() - t) / batch as f64) as f32;
        }
    }
    total / batch as f64
}

impl Target<'_> {
    /// The distribution of a sample.
    fn write(&self, sample: usize, t: &mut [f64]) {
        let classes = t.len();
        match *self {
            Target::Labels { labels, smoothing } => {
                t.fill(smoothing as f64 / classes as f64);
                t[labels[sample] as usize] += 1.0 - smoothing as f64;
            }
            Target::Dense(p) => {
                let row = &p[sample * classes..][..classes];
                t.iter_mut().zip(row).for_each(|(t, p)| *t = *p as f64);
            }
            Target::Sparse { indices, values, k } => {
                let stored = sample * k..(sample + 1) * k;
                let (indices, values) = (&indices[stored.clone()], &values[stored]);
                let known: f64 = values.iter().map(|&v| v as f64).sum();
                t.fill((1.0 - known) / (classes - k).max(1) as f64);
                for (&i, &v) in indices.iter().zip(values) {
                    t[i as usize] = v as f64;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 8] = [0.3, -1.2, 2.0, 0.1, 1.5, 0.0, -0.7, 0.4];

    fn loss(target: Target<'_>) -> f64 {
        cross_entropy(&LOGITS, 4, target, &mut [0.0; 8])
    }

    /// All ways of writing one distribution agree.
    #[test]
    fn targets_agree() {
        let labels = Target::Labels {
            labels: &[2, 0],
            smoothing: 0.1,
        };
        let dense = [0.025, 0.025, 0.925, 0.025, 0.925, 0.025, 0.025, 0.025];
        let sparse = Target::Sparse {
            indices: &[2, 0],
            values: &[0.925, 0.925],
            k: 1,
        };
        assert!((loss(labels) - loss(Target::Dense(&dense))).abs() < 1e-7);
        assert!((loss(labels) - loss(sparse)).abs() < 1e-7);
    }

    #[test]
    fn gradient_equals_differences() {
        let target = Target::Sparse {
            indices: &[2, 1, 0, 3],
            values: &[0.6, 0.2, 0.7, 0.1],
            k: 2,
        };
        let mut gradient = [0.0; 8];
        cross_entropy(&LOGITS, 4, target, &mut gradient);
        for i in 0..8 {
            let at = |h: f32| {
                let mut x = LOGITS;
                x[i] += h;
                cross_entropy(&x, 4, target, &mut [0.0; 8])
            };
            let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((gradient[i] as f64 - difference).abs() < 1e-5, "{i}");
        }
    }
}
