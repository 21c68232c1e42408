//! What learns.

use std::path::Path;

use ampoule::distill::export::{self, Settings};
use ampoule::distill::zoo::{self, MODELS, Weights};
use ampoule_distill_kernels::graph::Graph;
use ampoule_runtime::preprocess::Preprocess;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Distill;
use crate::cli::error::Failure;
use crate::cli::output::hex;

/// A network with its first weights.
pub struct Student {
    pub name: String,
    pub graph: Graph,
    pub first: Vec<Vec<f32>>,
    /// Where the first weights come from.
    pub source: String,
    pub parameters: u64,
    pub macs: u64,
    /// From pictures to its input.
    pub preprocess: Preprocess,
    config: Value,
}

impl Student {
    /// The network that is asked for, for so many classes.
    pub fn open(args: &Distill, classes: usize) -> Result<Self, Failure> {
        let model = zoo::find(&args.student).ok_or_else(|| unknown(&args.student))?;
        let mut config = model.config.clone().with_classes(classes);
        if let Some([height, width]) = args.image.size() {
            if height != width {
                let what = "students take square pictures; give --size NxN";
                return Err(Failure::Usage(what.to_owned()));
            }
            config = config.with_size(height)?;
        }
        if let Some(rate) = args.recipe.drop_path {
            config = config.with_drop_path(rate as f32);
        }
        let network = config.build()?;
        let weights = match &args.init {
            Some(path) => Weights::read(&network, path)?,
            None => Weights::initial(&network, args.recipe.seed),
        };
        Ok(Student {
            name: args.student.clone(),
            source: weights.source().to_owned(),
            parameters: network.parameter_count(),
            macs: network.macs(),
            preprocess: preprocess(args, config.size())?,
            config: json!(config),
            first: weights.into_values(),
            graph: network.graph().clone(),
        })
    }

    /// All that decides what it computes before it has learnt anything.
    pub fn settings(&self) -> Value {
        let mut hash = Sha256::new();
        for value in self.first.iter().flatten() {
            hash.update(value.to_le_bytes());
        }
        json!({
            "network": self.config,
            "first_weights": hex(&hash.finalize()),
            "preprocess": self.preprocess,
        })
    }

    /// The network with these weights as an ONNX file.
    pub fn to_onnx(&self, weights: &[Vec<f32>]) -> Result<Vec<u8>, Failure> {
        let settings = Settings {
            metadata: &[("architecture", &self.name), ("weights", "ampoule distill")],
            ..Settings::default()
        };
        Ok(export::onnx(&self.graph, weights, &settings)?)
    }

    /// The command that quantises the file.
    pub fn quantize_command(&self, file: &Path, assumed: bool) -> String {
        let preset = match assumed {
            true => "--preset imagenet --resize exact",
            false => "…",
        };
        let (artifact, file) = (file.with_extension("amp"), file.display());
        format!(
            "ampoule quantize {file} --calibration PICTURES {preset} -o {}",
            artifact.display()
        )
    }
}

/// Stretched to the input, with ImageNet's mean and deviation, unless the user says otherwise.
fn preprocess(args: &Distill, size: usize) -> Result<Preprocess, Failure> {
    let given = args.image.preprocess(&[1, size, size, 3])?;
    Ok(match args.image.is_assumed() {
        false => given,
        true => Preprocess {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            ..given
        },
    })
}

fn unknown(name: &str) -> Failure {
    let names: Vec<&str> = MODELS.iter().map(|m| m.name).collect();
    Failure::Usage(format!(
        "there is no network `{name}`; there are {}",
        names.join(", ")
    ))
}
