//! Losses of scores: a model that looks at a picture and a text together, and says how well they match.

use super::{LossError, check, log_softmax};

/// Candidates for a picture as DCD takes them: the right text first, then the `count − 1` wrong ones that the
/// teacher likes best, from the best on. Given are the teacher's scores of all candidates.
pub fn hardest(teacher: &[f32], right: usize, count: usize) -> Vec<usize> {
    let mut wrong: Vec<usize> = (0..teacher.len()).filter(|&i| i != right).collect();
    wrong.sort_by(|&a, &b| teacher[b].total_cmp(&teacher[a]));
    wrong.truncate(count.saturating_sub(1));
    [&[right][..], &wrong].concat()
}

/// Dynamic contrastive distillation (Rao et al., "Dynamic Contrastive Distillation for Image-Text Retrieval",
/// 2023): scores `[pictures, candidates]`, the right candidate first ([`hardest`]), student's and teacher's
/// for the same candidates.
///
/// Where the teacher is unsure of a picture (the entropy of its scores, as a share `u` of the batch's) the
/// student learns more from the label, by binary cross-entropy weighted with `u`; where it is sure, more from
/// the teacher, by squared differences weighted with `softmax((1 − u)²)` over the batch. `teacher_share` (0.2)
/// is the teacher's part of the sum. A temperature would cancel out of the squared differences.
///
/// Two defects of the released code are not repeated: there the differences are averaged over the batch
/// before the weights come, which then do nothing; and the teacher's scores are sorted where the student's
/// are not, so that they compare different texts whenever the teacher does not put the right one first.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn dynamic_contrast(
    candidates: usize,
    student: &[f32],
    teacher: &[f32],
    teacher_share: f64,
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    check("teacher's scores", student.len(), teacher.len())?;
    check("gradient", student.len(), gradient.len())?;
    let candidates = candidates.max(1);
    let pictures = student.len() / candidates;
    check("scores in whole rows", pictures * candidates, student.len())?;
    let entropy = |scores: &[f32]| -> f64 {
        let logs = log_softmax(scores.iter().map(|&s| f64::from(s)));
        logs.iter().map(|l| -l.exp() * l).sum()
    };
    let entropies: Vec<f64> = teacher.chunks_exact(candidates).map(entropy).collect();
    let total: f64 = entropies.iter().sum();
    let unsure: Vec<f64> = match total > 0.0 {
        true => entropies.iter().map(|e| e / total).collect(),
        false => vec![1.0 / pictures.max(1) as f64; pictures],
    };
    let sure = log_softmax(unsure.iter().map(|u| (1.0 - u) * (1.0 - u)));
    let mut loss = 0.0;
    for (i, gradient) in gradient.chunks_exact_mut(candidates).enumerate() {
        let by_label = (1.0 - teacher_share) * unsure[i] / candidates as f64;
        let by_teacher = teacher_share * sure[i].exp() / candidates as f64;
        let row = |scores: &'_ [f32]| scores[i * candidates..][..candidates].to_vec();
        let scores = row(student).into_iter().zip(row(teacher));
        for (k, ((s, t), gradient)) in scores.zip(gradient).enumerate() {
            let (s, t, label) = (f64::from(s), f64::from(t), f64::from(u8::from(k == 0)));
            // −label · ln σ(s) − (1 − label) · ln(1 − σ(s))
            let entropy = s.max(0.0) - s * label + (-s.abs()).exp().ln_1p();
            loss += by_label * entropy + by_teacher * (s - t) * (s - t);
            let sigmoid = 1.0 / (1.0 + (-s).exp());
            *gradient = (by_label * (sigmoid - label) + 2.0 * by_teacher * (s - t)) as f32;
        }
    }
    Ok(loss)
}
