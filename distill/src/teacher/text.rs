//! A teacher of texts: an ONNX sentence encoder, run by tract.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ampoule_quantize::import::{ImportOptions, Oracle, Problem};
use sha2::{Digest, Sha256};

use super::TeacherError;
use crate::text::{PADDING, WordPiece};

/// Tokens of a text where the file leaves their number open.
const TOKENS: usize = 64;

/// A model that answers to token ids: its own tokens, and an embedding per text.
///
/// Inputs are known by their names, as Hugging Face's exports have them: `attention_mask`,
/// `token_type_ids`, and any other for the ids. Padding is 0. Where the vocabulary has `[CLS]` and `[SEP]`,
/// they stand around the text. The first output is the embedding, or one vector per token, whose mean over
/// the tokens without padding it is.
pub struct TextTeacher {
    path: PathBuf,
    sha256: String,
    oracle: Oracle,
    tokenizer: WordPiece,
    inputs: Vec<Input>,
    tokens: usize,
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Ids,
    Mask,
    Types,
}

impl TextTeacher {
    /// Reads a model that takes the tokens of `tokenizer`.
    ///
    /// # Errors
    ///
    /// [`TeacherError`]: unreadable, other inputs than rows of tokens, or another output than an embedding.
    pub fn load(path: impl AsRef<Path>, tokenizer: WordPiece) -> Result<Self, TeacherError> {
        let path = path.as_ref();
        let oracle = load(path)?;
        let sha256 = std::fs::read(path).map(|bytes| crate::hex(&Sha256::digest(bytes)));
        let shapes = oracle.input_shapes();
        let tokens = match shapes.first().map(Vec::as_slice) {
            Some(&[1, tokens]) if shapes.iter().all(|s| s[..] == [1, tokens]) => tokens,
            _ => {
                return Err(TeacherError::Tokens {
                    path: path.to_owned(),
                    got: format!("{shapes:?}"),
                });
            }
        };
        let kind = |name: &String| match name.as_str() {
            n if n.contains("attention_mask") => Input::Mask,
            n if n.contains("token_type") => Input::Types,
            _ => Input::Ids,
        };
        let mut teacher = TextTeacher {
            path: path.to_owned(),
            sha256: sha256.map_err(|e| TeacherError::Run {
                path: path.to_owned(),
                what: e.to_string(),
            })?,
            inputs: oracle.inputs().iter().map(kind).collect(),
            oracle,
            tokenizer,
            tokens,
            width: 0,
        };
        teacher.width = teacher.embed("a")?.len();
        Ok(teacher)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of its file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Length of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The embedding of a text.
    ///
    /// # Errors
    ///
    /// [`TeacherError`] when the model can't be run, or gives no embedding.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, TeacherError> {
        let special = ["[CLS]", "[SEP]"].map(|token| self.tokenizer.id(token));
        let mut ids = self.tokenizer.tokens(text);
        if let [Some(first), Some(last)] = special {
            ids.truncate(self.tokens.saturating_sub(2));
            ids.insert(0, first);
            ids.push(last);
        }
        ids.resize(self.tokens, PADDING);
        let is_text = |id: u32| if id == PADDING { 0.0 } else { 1.0 };
        let mask: Vec<f32> = ids.iter().map(|&id| is_text(id)).collect();
        let ids: Vec<f32> = ids.iter().map(|&id| id as f32).collect();
        let types = vec![0.0; ids.len()];
        let shape = [1, self.tokens];
        let values = self.inputs.iter().map(|input| match input {
            Input::Ids => &ids,
            Input::Mask => &mask,
            Input::Types => &types,
        });
        let inputs: Vec<(&[usize], &[f32])> = values.map(|v| (&shape[..], &v[..])).collect();
        let answer = self.oracle.run(&inputs)?.into_iter().next();
        let (shape, values) = answer.unwrap_or_default();
        match shape[..] {
            [1, _] => Ok(values),
            [1, tokens, width] if tokens == self.tokens => Ok(mean(&values, width, &mask)),
            _ => Err(TeacherError::Shape {
                path: self.path.clone(),
                output: self.oracle.outputs().first().cloned().unwrap_or_default(),
                shape,
                expected: "1×width, or 1×tokens×width".to_owned(),
            }),
        }
    }

    /// The embeddings of texts, `[texts, width]`, on several threads. `done` is told how many there are.
    ///
    /// # Errors
    ///
    /// As of [`TextTeacher::embed`].
    pub fn embed_all(
        &self,
        texts: &[String],
        threads: usize,
        done: impl Fn(usize) + Sync,
    ) -> Result<Vec<f32>, TeacherError> {
        let share = texts.len().div_ceil(threads.max(1)).max(1);
        let count = AtomicUsize::new(0);
        let lane = |texts: &[String]| {
            let mut embeddings = Vec::with_capacity(texts.len() * self.width);
            for text in texts {
                embeddings.extend(self.embed(text)?);
                done(count.fetch_add(1, Ordering::Relaxed) + 1);
            }
            Ok(embeddings)
        };
        let parts = std::thread::scope(|scope| {
            let lanes = texts
                .chunks(share)
                .map(|texts| scope.spawn(move || lane(texts)));
            let lanes: Vec<_> = lanes.collect();
            let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Vec<f32>, _>>| {
                let joined = handle.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            lanes
                .into_iter()
                .map(join)
                .collect::<Result<Vec<_>, TeacherError>>()
        })?;
        Ok(parts.concat())
    }
}

/// Reads the file, with one text of [`TOKENS`] tokens where it leaves shapes open.
fn load(path: &Path) -> Result<Oracle, TeacherError> {
    let mut options = ImportOptions::default();
    let mut set = BTreeMap::new();
    loop {
        let error = match Oracle::load_with(path, &options) {
            Ok(oracle) => return Ok(oracle),
            Err(error) => error,
        };
        match &*error.problem {
            Problem::DynamicShape { input, .. } if set.insert(input.clone(), ()).is_none() => {
                options.input_shapes.insert(input.clone(), vec![1, TOKENS]);
            }
            _ => return Err(error.into()),
        }
    }
}

/// Mean of the tokens that are no padding.
fn mean(values: &[f32], width: usize, mask: &[f32]) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for (row, _) in values
        .chunks_exact(width)
        .zip(mask)
        .filter(|(_, m)| **m != 0.0)
    {
        sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
    }
    let count = mask.iter().sum::<f32>().max(1.0);
    sum.iter().map(|s| s / count).collect()
}
