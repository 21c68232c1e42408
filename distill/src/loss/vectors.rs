//! Losses of a vector against a teacher's, for one sample.

use super::{LossError, check, dot};

/// Mean of the squared differences.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn mean_squared_error(
    student: &[f32],
    teacher: &[f32],
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    check("teacher's values", student.len(), teacher.len())?;
    check("gradient", student.len(), gradient.len())?;
    let count = student.len().max(1) as f64;
    let mut sum = 0.0;
    for ((gradient, s), t) in gradient.iter_mut().zip(student).zip(teacher) {
        let difference = f64::from(*s) - f64::from(*t);
        sum += difference * difference;
        *gradient = (2.0 * difference / count) as f32;
    }
    Ok(sum / count)
}

/// One minus the cosine of the angle between the two.
///
/// # Errors
///
/// [`LossError`]: lengths that differ.
pub fn cosine_distance(
    student: &[f32],
    teacher: &[f32],
    gradient: &mut [f32],
) -> Result<f64, LossError> {
    check("teacher's values", student.len(), teacher.len())?;
    check("gradient", student.len(), gradient.len())?;
    let (student, length) = unit(student);
    let (teacher, _) = unit(teacher);
    let cosine = dot(&student, &teacher);
    for ((gradient, s), t) in gradient.iter_mut().zip(&student).zip(&teacher) {
        *gradient = ((cosine * s - t) / length) as f32;
    }
    Ok(1.0 - cosine)
}

/// The vector at length 1, and its length. A vector of zeros stays one.
pub(super) fn unit(vector: &[f32]) -> (Vec<f64>, f64) {
    let vector: Vec<f64> = vector.iter().map(|&v| f64::from(v)).collect();
    let length = dot(&vector, &vector).sqrt().max(1e-12);
    (vector.iter().map(|v| v / length).collect(), length)
}
