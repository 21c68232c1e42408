//! From a picture to class scores, on a host.

use std::path::{Path, PathBuf};

use ampoule_quantize::data::{self, DataError};
use ampoule_quantize::metrics;
use ampoule_quantize::model::{Model, ModelError};
use ampoule_quantize::seal::AlignedBytes;
use ampoule_runtime::artifact::Step;
use ampoule_runtime::preprocess::{ImageView, Preprocess, PreprocessError};
use ampoule_runtime::{Artifact, DType, Isa, Pool, Session, TensorId};
use thiserror::Error;

/// Why a picture could not be classified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// The artifact can't be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The artifact is refused or can't run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The picture can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The picture can't be brought to the model's size.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The artifact does not say how a picture becomes its input.
    #[error("the artifact carries no preprocessing: it was not sealed for pictures")]
    NotForPictures,
}

impl From<ampoule_runtime::Error> for ClassifyError {
    fn from(error: ampoule_runtime::Error) -> Self {
        ClassifyError::Model(error.into())
    }
}

/// An artifact with its arena, for pictures.
///
/// Cloning gives an independent one with an arena of its own, for another thread.
#[derive(Debug, Clone)]
pub struct Classifier {
    model: Model,
    preprocess: Preprocess,
    labels: Vec<String>,
    isa: Isa,
    softmax: Option<LastSoftmax>,
    classes: Option<usize>,
    pixels: Vec<u8>,
    scratch: Vec<u8>,
}

impl Classifier {
    /// Reads and verifies an artifact.
    ///
    /// # Errors
    ///
    /// [`ClassifyError`]: a file that can't be read, is refused, or was not sealed for pictures.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ClassifyError> {
        let path = path.as_ref();
        let read = |source| ClassifyError::Read {
            path: path.to_owned(),
            source,
        };
        Self::new(Model::from_bytes(AlignedBytes::read(path).map_err(read)?)?)
    }

    /// Takes a model whose artifact carries preprocessing.
    ///
    /// # Errors
    ///
    /// [`ClassifyError::NotForPictures`], and [`ClassifyError::Preprocess`] when the preprocessing in
    /// the artifact is invalid.
    pub fn new(model: Model) -> Result<Self, ClassifyError> {
        let artifact = model.artifact()?;
        let preprocess = artifact.preprocess().ok_or(ClassifyError::NotForPictures)?;
        preprocess.validate()?;
        let labels = artifact
            .labels()
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect();
        let softmax = last_softmax(&artifact);
        let classes = artifact.outputs().next().and_then(|io| {
            let dims = io.tensor.shape.dims().iter().map(|&d| d as usize);
            metrics::classes(&dims.collect::<Vec<_>>())
        });
        let pixels = vec![0; preprocess.output_len()];
        Ok(Classifier {
            model,
            preprocess,
            labels,
            isa: Isa::best(),
            softmax,
            classes,
            pixels,
            scratch: Vec::new(),
        })
    }

    /// Forces an instruction set.
    ///
    /// # Errors
    ///
    /// [`ampoule_runtime::Error::IsaUnavailable`].
    pub fn with_isa(mut self, isa: Isa) -> Result<Self, ClassifyError> {
        ampoule_runtime::Capability::new(isa)?;
        self.isa = isa;
        Ok(self)
    }

    /// How a picture becomes the input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Class labels; empty when the artifact has none.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Number of values of the first output, where it is one row.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Whether something says that the first output holds class scores: it is one row, and there are
    /// labels or it comes from a softmax. An embedding is one row, too.
    pub fn is_classifier(&self) -> bool {
        self.classes.is_some() && (!self.labels.is_empty() || self.softmax.is_some())
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Decodes and classifies a file.
    ///
    /// # Errors
    ///
    /// [`ClassifyError`].
    pub fn classify_file(&mut self, path: impl AsRef<Path>) -> Result<Scores, ClassifyError> {
        let image = data::decode(path)?;
        self.classify(&image.view()?)
    }

    /// Classifies a picture.
    ///
    /// # Errors
    ///
    /// [`ClassifyError`].
    pub fn classify(&mut self, image: &ImageView<'_>) -> Result<Scores, ClassifyError> {
        let values = self.run(image, None, |session| session.run())?;
        Ok(self.scores(values))
    }

    /// Classifies a picture, with `run` in place of [`Session::run`], over a pool's threads if there is
    /// one. Returns the values of the first output.
    ///
    /// # Errors
    ///
    /// [`ClassifyError`].
    pub fn run(
        &mut self,
        image: &ImageView<'_>,
        pool: Option<&Pool>,
        mut run: impl FnMut(&mut Session<'_, '_>) -> Result<(), ampoule_runtime::Error>,
    ) -> Result<Vec<f32>, ClassifyError> {
        let needed = self
            .preprocess
            .scratch_bytes(image.width(), image.height())?;
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0);
        }
        self.preprocess
            .run_u8(image, &mut self.scratch, &mut self.pixels)?;
        let mut session = match pool {
            Some(pool) => self.model.session_with_pool(self.isa, pool)?,
            None => self.model.session(self.isa)?,
        };
        write_pixels(&mut session, &self.preprocess, &self.pixels)?;
        run(&mut session)?;
        let mut values = vec![0.0; session.output(0)?.tensor.shape.elements()];
        session.read_f32(0, &mut values)?;
        Ok(values)
    }

    /// What [`Classifier::run`] returned, as scores.
    pub fn scores(&self, values: Vec<f32>) -> Scores {
        let already_probabilities = self.softmax == Some(LastSoftmax::Plain);
        Scores::new(values, already_probabilities, &self.labels)
    }
}

