//! Several teachers that answer together.

use half::f16;

use super::{Desk, Teacher, TeacherError};
use crate::data::Picture;
use crate::store::{Answer, Kind, TeacherId};

/// What the teachers are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The largest probabilities; without a number ten, or all where there are fewer classes.
    SparseLogits(Option<usize>),
    /// Vectors.
    Embeddings,
    /// A feature map.
    Features,
}

/// Teachers that answer together: the mean of their probabilities, or their vectors joined.
#[derive(Clone)]
pub struct Panel {
    teachers: Vec<Teacher>,
    kind: Kind,
}

impl Panel {
    /// Checks that the teachers can answer the question together.
    ///
    /// # Errors
    ///
    /// [`TeacherError`]: nobody, outputs of other shapes than asked for, or more classes asked for
    /// than there are.
    pub fn new(teachers: Vec<Teacher>, question: Question) -> Result<Self, TeacherError> {
        let first = teachers.first().ok_or(TeacherError::Nobody)?;
        let wrong = |teacher: &Teacher, expected: String| TeacherError::Shape {
            path: teacher.path().to_owned(),
            output: teacher.output().to_owned(),
            shape: teacher.shape().to_vec(),
            expected,
        };
        let kind = match question {
            Question::SparseLogits(k) => {
                const MOST: usize = 1 << 16; // a class is a u16
                let classes = values(first);
                for teacher in &teachers {
                    if !(2..=MOST).contains(&classes) || !is_vector(teacher) {
                        return Err(wrong(teacher, "a vector of 2 to 65536 classes".to_owned()));
                    }
                    if values(teacher) != classes {
                        let expected = format!("{classes} classes, as the first teacher has");
                        return Err(wrong(teacher, expected));
                    }
                }
                let k = k.unwrap_or(classes.min(10));
                if !(1..=classes).contains(&k) {
                    return Err(TeacherError::TopK { k, classes });
                }
                Kind::SparseLogits { k, classes }
            }
            Question::Embeddings => {
                if let Some(teacher) = teachers.iter().find(|t| !is_vector(t)) {
                    return Err(wrong(teacher, "a vector".to_owned()));
                }
                Kind::Embeddings {
                    widths: teachers.iter().map(values).collect(),
                }
            }
            Question::Features => match &teachers[..] {
                [teacher] if teacher.fallback().is_none() => Kind::Features {
                    shape: teacher.shape().get(1..).unwrap_or_default().to_vec(),
                },
                _ => {
                    let expected = "a feature map of one teacher that our own runtime runs";
                    return Err(wrong(first, expected.to_owned()));
                }
            },
        };
        Ok(Panel { teachers, kind })
    }

    /// What its records hold.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The teachers.
    pub fn teachers(&self) -> &[Teacher] {
        &self.teachers
    }

    /// The teachers as a store names them.
    pub fn ids(&self) -> Vec<TeacherId> {
        let id = |t: &Teacher| TeacherId {
            name: t
                .path()
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            sha256: t.sha256().to_owned(),
            output: t.output().to_owned(),
            softmax: self.is_sparse() && !t.is_distribution(),
            preprocess: *t.preprocess(),
        };
        self.teachers.iter().map(id).collect()
    }

    /// Something that answers; one per thread.
    pub fn desks(&self) -> Desks {
        Desks {
            panel: self.clone(),
            desks: self.teachers.iter().map(Teacher::desk).collect(),
        }
    }

    fn is_sparse(&self) -> bool {
        matches!(self.kind, Kind::SparseLogits { .. })
    }
}

/// A panel with the memory to answer one picture at a time.
pub struct Desks {
    panel: Panel,
    desks: Vec<Desk>,
}

impl Desks {
    /// The answer to a picture of that width and height.
    ///
    /// # Errors
    ///
    /// [`TeacherError::Run`].
    pub fn answer(&mut self, picture: &Picture, size: [u16; 2]) -> Result<Answer, TeacherError> {
        let Kind::SparseLogits { k, .. } = self.panel.kind else {
            return Ok(Answer::dense(
                &self.outputs(&picture.pixels, size)?.concat(),
            ));
        };
        let mean = self.distribution(&picture.pixels, size)?;
        match mean.iter().all(|p| p.is_finite()) {
            true => Ok(Answer::top(&mean, k)),
            // NaN has no place in an order; the store refuses it with the sample's name.
            false => Ok(Answer {
                indices: vec![0; k],
                values: vec![f16::NAN; k],
            }),
        }
    }

    /// The mean of the teachers' probabilities of all classes.
    ///
    /// # Errors
    ///
    /// [`TeacherError::Run`].
    pub fn distribution(
        &mut self,
        pixels: &[u8],
        size: [u16; 2],
    ) -> Result<Vec<f32>, TeacherError> {
        let mut answers = self.outputs(pixels, size)?;
        for (answer, teacher) in answers.iter_mut().zip(&self.panel.teachers) {
            if !teacher.is_distribution() {
                softmax(answer);
            }
        }
        let count = answers.len() as f32;
        let mean = |c: usize| answers.iter().map(|a| a[c]).sum::<f32>() / count;
        Ok((0..answers[0].len()).map(mean).collect())
    }

    fn outputs(&mut self, pixels: &[u8], size: [u16; 2]) -> Result<Vec<Vec<f32>>, TeacherError> {
        let desks = self.desks.iter_mut();
        desks.map(|desk| desk.answer(pixels, size)).collect()
    }
}

fn values(teacher: &Teacher) -> usize {
    teacher.shape().iter().product()
}

/// Whether all dimensions but one are 1.
fn is_vector(teacher: &Teacher) -> bool {
    teacher.shape().iter().filter(|&&d| d > 1).count() <= 1
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let exponentials = values.iter().map(|v| f64::from(v - largest).exp());
    let sum: f64 = exponentials.sum();
    for value in values {
        *value = (f64::from(*value - largest).exp() / sum) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_by_hand() {
        let mut values = [1f32.ln(), 3f32.ln(), 6f32.ln()];
        softmax(&mut values);
        assert!(
            values
                .iter()
                .zip([0.1, 0.3, 0.6])
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
        let mut huge = [1e30, 1e30, -1e30];
        softmax(&mut huge);
        assert_eq!(huge, [0.5, 0.5, 0.0]);
        let mut broken = [f32::NAN, 1.0];
        softmax(&mut broken);
        assert!(broken.iter().all(|v| v.is_nan()));
    }
}
