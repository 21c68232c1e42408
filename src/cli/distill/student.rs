//! What learns.

use std::path::{Path, PathBuf};

use ampoule::distill::export::{self, Settings};
use ampoule::distill::import;
use ampoule::distill::train::Trainer;
use ampoule::distill::zoo::{self, Config, MODELS, Network, TinyVitConfig, Weights};
use ampoule_distill_kernels::graph::Graph;
use ampoule_runtime::preprocess::Preprocess;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Distill;
use crate::cli::args::is_onnx;
use crate::cli::error::Failure;
use crate::cli::output::{hex, note};
use crate::cli::preprocessing::ImageArgs;

/// A network with its first weights.
pub struct Student {
    pub name: String,
    pub graph: Graph,
    pub first: Vec<Vec<f32>>,
    /// Where the first weights come from.
    pub source: String,
    /// The file that it is read from, where the zoo does not have it.
    pub file: Option<PathBuf>,
    pub parameters: u64,
    pub macs: u64,
    /// From pictures to its input.
    pub preprocess: Preprocess,
    /// Its configuration, where it is a TinyViT of the zoo.
    pub tiny_vit: Option<TinyVitConfig>,
    config: Value,
}

impl Student {
    /// The network that is asked for, for so many classes.
    pub fn open(args: &Distill, classes: usize) -> Result<Self, Failure> {
        let file = Path::new(&args.student);
        match is_onnx(file) {
            true => Self::from_file(args, file, classes),
            false => Self::from_zoo(args, classes),
        }
    }

    fn from_zoo(args: &Distill, classes: usize) -> Result<Self, Failure> {
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
        if let Some(shares) = args.elastic.shrink {
            config = super::elastic::shrunk(&args.student, config, shares)?;
        }
        let network = config.build()?;
        let weights = match &args.init {
            Some(path) => Weights::read(&network, path)?,
            None => Weights::initial(&network, args.recipe.seed),
        };
        let name = args.student.clone();
        let student = Self::new(args, name, &network, weights, json!(config))?;
        Ok(Student {
            tiny_vit: match config {
                Config::TinyVit(config) => Some(config),
                _ => None,
            },
            ..student
        })
    }

    /// A network that another program wrote, or this one, pruned or not, with its weights.
    fn from_file(args: &Distill, file: &Path, classes: usize) -> Result<Self, Failure> {
        let student = read(args, file)?;
        let graph = student.network.graph();
        let maps = |values: &[ampoule_distill_kernels::graph::Value]| {
            let maps = values.iter().map(|&v| graph.map(v));
            maps.map(|m| [m.height, m.width, m.channels]).collect()
        };
        let (inputs, outputs): (Vec<_>, Vec<_>) = (maps(graph.inputs()), maps(graph.outputs()));
        let takes_pictures = matches!(inputs[..], [[_, _, 3]]);
        if !takes_pictures || outputs != [[1, 1, classes]] {
            return Err(Failure::Unfit {
                path: file.to_owned(),
                what: format!(
                    "takes {inputs:?} and gives {outputs:?} (height, width, channels); expected one picture in colour, and one row of {classes} classes"
                ),
                hint: "a student with as many classes as the teacher has",
            });
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let (network, weights) = (&student.network, student.weights);
        Ok(Student {
            file: Some(file.to_owned()),
            ..Self::new(args, name.into_owned(), network, weights, json!("a file"))?
        })
    }

    fn new(
        args: &Distill,
        name: String,
        network: &Network,
        weights: Weights,
        config: Value,
    ) -> Result<Self, Failure> {
        let graph = network.graph().clone();
        let picture = graph.map(graph.inputs()[0]);
        Ok(Student {
            name,
            source: weights.source().to_owned(),
            file: None,
            parameters: network.parameter_count(),
            macs: network.macs(),
            preprocess: preprocess(args, [picture.height, picture.width])?,
            tiny_vit: None,
            config,
            first: weights.into_values(),
            graph,
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

    /// Its weights in a training that may have more.
    pub fn own<'t>(&self, trainer: &'t Trainer) -> &'t [Vec<f32>] {
        &trainer.weights()[..self.graph.parameters().len()]
    }

    /// The network with these weights as an ONNX file.
    pub fn to_onnx(&self, weights: &[Vec<f32>]) -> Result<Vec<u8>, Failure> {
        let settings = Settings {
            metadata: &[("architecture", &self.name), ("weights", "ampoule distill")],
            ..Settings::default()
        };
        Ok(export::onnx(&self.graph, weights, &settings)?)
    }

    /// The command that quantises the file. `rounded`: the student has learnt with int8 codes.
    pub fn quantize_command(&self, file: &Path, image: &ImageArgs, rounded: bool) -> String {
        let codes = match rounded {
            true => " --range min-max --no-bias-correction",
            false => "",
        };
        let preset = match image.is_assumed() {
            true => "--preset imagenet --resize exact".to_owned(),
            false => image.spelled_out(),
        };
        let (artifact, file) = (file.with_extension("amp"), file.display());
        format!(
            "ampoule quantize {file} --calibration PICTURES {preset}{codes} -o {}",
            artifact.display()
        )
    }
}

/// A network from a file, with its weights; what it lost on the way is said.
pub fn read(args: &Distill, file: &Path) -> Result<import::Student, Failure> {
    let shrinks = args.elastic.shrink.is_some();
    if args.init.is_some() || args.recipe.drop_path.is_some() || shrinks {
        return Err(Failure::Usage(
            "--init, --shrink and --drop-path are for networks of the zoo; an ONNX file has its weights"
                .to_owned(),
        ));
    }
    let student = import::onnx(file)?;
    for text in &student.notes {
        note(&format!("note: {text}"));
    }
    Ok(student)
}

/// Stretched to the input, with ImageNet's mean and deviation, unless the user says otherwise.
fn preprocess(args: &Distill, [height, width]: [usize; 2]) -> Result<Preprocess, Failure> {
    let given = args.image.preprocess(&[1, height, width, 3])?;
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