/// Fills the first input from preprocessed pixels.
fn write_pixels(
    session: &mut Session<'_, '_>,
    preprocess: &Preprocess,
    pixels: &[u8],
) -> Result<(), ClassifyError> {
    let tensor = session.input(0)?.tensor;
    if tensor.dtype == DType::I8 {
        let input = session.input_bytes(0)?;
        if input.len() != pixels.len() {
            return Err(PreprocessError::Length {
                expected: input.len(),
            }
            .into());
        }
        input.copy_from_slice(pixels);
        let table = preprocess.quantize_table(tensor.scale, tensor.zero_point);
        preprocess.quantize_in_place(input, &table)?;
        return Ok(());
    }
    let mut values = vec![0.0; pixels.len()];
    preprocess.normalize_into(pixels, &mut values)?;
    Ok(session.write_f32(0, &values)?)
}

/// The softmax at the end of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastSoftmax {
    Plain,
    Log,
}

/// The softmax that the first output comes from, through nothing but moves and changes of type.
fn last_softmax(artifact: &Artifact<'_>) -> Option<LastSoftmax> {
    let output = artifact.outputs().next()?;
    let steps: Vec<Step> = artifact.steps().collect();
    let mut wanted: TensorId = output.id;
    for step in steps
        .iter()
        .rev()
        .filter(|s| !matches!(s, Step::Fill { .. }))
    {
        if step.output() != wanted {
            continue;
        }
        match *step {
            Step::Softmax { log: true, .. } => return Some(LastSoftmax::Log),
            Step::Softmax { .. } => return Some(LastSoftmax::Plain),
            Step::Copy { x, .. } | Step::Convert { x, .. } => wanted = x,
            _ => return None,
        }
    }
    None
}

/// Scores of every class.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Probability per class.
    pub probabilities: Vec<f32>,
    /// Whether a softmax was applied to the model's output to get them.
    pub softmax_applied: bool,
    labels: Vec<String>,
}

/// One class.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    /// Number of the class.
    pub class: usize,
    /// Its label, or `class N`.
    pub label: String,
    /// Its probability.
    pub probability: f32,
}

impl Scores {
    fn new(values: Vec<f32>, already_probabilities: bool, labels: &[String]) -> Self {
        let softmax_applied = !already_probabilities && !look_like_probabilities(&values);
        let probabilities = if softmax_applied {
            softmax(&values)
        } else {
            values
        };
        Scores {
            probabilities,
            softmax_applied,
            labels: labels.to_vec(),
        }
    }

    /// The most probable classes, best first; of equal ones the lower number.
    pub fn top(&self, count: usize) -> Vec<Guess> {
        let p = &self.probabilities;
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        order.truncate(count);
        let label = |class: usize| {
            self.labels
                .get(class)
                .cloned()
                .unwrap_or_else(|| format!("class {class}"))
        };
        order
            .into_iter()
            .map(|class| Guess {
                class,
                label: label(class),
                probability: p[class],
            })
            .collect()
    }
}

/// Whether values are in [0, 1] and sum to 1, up to the rounding of codes.
fn look_like_probabilities(values: &[f32]) -> bool {
    let sum: f32 = values.iter().sum();
    values.iter().all(|v| (-1e-6..=1.0 + 1e-6).contains(v)) && (sum - 1.0).abs() < 0.02
}

fn softmax(values: &[f32]) -> Vec<f32> {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = values.iter().map(|v| (v - max).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_probabilities_and_probabilities_stay() {
        let scores = Scores::new(vec![0.0, 3f32.ln()], false, &["cat".into()]);
        assert!(scores.softmax_applied);
        let top = scores.top(5);
        assert_eq!(
            (top[0].class, top[0].label.as_str(), top[1].label.as_str()),
            (1, "class 1", "cat")
        );
        assert!((top[0].probability - 0.75).abs() < 1e-6);
        let kept = Scores::new(vec![0.25, 0.75], false, &[]);
        assert_eq!(
            (kept.softmax_applied, kept.top(1)[0].probability),
            (false, 0.75)
        );
        assert!(!Scores::new(vec![0.1, 0.1], true, &[]).softmax_applied);
    }

    #[test]
    fn equal_scores_keep_class_order() {
        let top = Scores::new(vec![0.25; 4], true, &[]).top(3);
        assert_eq!(top.iter().map(|g| g.class).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
