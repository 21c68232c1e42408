//! Losses of a batch of pictures and texts that belong to each other row by row.

use super::vectors::unit;
use super::{LossError, check, dot, log_softmax};

/// The student's embeddings of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Contrast<'a> {
    /// Pictures, `[rows, width]`.
    pub images: &'a [f32],
    /// Texts, `[rows, width]`.
    pub texts: &'a [f32],
    /// Pairs in the batch.
    pub rows: usize,
    /// What cosines are multiplied by: `exp` of the learned temperature.
    pub scale: f64,
}

/// A teacher's embeddings of the same batch; its width may be another.
#[derive(Debug, Clone, Copy)]
pub struct TeacherPairs<'a> {
    /// Pictures, `[rows, width]`.
    pub images: &'a [f32],
    /// Texts, `[rows, width]`.
    pub texts: &'a [f32],
}

/// CLIP's loss: each picture finds its text among the batch's, and each text its picture. Gives the
/// loss and its derivative by the scale; the gradients are those by the embeddings as they are given,
/// before they are brought to length 1.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn info_nce(
    batch: &Contrast<'_>,
    images: &mut [f32],
    texts: &mut [f32],
) -> Result<(f64, f64), LossError> {
    let rows = batch.rows;
    let own = |i: usize| f64::from(u8::from(i / rows == i % rows));
    let target: Vec<f64> = (0..rows * rows).map(own).collect();
    contrast(batch, &[target.clone(), target], images, texts)
}

/// As [`info_nce`], but what belongs to each other are the rows of one group (Khosla et al., "Supervised
/// Contrastive Learning", 2020): equal captions in a batch are no wrong answers of each other.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn grouped_info_nce(
    batch: &Contrast<'_>,
    groups: &[usize],
    images: &mut [f32],
    texts: &mut [f32],
) -> Result<(f64, f64), LossError> {
    let rows = batch.rows;
    check("groups", rows, groups.len())?;
    let size = |group: usize| groups.iter().filter(|&&g| g == group).count() as f64;
    let share: Vec<f64> = groups.iter().map(|&g| 1.0 / size(g)).collect();
    let own = |i: usize| match groups[i / rows] == groups[i % rows] {
        true => share[i / rows],
        false => 0.0,
    };
    let target: Vec<f64> = (0..rows * rows).map(own).collect();
    contrast(batch, &[target.clone(), target], images, texts)
}

/// MobileCLIP's relational distillation: the student's similarities of pictures with texts follow the
/// teachers', whose softmax at `teacher_scale` (100) is averaged. Results as of [`info_nce`].
///
/// # Errors
///
/// [`LossError`]: lengths that differ, or no teacher.
pub fn relational(
    batch: &Contrast<'_>,
    teachers: &[TeacherPairs<'_>],
    teacher_scale: f64,
    images: &mut [f32],
    texts: &mut [f32],
) -> Result<(f64, f64), LossError> {
    let rows = batch.rows;
    check("teachers, at least", 1, teachers.len().min(1))?;
    let mut targets = [vec![0.0; rows * rows], vec![0.0; rows * rows]];
    for teacher in teachers {
        let cosines = Cosines::of(teacher.images, teacher.texts, rows)?;
        for (target, logs) in targets.iter_mut().zip(cosines.logs(teacher_scale)) {
            for (target, log) in target.iter_mut().zip(logs) {
                *target += log.exp() / teachers.len() as f64;
            }
        }
    }
    contrast(batch, &targets, images, texts)
}

/// Mean cross-entropy of rows and columns of the scaled cosines with their targets, both `[picture,
/// text]`.
fn contrast(
    batch: &Contrast<'_>,
    targets: &[Vec<f64>; 2],
    images: &mut [f32],
    texts: &mut [f32],
) -> Result<(f64, f64), LossError> {
    check("gradient of pictures", batch.images.len(), images.len())?;
    check("gradient of texts", batch.texts.len(), texts.len())?;
    let (rows, scale) = (batch.rows, batch.scale);
    let cosines = Cosines::of(batch.images, batch.texts, rows)?;
    let logs = cosines.logs(scale);
    let share = 0.5 / rows.max(1) as f64;
    let loss: f64 = targets
        .iter()
        .zip(&logs)
        .map(|(t, l)| -share * dot(t, l))
        .sum();
    let by_logit: Vec<f64> = (0..rows * rows)
        .map(|i| {
            share
                * (0..2)
                    .map(|a| logs[a][i].exp() - targets[a][i])
                    .sum::<f64>()
        })
        .collect();
    let by_image = |i: usize, j: usize| scale * by_logit[i * rows + j];
    let by_text = |j: usize, i: usize| scale * by_logit[i * rows + j];
    backward(&cosines.images, &cosines.texts, by_image, images);
    backward(&cosines.texts, &cosines.images, by_text, texts);
    Ok((loss, dot(&by_logit, &cosines.values)))
}

/// Unit vectors with their lengths, and their cosines `[picture, text]`.
struct Cosines {
    images: Vec<(Vec<f64>, f64)>,
    texts: Vec<(Vec<f64>, f64)>,
    values: Vec<f64>,
}

impl Cosines {
    fn of(images: &[f32], texts: &[f32], rows: usize) -> Result<Self, LossError> {
        check("texts", images.len(), texts.len())?;
        let width = images.len() / rows.max(1);
        check("values in whole rows", rows * width, images.len())?;
        let units = |all: &[f32]| all.chunks_exact(width.max(1)).map(unit).collect::<Vec<_>>();
        let (images, texts) = (units(images), units(texts));
        let row = |i: &(Vec<f64>, f64)| texts.iter().map(|t| dot(&i.0, &t.0)).collect::<Vec<_>>();
        Ok(Cosines {
            values: images.iter().flat_map(row).collect(),
            images,
            texts,
        })
    }

    /// Logarithms of the softmax of rows and of columns, both `[picture, text]`.
    fn logs(&self, scale: f64) -> [Vec<f64>; 2] {
        let rows = self.images.len();
        let at = |i: usize, j: usize| scale * self.values[i * rows + j];
        let by_row: Vec<f64> = (0..rows)
            .flat_map(|i| log_softmax((0..rows).map(|j| at(i, j))))
            .collect();
        let columns: Vec<Vec<f64>> = (0..rows)
            .map(|j| log_softmax((0..rows).map(|i| at(i, j))))
            .collect();
        let by_column = (0..rows * rows).map(|i| columns[i % rows][i / rows]);
        [by_row, by_column.collect()]
    }
}

/// Gradient by vectors whose cosines with `others` have the gradients `by_cosine`.
fn backward(
    own: &[(Vec<f64>, f64)],
    others: &[(Vec<f64>, f64)],
    by_cosine: impl Fn(usize, usize) -> f64,
    gradient: &mut [f32],
) {
    let width = own.first().map_or(1, |(vector, _)| vector.len());
    for (i, (gradient, (vector, length))) in gradient.chunks_exact_mut(width).zip(own).enumerate() {
        let mut by_unit = vec![0.0; width];
        for (j, (other, _)) in others.iter().enumerate() {
            let weight = by_cosine(i, j);
            by_unit
                .iter_mut()
                .zip(other)
                .for_each(|(g, o)| *g += weight * o);
        }
        let along = dot(vector, &by_unit);
        for ((gradient, by_unit), v) in gradient.iter_mut().zip(&by_unit).zip(vector) {
            *gradient = ((by_unit - along * v) / length) as f32;
        }
    }
}
