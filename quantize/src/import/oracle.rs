//! Runs the ONNX file itself, in float, by tract: the reference for evaluation.

use std::path::Path;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::ImportOptions;
use super::error::{ImportError, Problem};
use super::guard::guarded;
use super::load::Source;

/// A tensor as the ONNX file has it: shape and row-major data.
pub type OracleTensor = (Vec<usize>, Vec<f32>);

/// A model that tract runs in float, with shapes and layout as the ONNX file has them.
pub struct Oracle {
    file: String,
    model: Arc<TypedRunnableModel>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Oracle {
    /// Loads a model with batch 1.
    pub fn load(path: impl AsRef<Path>) -> Result<Oracle, ImportError> {
        Oracle::load_with(path, &ImportOptions::default())
    }

    /// Loads a model with options.
    pub fn load_with(
        path: impl AsRef<Path>,
        options: &ImportOptions,
    ) -> Result<Oracle, ImportError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| Problem::from(e).of(&file))?;
        Oracle::build(&bytes, path.parent(), options, file)
    }

    /// Loads a model from memory.
    pub fn load_bytes(bytes: &[u8], options: &ImportOptions) -> Result<Oracle, ImportError> {
        Oracle::build(bytes, None, options, "model in memory".into())
    }

    fn build(
        bytes: &[u8],
        folder: Option<&Path>,
        options: &ImportOptions,
        file: String,
    ) -> Result<Oracle, ImportError> {
        let load = || {
            let source = Source::as_it_is(bytes, folder, &options.input_shapes)?;
            let model = source.optimised()?;
            let name = |o: &OutletId| model.node(o.node).name.clone();
            let inputs = model.inputs.iter().map(name).collect();
            let outputs = source.nodes.outputs;
            let model = guarded("planning", || {
                model.into_runnable().map_err(|e| problem("planning", e))
            })?;
            Ok((model, inputs, outputs))
        };
        let (model, inputs, outputs) = load().map_err(|p: Problem| p.of(&file))?;
        Ok(Oracle {
            file,
            model,
            inputs,
            outputs,
        })
    }

    /// Names of the inputs, in the order that [`Oracle::run`] takes them.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Shapes of the inputs, in the same order.
    pub fn input_shapes(&self) -> Vec<Vec<usize>> {
        let shape = |i| {
            let fact = self.model.model().input_fact(i).ok()?;
            Some(fact.shape.as_concrete()?.to_vec())
        };
        (0..self.inputs.len()).filter_map(shape).collect()
    }

    /// Names of the outputs, in the order that [`Oracle::run`] gives them.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Runs the model on one tensor for each input. Token ids are given as f32 and converted.
    pub fn run(&self, inputs: &[(&[usize], &[f32])]) -> Result<Vec<OracleTensor>, ImportError> {
        let run = || {
            let model = self.model.model();
            let tensors = inputs
                .iter()
                .enumerate()
                .map(|(i, (shape, data))| {
                    let kind = model.input_fact(i)?.datum_type;
                    let tensor = Tensor::from_shape(shape, data)?;
                    Ok(tensor.cast_to_dt(kind)?.into_owned().into_tvalue())
                })
                .collect::<TractResult<TVec<TValue>>>()?;
            self.model
                .run(tensors)?
                .iter()
                .map(|t| tensor(t))
                .collect::<TractResult<Vec<OracleTensor>>>()
        };
        guarded("running", || run().map_err(|e| problem("running", e)))
            .map_err(|p| p.of(&self.file))
    }
}

pub(super) fn tensor(t: &Tensor) -> TractResult<OracleTensor> {
    let floats = t.cast_to::<f32>()?;
    Ok((
        t.shape().to_vec(),
        floats.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
    ))
}

fn problem(stage: &'static str, error: TractError) -> Problem {
    Problem::Invalid {
        stage,
        what: format!("{error:#}"),
    }
}
