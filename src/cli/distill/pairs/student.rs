//! The trained towers: written, quantised and measured.

use std::path::{Path, PathBuf};

use ampoule::distill::data::Dataset;
use ampoule::distill::export::{self, Settings};
use ampoule::distill::text::WordPiece;
use ampoule::distill::train::pairs::{Captions, Retrieval};
use ampoule::distill::zoo::{self, Towers};
use ampoule_quantize::data::decode;
use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::{QuantizeOptions, quantize, seal_float};
use ampoule_runtime::Isa;
use ampoule_runtime::preprocess::Preprocess;

use super::{Row, Tower};
use crate::cli::args::ImportArgs;
use crate::cli::distill::measure::{Calibration, cost, tell_islands};
use crate::cli::error::Failure;
use crate::cli::files::save;
use crate::cli::models::SourceModel;
use crate::cli::progress::Bars;
use crate::cli::samples::pixels;

/// Calibration samples of each tower, at most.
const CALIBRATION: usize = 256;

/// The trained towers.
pub(super) struct Student<'a> {
    pub towers: &'a Towers,
    pub weights: &'a [Vec<f32>],
    pub folder: &'a Path,
    pub tokenizer: &'a WordPiece,
    pub tokens: usize,
    pub preprocess: Preprocess,
    pub data: &'a Dataset,
    pub measured: &'a Dataset,
}

impl Student<'_> {
    /// Writes ONNX files and artifacts, and measures them in float (recall is known) and int8.
    pub fn rows(&self, float: Retrieval) -> Result<[Row; 2], Failure> {
        let [image, text] = self.towers.split(self.weights);
        self.write("image", &self.towers.image, "input", image)?;
        self.write("text", &self.towers.text, "input_ids", text)?;
        let captions = Captions::of(self.measured)?;
        let names = captions.names.iter().map(|&t| &captions.texts[t]);
        let ids: Vec<Vec<f32>> = names.map(|text| self.ids(text)).collect();
        let learnt = self.data.samples();
        let step = learnt.len().div_ceil(CALIBRATION).max(1);
        let texts = learnt.iter().step_by(step).enumerate();
        let texts = texts.map(|(i, s)| self.ids(&s.captions[i % s.captions.len()]));
        let pictures = learnt.iter().step_by(step).map(|s| s.path.clone());
        let pictures: Vec<PathBuf> = pictures.collect();
        let pictures = Calibration::read(&pictures, &self.preprocess)?;
        let options = QuantizeOptions {
            preprocess: Some(self.preprocess),
            ..QuantizeOptions::default()
        };
        let (image_float, mut image_int8, image_model) = self.seal("image", &pictures, &options)?;
        let plain = QuantizeOptions::default();
        let texts = Calibration(texts.collect());
        let (text_float, mut text_int8, text_model) = self.seal("text", &texts, &plain)?;
        image_int8.parameters = image_float.parameters;
        text_int8.parameters = text_float.parameters;
        let images = self.measured.samples().iter().map(|sample| {
            let image = decode(&sample.path)?;
            self.values(&image).map_err(|error| Failure::Picture {
                path: sample.path.clone(),
                error,
            })
        });
        let images = embed(image_model, images)?;
        let texts = embed(text_model, ids.into_iter().map(Ok))?;
        let width = texts.len() / captions.names.len().max(1);
        let int8 = Retrieval::of(width, &images, &captions.group, &texts);
        let row = |name: &str, retrieval, image, text| Row {
            name: name.to_owned(),
            retrieval: Some(retrieval),
            image,
            text,
        };
        Ok([
            row("student, float", float, image_float, text_float),
            row("student, int8", int8, image_int8, text_int8),
        ])
    }

    fn write(
        &self,
        name: &str,
        network: &zoo::Network,
        input: &str,
        values: &[Vec<f32>],
    ) -> Result<(), Failure> {
        let settings = Settings {
            fold: true,
            inputs: &[input],
            outputs: &["embedding"],
            metadata: &[
                ("architecture", "clip-mini"),
                ("weights", "ampoule distill"),
            ],
            ..Settings::default()
        };
        let file = export::onnx(network.graph(), values, &settings)?;
        save(&self.folder.join(name).with_extension("onnx"), &file)
    }

    /// A tower's figures in float and int8, and the int8 model, which is written.
    fn seal(
        &self,
        name: &str,
        samples: &Calibration,
        options: &QuantizeOptions,
    ) -> Result<(Tower, Tower, Model), Failure> {
        let file = self.folder.join(name).with_extension("onnx");
        let artifact = file.with_extension("amp");
        let source = SourceModel::open(&file, &ImportArgs::default(), None, false)?;
        let int8 = quantize(source.graph.clone(), samples, options, &Bars::new())?;
        save(&artifact, &int8.compiled.bytes)?;
        tell_islands(name, &int8.compiled.program.islands);
        let float = Model::from_bytes(seal_float(&source.graph, options)?.bytes)?;
        let int8 = Model::from_bytes(int8.compiled.bytes)?;
        let network = match name {
            "image" => &self.towers.image,
            _ => &self.towers.text,
        };
        let tower = |model: &Model, bytes| -> Result<Tower, Failure> {
            let (median_us, arena) = cost(model.clone())?;
            Ok(Tower {
                parameters: Some(network.parameter_count()),
                macs: Some(network.macs()),
                bytes,
                median_us: Some(median_us),
                arena_bytes: Some(arena),
            })
        };
        let bytes = std::fs::metadata(&file).map_or(0, |m| m.len() as usize);
        let size = int8.bytes().len();
        Ok((tower(&float, bytes)?, tower(&int8, size)?, int8))
    }

    fn ids(&self, text: &str) -> Vec<f32> {
        let ids = self.tokenizer.encode(text, self.tokens);
        ids.into_iter().map(|id| id as f32).collect()
    }

    fn values(
        &self,
        image: &ampoule_quantize::data::RgbImage,
    ) -> Result<Vec<f32>, ampoule_runtime::preprocess::PreprocessError> {
        let pixels = pixels(&self.preprocess, image)?;
        let mut values = vec![0.0; pixels.len()];
        self.preprocess.normalize_into(&pixels, &mut values)?;
        Ok(values)
    }
}

/// A model's first outputs, one behind the other, with length 1.
fn embed(
    mut model: Model,
    inputs: impl Iterator<Item = Result<Vec<f32>, Failure>>,
) -> Result<Vec<f32>, Failure> {
    let mut session = model.session(Isa::best())?;
    let mut all = Vec::new();
    for input in inputs {
        session.write_f32(0, &input?)?;
        session.run()?;
        let mut answer = vec![0.0; session.output(0)?.tensor.shape.elements()];
        session.read_f32(0, &mut answer)?;
        unit(&mut answer);
        all.extend(answer);
    }
    Ok(all)
}

pub(super) fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v /= length);
}
