//! Losses of logits over classes, for one sample.

use super::{LossError, check, log_softmax};

/// Cross-entropy with a stored distribution (TinyViT): the classes `indices` have the probabilities
/// `values`, and every other one an equal share of what is left. There is no ground truth in it.
///
/// # Errors
///
/// [`LossError`]: lengths that differ, or a class that is not there.
pub fn sparse_cross_entropy(
    logits: &[f32],
    indices: &[u16],
    values: &[f32],
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    check("values", indices.len(), values.len())?;
    let classes = logits.len();
    let left = 1.0 - values.iter().map(|&v| f64::from(v)).sum::<f64>();
    let others = classes.saturating_sub(indices.len());
    let mut target = vec![left / others.max(1) as f64; classes];
    for (&index, &value) in indices.iter().zip(values) {
        let class = target.get_mut(usize::from(index)).ok_or(LossError {
            what: "class below",
            expected: classes,
            got: index.into(),
        })?;
        *class = f64::from(value);
    }
    cross_entropy(logits, &target, 1.0, gradient)
}

/// Cross-entropy with a label, `smoothing` of which is spread over all classes.
///
/// # Errors
///
/// [`LossError`]: lengths that differ, or a class that is not there.
pub fn label_cross_entropy(
    logits: &[f32],
    label: usize,
    smoothing: f64,
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    let classes = logits.len();
    let mut target = vec![smoothing / classes as f64; classes];
    *target.get_mut(label).ok_or(LossError {
        what: "class below",
        expected: classes,
        got: label,
    })? += 1.0 - smoothing;
    cross_entropy(logits, &target, 1.0, gradient)
}

/// `T² · KL(softmax(teacher / T) ‖ softmax(logits / T))` (Hinton): dense distillation at temperature T.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn dense_distillation(
    logits: &[f32],
    teacher: &[f32],
    temperature: f64,
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    check("teacher's logits", logits.len(), teacher.len())?;
    let teacher = log_softmax(teacher.iter().map(|&v| f64::from(v) / temperature));
    let target: Vec<f64> = teacher.iter().map(|l| l.exp()).collect();
    let entropy: f64 = -super::dot(&target, &teacher);
    let loss = cross_entropy(logits, &target, temperature, gradient)? - entropy;
    let square = temperature * temperature;
    gradient.iter_mut().for_each(|g| *g *= square as f32);
    Ok(square * loss)
}

/// `−Σ target · log softmax(logits / temperature)`.
fn cross_entropy(
    logits: &[f32],
    target: &[f64],
    temperature: f64,
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    check("gradient", logits.len(), gradient.len())?;
    let logs = log_softmax(logits.iter().map(|&v| f64::from(v) / temperature));
    let total: f64 = target.iter().sum();
    for ((gradient, log), target) in gradient.iter_mut().zip(&logs).zip(target) {
        *gradient = ((total * log.exp() - target) / temperature) as f32;
    }
    Ok(-super::dot(target, &logs))
}
