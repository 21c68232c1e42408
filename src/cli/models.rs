//! Opening models: artifacts, ONNX and TFLite files, with the float oracle of ONNX behind the same face.

use std::path::Path;
use std::sync::Arc;

use ampoule::{Classifier, ClassifyError};
use ampoule_quantize::calibrate::QParams;
use ampoule_quantize::data::RgbImage;
use ampoule_quantize::graph::{Graph, Port};
use ampoule_quantize::import::{self, Format, ImportError, Imported, Oracle, Problem};
use ampoule_quantize::metrics;
use ampoule_quantize::model::{Model, ModelError};
use ampoule_quantize::pipeline::{
    QuantizeOptions, prepare, prepare_verified, seal_float, source_shape, take_over, to_source,
};
use ampoule_quantize::scheme::{is_quantised, stated};
use ampoule_quantize::seal::AlignedBytes;
use ampoule_runtime::preprocess::Preprocess;

use super::args::ImportArgs;
use super::error::Failure;
use super::output::note;
use super::preprocessing::{ImageArgs, takes_pictures};

/// Reads and verifies an artifact.
pub fn read_artifact(path: &Path) -> Result<Model, Failure> {
    let bytes = AlignedBytes::read(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    Model::from_bytes(bytes).map_err(|e| match e {
        ModelError::Runtime(error) => Failure::Artifact {
            path: path.to_owned(),
            error,
        },
        other => other.into(),
    })
}

/// Opens an artifact for pictures.
pub fn read_classifier(path: &Path) -> Result<Classifier, Failure> {
    classifier(path, read_artifact(path)?)
}

/// A model for pictures; `path` is where it came from.
pub fn classifier(path: &Path, model: Model) -> Result<Classifier, Failure> {
    Classifier::new(model).map_err(|e| match e {
        ClassifyError::NotForPictures => not_for_pictures(path),
        other => other.into(),
    })
}

/// An artifact that takes arrays only.
pub fn not_for_pictures(path: &Path) -> Failure {
    Failure::Unfit {
        path: path.to_owned(),
        what: "was not sealed for pictures: it carries no preprocessing".to_owned(),
        hint: "give samples as .npy, or calibrate with pictures",
    }
}

/// A model whose output does not hold class scores.
pub fn not_classes(path: &Path) -> Failure {
    Failure::Unfit {
        path: path.to_owned(),
        what: "has a first output that is not one row of classes".to_owned(),
        hint: "`ampoule run --raw` shows the values, `ampoule compare` how close they are to the float model's",
    }
}

/// An ONNX or TFLite file as an optimised graph.
pub struct SourceModel {
    /// What import says about the file.
    pub imported: Imported,
    /// The graph after all passes but equalisation.
    pub graph: Graph,
    /// Shapes that the caller fixed.
    options: import::ImportOptions,
}

impl SourceModel {
    /// Imports a file and prints what import warns about. `size` (height, width) fills the input of a
    /// picture model that leaves it open. `verify` checks every pass.
    pub fn open(
        path: &Path,
        args: &ImportArgs,
        size: Option<[usize; 2]>,
        verify: bool,
    ) -> Result<Self, Failure> {
        let mut options = args.options();
        let imported = match (import::open(path, &options), size) {
            (Err(error), Some([height, width])) => {
                options
                    .input_shapes
                    .insert(open_input(error)?, vec![1, 3, height, width]);
                import::open(path, &options)?
            }
            (result, _) => result?,
        };
        for warning in &imported.warnings {
            note(&format!("warning: {warning}"));
        }
        let mut graph = imported.graph.clone();
        match verify {
            true => prepare_verified(&mut graph, false)?,
            false => prepare(&mut graph, false)?,
        }
        Ok(SourceModel {
            imported,
            graph,
            options,
        })
    }

    /// The only input.
    pub fn input(&self) -> Result<&Port, Failure> {
        match &self.graph.inputs[..] {
            [port] => Ok(port),
            ports => Err(Failure::Usage(format!(
                "the model has {} inputs; the command line feeds models with one, use the library for others",
                ports.len()
            ))),
        }
    }

    /// Whether the file has int8 parameters of its own.
    pub fn is_quantised(&self) -> bool {
        is_quantised(&self.graph)
    }

    /// Whether tract can run the file.
    pub fn has_oracle(&self) -> bool {
        matches!(self.imported.format, Format::Onnx { .. })
    }

    /// The file sealed with this preprocessing: in int8 with its own parameters where it has them, else in
    /// float.
    pub fn sealed(&self, preprocess: Preprocess) -> Result<Model, Failure> {
        let options = QuantizeOptions {
            preprocess: Some(preprocess),
            ..QuantizeOptions::default()
        };
        let bytes = match self.is_quantised() {
            true => {
                take_over(self.graph.clone(), &self.imported.weight_steps, &options)?
                    .compiled
                    .bytes
            }
            false => seal_float(&self.graph, &options)?.bytes,
        };
        Ok(Model::from_bytes(bytes)?)
    }

    /// How pictures become the input. Where nothing is given and the file has int8 parameters with 0 at the
    /// least code or the middle one, 8-bit pixels are its codes.
    pub fn preprocess(&self, image: &ImageArgs) -> Result<Preprocess, Failure> {
        let value = self.input()?.value;
        let mut preprocess = image.preprocess(self.graph.shape(value))?;
        let codes = stated(&self.graph, value).filter(holds_pixels);
        if let Some(q) = codes.filter(|_| image.is_assumed()) {
            preprocess.scale = 1.0;
            preprocess.mean = [(128 + q.zero_point) as f32; 3];
            preprocess.std = [1.0 / q.scale; 3];
        }
        Ok(preprocess)
    }

    /// Whether the input may be a picture. One of a single channel in int8 is, when 0 is its least code or
    /// its middle one.
    pub fn takes_pictures(&self) -> Result<bool, Failure> {
        let value = self.input()?.value;
        let shape = self.graph.shape(value);
        let stated = stated(&self.graph, value);
        let pixels = stated.is_none_or(|q| shape.last() != Some(&1) || holds_pixels(&q));
        Ok(takes_pictures(shape) && pixels)
    }

    /// The file run by tract, in float.
    pub fn oracle(&self, path: &Path) -> Result<OracleModel, Failure> {
        if !self.has_oracle() {
            return Err(Failure::Unfit {
                path: path.to_owned(),
                what: "is a TFLite model, which no second implementation runs here".to_owned(),
                hint: "make an artifact of it with `ampoule quantize`",
            });
        }
        let port = self.input()?;
        Ok(OracleModel {
            oracle: Arc::new(Oracle::load_with(path, &self.options)?),
            source: source_shape(&self.graph, port),
            stored: self.graph.shape(port.value).to_vec(),
            layout: port.layout.clone(),
            classes: self
                .graph
                .outputs
                .first()
                .and_then(|o| metrics::classes(self.graph.shape(o.value))),
        })
    }
}

/// Whether codes are likely those of pixels: 0 is black, or the middle grey.
fn holds_pixels(q: &QParams) -> bool {
    matches!(q.zero_point, -128 | -1 | 0)
}

/// The name of the input that an import failed for because its size is open.
fn open_input(error: ImportError) -> Result<String, ImportError> {
    match *error.problem {
        Problem::DynamicShape { ref input, .. } => Ok(input.clone()),
        _ => Err(error),
    }
}

/// An ONNX file that tract runs, fed with values in our stored layout.
#[derive(Clone)]
pub struct OracleModel {
    oracle: Arc<Oracle>,
    /// Shape of the input as the file has it.
    source: Vec<usize>,
    /// Shape of the input as our graph has it.
    stored: Vec<usize>,
    layout: Vec<usize>,
    /// Values of the first output, where it is one row.
    classes: Option<usize>,
}

impl OracleModel {
    /// All outputs, in the file's own layout.
    pub fn run(&self, stored: &[f32]) -> Result<Vec<Vec<f32>>, Failure> {
        let values = to_source(stored, &self.stored, &self.layout);
        let outputs = self.oracle.run(&[(&self.source, &values)])?;
        Ok(outputs.into_iter().map(|(_, values)| values).collect())
    }
}

/// Something that scores pictures; one per thread.
pub trait Engine: Send {
    /// One value per class: logits or probabilities.
    fn scores(&mut self, image: &RgbImage) -> Result<Vec<f32>, Failure>;

    /// Number of classes, when the first output is one row.
    fn classes(&self) -> Option<usize>;

    /// An independent one for another thread.
    fn fork(&self) -> Box<dyn Engine>;
}

impl Engine for Classifier {
    fn scores(&mut self, image: &RgbImage) -> Result<Vec<f32>, Failure> {
        let view = image.view().map_err(ampoule::ClassifyError::from)?;
        Ok(self.run(&view, None, |session| session.run())?)
    }

    fn classes(&self) -> Option<usize> {
        Classifier::classes(self)
    }

    fn fork(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }
}

/// The ONNX file behind the artifact's preprocessing.
#[derive(Clone)]
pub struct OracleEngine {
    /// The file.
    pub model: OracleModel,
    /// How pictures become its input.
    pub preprocess: Preprocess,
}

impl Engine for OracleEngine {
    fn scores(&mut self, image: &RgbImage) -> Result<Vec<f32>, Failure> {
        let pixels = super::samples::pixels(&self.preprocess, image)
            .map_err(ampoule::ClassifyError::from)?;
        let mut values = vec![0.0; pixels.len()];
        self.preprocess
            .normalize_into(&pixels, &mut values)
            .map_err(ampoule::ClassifyError::from)?;
        Ok(self
            .model
            .run(&values)?
            .into_iter()
            .next()
            .unwrap_or_default())
    }

    fn classes(&self) -> Option<usize> {
        self.model.classes
    }

    fn fork(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }
}
