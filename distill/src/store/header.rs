//! `store.json`: what the records are and what they were made with.

use std::fs;
use std::path::{Path, PathBuf};

use ampoule_runtime::preprocess::Preprocess;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Difference, StoreError};
use crate::augment::Augmentation;

/// Version of the format.
pub const FORMAT: u32 = 1;

/// Everything that decides what the records are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// What a record holds.
    pub kind: Kind,
    /// Who answered. Probabilities of several are averaged, embeddings joined.
    pub teachers: Vec<TeacherId>,
    /// What the pictures went through.
    pub augmentation: Augmentation,
    /// Number of samples, N.
    pub samples: usize,
    /// [`Dataset::digest`](crate::data::Dataset::digest) of the samples.
    pub listing: String,
    /// Number of epochs, E.
    pub epochs: usize,
    /// What the records' seeds and the pairs are made of.
    pub seed: u64,
    /// Records that share a checksum.
    pub block: usize,
    /// Where teachers and pictures were. Says nothing about the records, and may differ.
    pub made_from: MadeFrom,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// The largest probabilities at temperature 1, largest first, with their classes.
    SparseLogits {
        /// How many.
        k: usize,
        /// Of how many classes.
        classes: usize,
    },
    /// Vectors, one teacher's after another's.
    Embeddings {
        /// Length of each teacher's.
        widths: Vec<usize>,
    },
    /// A feature map of one teacher.
    Features {
        /// Its dimensions without the batch; behind a convolution channels are last.
        shape: Vec<usize>,
    },
}

/// A teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherId {
    /// Name of its file.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The output used.
    pub output: String,
    /// Whether softmax was applied to it, which a model may have done itself.
    pub softmax: bool,
    /// From the augmented picture to its input.
    pub preprocess: Preprocess,
}

/// Where teachers and pictures were.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeFrom {
    /// The teachers' files.
    pub teachers: Vec<PathBuf>,
    /// Folder or list of pictures.
    pub data: PathBuf,
}

impl Kind {
    /// Bytes of a record.
    pub fn record_bytes(&self) -> usize {
        const SEED: usize = 4;
        SEED + match self {
            Kind::SparseLogits { k, .. } => 4 * k,
            dense => 2 * dense.values(),
        }
    }

    /// Values in a record.
    pub fn values(&self) -> usize {
        match self {
            Kind::SparseLogits { k, .. } => *k,
            Kind::Embeddings { widths } => widths.iter().sum(),
            Kind::Features { shape } => shape.iter().product(),
        }
    }

    /// A number of records whose checksum is quick to compute: 64, or fewer if they are large.
    pub fn block(&self) -> usize {
        const BYTES: usize = 1 << 16;
        (BYTES / self.record_bytes()).clamp(1, 64)
    }
}

impl Header {
    /// The path of a store's header.
    pub(super) fn path(folder: &Path) -> PathBuf {
        folder.join("store.json")
    }

    /// Reads and checks a store's header.
    pub(super) fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = Self::path(folder);
        let text = fs::read(&path).map_err(|source| StoreError::Read {
            path: path.clone(),
            source,
        })?;
        let wrong = |what: String| StoreError::Header {
            path: path.clone(),
            what,
        };
        let value: Value = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        let format = &value["format"];
        if *format != FORMAT {
            return Err(StoreError::Version {
                path,
                expected: FORMAT,
                got: format.to_string(),
            });
        }
        let header: Header = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        header.check().map_err(wrong)?;
        Ok(header)
    }

    /// Checks the numbers.
    pub(super) fn check(&self) -> Result<(), String> {
        const MOST: usize = 1 << 28;
        let positive = [
            ("samples", self.samples),
            ("epochs", self.epochs),
            ("block", self.block),
            ("values", self.kind.values()),
        ];
        for (name, number) in positive {
            // Products of them fit 64 bits, and sample numbers 32.
            if !(1..=MOST).contains(&number) {
                return Err(format!("{name}: expected 1 to {MOST}, got {number}"));
            }
        }
        match self.kind {
            Kind::SparseLogits { k, classes } if k > classes || classes > 1 << 16 => Err(format!(
                "expected k at most the classes and those at most 65536, got {k} of {classes}"
            )),
            _ => self.augmentation.validate().map_err(|e| e.to_string()),
        }
    }

    /// The settings in which `got` differs from this one.
    pub fn differences(&self, got: &Header) -> Vec<Difference> {
        let value = |header: &Header| {
            let header = Header {
                made_from: MadeFrom::default(),
                ..header.clone()
            };
            serde_json::to_value(header).unwrap_or_default()
        };
        differences(&value(self), &value(got))
    }
}

/// The places in which two JSON values differ.
pub(crate) fn differences(expected: &Value, got: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), expected, got, &mut found);
    found
}

/// Walks two JSON values and notes where they differ.
fn compare(field: String, expected: &Value, got: &Value, found: &mut Vec<Difference>) {
    let inner = |key: &str| match field.is_empty() {
        true => key.to_owned(),
        false => format!("{field}.{key}"),
    };
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for (key, value) in a {
                compare(inner(key), value, &b[key], found);
            }
        }
        (Value::Array(a), Value::Array(b))
            if a.len() == b.len() && a.iter().any(Value::is_object) =>
        {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(inner(&i.to_string()), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(Difference {
            field,
            expected: text(a),
            got: text(b),
        }),
    }
}

/// A value as it was given: numbers of single precision have become longer ones.
fn text(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if value.is_f64() && f64::from(x as f32) == x => (x as f32).to_string(),
        _ => value.to_string(),
    }
}
