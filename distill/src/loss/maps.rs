//! Losses of maps: features of a stage, and attention.

use super::{LossError, check, dot, log_softmax};

/// How ScaleKD (Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", 2024, section
/// 3.2) looks at features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// As they are.
    Direct,
    /// Without the mean of each channel over the map, so that what is not constant counts alone. The paper
    /// sets the coefficient [0, 0] of each channel's DCT to 0, which is the same.
    Alternative,
}

impl View {
    /// The paper's weight.
    pub const fn weight(self) -> f64 {
        match self {
            View::Direct => 0.08,
            View::Alternative => 0.06,
        }
    }
}

/// ScaleKD's dual view mimicking, without the view's weight: the squared distances of student's and teacher's
/// feature vectors, each brought to length 1 over the channels of a pixel, summed over pixels and divided by
/// the batch. Maps are `[batch, pixels, channels]`; the student's come from its projector.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn mimicking(
    view: View,
    [batch, pixels, channels]: [usize; 3],
    student: &[f32],
    teacher: &[f32],
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    let size = pixels * channels;
    for (what, got) in [
        ("student's features", student.len()),
        ("teacher's features", teacher.len()),
        ("gradient", gradient.len()),
    ] {
        check(what, batch * size, got)?;
    }
    let share = 1.0 / batch.max(1) as f64;
    let mut loss = 0.0;
    for sample in 0..batch {
        let of = |x: &[f32]| -> Vec<f64> {
            let x = x[sample * size..][..size].iter();
            let mut x: Vec<f64> = x.map(|&v| f64::from(v)).collect();
            if view == View::Alternative {
                remove_means(channels, &mut x);
            }
            x
        };
        let (student, teacher) = (of(student), of(teacher));
        let mut by_student = vec![0.0; size];
        for (at, by) in by_student.chunks_exact_mut(channels.max(1)).enumerate() {
            let pixel = |x: &'_ [f64]| unit(&x[at * channels..][..channels]);
            let ((s, length), (t, _)) = (pixel(&student), pixel(&teacher));
            let difference: Vec<f64> = s.iter().zip(&t).map(|(s, t)| s - t).collect();
            loss += share * dot(&difference, &difference);
            let along = dot(&s, &difference);
            for ((by, d), s) in by.iter_mut().zip(&difference).zip(&s) {
                *by = 2.0 * share * (d - along * s) / length;
            }
        }
        if view == View::Alternative {
            remove_means(channels, &mut by_student);
        }
        let gradient = &mut gradient[sample * size..][..size];
        let pairs = gradient.iter_mut().zip(&by_student);
        pairs.for_each(|(g, by)| *g = *by as f32);
    }
    Ok(loss)
}

/// Attention-map distillation (UNIP, Zhang et al., 2025: "NMI-HAD"): `KL(teacher ‖ student)` of attention
/// weights, summed over keys and averaged over all rows of `keys` logits, that is over batch, heads and
/// queries. Logits are scaled products of queries and keys, before the softmax.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn attention_maps(
    keys: usize,
    student: &[f32],
    teacher: &[f32],
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    check("teacher's logits", student.len(), teacher.len())?;
    check("gradient", student.len(), gradient.len())?;
    let keys = keys.max(1);
    check(
        "logits in whole rows",
        student.len() / keys * keys,
        student.len(),
    )?;
    let share = 1.0 / (student.len() / keys).max(1) as f64;
    let logs = |row: &[f32]| log_softmax(row.iter().map(|&x| f64::from(x)));
    let rows = student.chunks_exact(keys).zip(teacher.chunks_exact(keys));
    let mut loss = 0.0;
    for ((s, t), gradient) in rows.zip(gradient.chunks_exact_mut(keys)) {
        for ((s, t), gradient) in logs(s).iter().zip(logs(t)).zip(gradient) {
            loss += share * t.exp() * (t - s);
            *gradient = (share * (s.exp() - t.exp())) as f32;
        }
    }
    Ok(loss)
}

/// Takes the mean of each channel off `x[pixels, channels]`.
fn remove_means(channels: usize, x: &mut [f64]) {
    let pixels = (x.len() / channels.max(1)).max(1) as f64;
    for channel in 0..channels {
        let of_channel = || x.iter().skip(channel).step_by(channels);
        let mean = of_channel().sum::<f64>() / pixels;
        let of_channel = x.iter_mut().skip(channel).step_by(channels);
        of_channel.for_each(|v| *v -= mean);
    }
}

fn unit(vector: &[f64]) -> (Vec<f64>, f64) {
    let length = dot(vector, vector).sqrt().max(1e-12);
    (vector.iter().map(|v| v / length).collect(), length)
}
