//! Layer by layer comparison of an artifact with the float graph it was made from.
//!
//! Tensors are matched by name, so the artifact must have been sealed with names and the graph
//! prepared the same way ([`crate::pipeline::prepare`]).

use std::collections::HashMap;

use ampoule_runtime::artifact::Step;
use ampoule_runtime::{Artifact, Tensor, dequantize};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::graph::Graph;
use crate::metrics::{Difference, MetricError};
use crate::model::{Model, ModelError};
use crate::observe::Samples;
use crate::pipeline::Meta;

/// Signal-to-noise ratio below which a layer is suspicious, in decibels.
pub const SUSPICIOUS_DB: f64 = 20.0;
/// Ratio reported for equal tensors.
const EQUAL_DB: f64 = 200.0;

/// How far one tensor of the artifact is from the float one, over all samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerError {
    /// Tensor.
    pub name: String,
    /// Operator that makes it.
    pub op: String,
    /// Number of the step that completes it.
    pub step: usize,
    /// Element type in the artifact.
    pub dtype: String,
    /// Dimensions.
    pub shape: Vec<u32>,
    /// Signal-to-noise ratio in decibels; 200 when equal.
    pub sqnr_db: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// Largest difference.
    pub max_abs: f64,
    /// Share of float values that the tensor's codes can't express.
    pub clipped: f64,
}

/// All tensors that both sides have, in execution order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Samples compared.
    pub samples: usize,
    /// Tensors.
    pub layers: Vec<LayerError>,
    /// Tensors whose channels the artifact keeps multiplied; compared after division by what its meta section
    /// says.
    pub rescaled: usize,
    /// Tensors of the artifact without a float counterpart, such as conversions and fused parts.
    pub unmatched: usize,
}

impl Comparison {
    /// The first tensor, in execution order, below [`SUSPICIOUS_DB`].
    pub fn first_suspicious(&self) -> Option<&LayerError> {
        self.layers.iter().find(|l| l.sqnr_db < SUSPICIOUS_DB)
    }

    /// The tensors, the noisiest first.
    pub fn worst_first(&self) -> Vec<&LayerError> {
        let mut sorted: Vec<&LayerError> = self.layers.iter().collect();
        sorted.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db).then(a.step.cmp(&b.step)));
        sorted
    }
}

/// Why two models can't be compared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A side can't be made executable or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A sample can't be used.
    #[error("sample {index}: {message}")]
    Sample {
        /// Number of the sample.
        index: usize,
        /// What is wrong.
        message: String,
    },
    /// Tensors of one name have different lengths.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// The artifact was sealed without names.
    #[error("the artifact has no names to match layers by; quantize without --strip")]
    NoNames,
    /// The two share no tensor.
    #[error(
        "no tensor of the artifact has the name and shape of one in the model; was it made from this model?"
    )]
    NothingInCommon,
}

/// Runs both on every sample. `progress` is called with the number of samples done.
///
/// # Errors
///
/// [`CompareError`].
pub fn compare(
    graph: &Graph,
    model: &Model,
    samples: &dyn Samples,
    progress: &dyn Fn(usize),
) -> Result<Comparison, CompareError> {
    let mut float = Model::float(graph)?;
    let mut sealed = model.clone();
    let float_names = completed_tensors(&float.artifact()?);
    let names = completed_tensors(&sealed.artifact()?);
    if names.iter().flatten().next().is_none() {
        return Err(CompareError::NoNames);
    }
    let meta = sealed.artifact()?.meta().map(serde_json::from_str::<Meta>);
    let migrated = meta
        .and_then(Result::ok)
        .map(|m| m.migrated)
        .unwrap_or_default();
    let mut layers: Vec<Option<Accumulated>> = names.iter().map(|_| None).collect();
    for index in 0..samples.len() {
        let inputs = samples
            .sample(index)
            .map_err(|message| CompareError::Sample { index, message })?;
        let mut wanted: HashMap<&str, Vec<f32>> = names
            .iter()
            .flatten()
            .map(|n| (n.as_str(), Vec::new()))
            .collect();
        float.run_observed(&inputs, |o| {
            let name = float_names.get(o.index).and_then(Option::as_deref);
            if let Some(values) = name.and_then(|n| wanted.get_mut(n)) {
                values.resize(o.tensor.shape.elements(), 0.0);
                dequantize(&o.tensor, o.bytes, values);
            }
        })?;
        let mut got = Vec::new();
        let mut outcome = Ok(());
        sealed.run_observed(&inputs, |o| {
            let Some(name) = &names[o.index] else { return };
            let Some(expected) = wanted
                .get(name.as_str())
                .filter(|v| v.len() == o.tensor.shape.elements())
            else {
                return;
            };
            got.resize(expected.len(), 0.0);
            dequantize(&o.tensor, o.bytes, &mut got);
            let layer = layers[o.index].get_or_insert_with(|| {
                let factors = migrated.get(name).cloned().unwrap_or_default();
                Accumulated::new(o.step, o.tensor, factors)
            });
            let added = layer.add(expected, &mut got);
            outcome = std::mem::replace(&mut outcome, Ok(())).and(added);
        })?;
        outcome?;
        progress(index + 1);
    }
    let matched: Vec<LayerError> = layers
        .into_iter()
        .zip(&names)
        .enumerate()
        .filter_map(|(step, (layer, name))| Some(layer?.finish(step, name.as_deref()?)))
        .collect();
    if matched.is_empty() && !samples.is_empty() {
        return Err(CompareError::NothingInCommon);
    }
    let is_rescaled = |l: &&LayerError| migrated.contains_key(&l.name);
    let rescaled = matched.iter().filter(is_rescaled).count();
    let unmatched = names.iter().flatten().count() - matched.len();
    Ok(Comparison {
        samples: samples.len(),
        layers: matched,
        rescaled,
        unmatched,
    })
}

/// For each step the name of the tensor it completes.
///
/// A tensor written by several steps (a concatenation) is complete at the last one. A change of type
/// keeps the name of what it converts; only the first tensor of a name counts.
fn completed_tensors(artifact: &Artifact<'_>) -> Vec<Option<String>> {
    let outputs: Vec<_> = artifact.steps().map(|s| s.output()).collect();
    let last: HashMap<_, usize> = outputs.iter().enumerate().map(|(i, &id)| (id, i)).collect();
    let mut seen = std::collections::HashSet::new();
    let mut name_of = |i: usize, id| {
        let name = artifact.tensor_name(id).filter(|n| !n.is_empty())?;
        (last.get(&id) == Some(&i) && seen.insert(name)).then(|| name.to_owned())
    };
    outputs
        .iter()
        .enumerate()
        .map(|(i, &id)| name_of(i, id))
        .collect()
}

/// One tensor over the samples.
struct Accumulated {
    op: &'static str,
    tensor: Tensor,
    /// Values the codes can express (as stored), with half a step of rounding.
    extent: (f32, f32),
    /// What its channels are multiplied by; empty for nothing.
    factors: Vec<f32>,
    difference: Difference,
    clipped: u64,
}

impl Accumulated {
    fn new(step: Step, tensor: Tensor, mut factors: Vec<f32>) -> Self {
        use ampoule_runtime::DType::{I8, I16};
        let real = |code: f32| (code - tensor.zero_point as f32) * tensor.scale;
        let extent = match tensor.dtype {
            I8 => (real(-128.5), real(127.5)),
            I16 => (real(-32767.5), real(32767.5)),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        };
        if factors.len() != tensor.shape.last() {
            factors = vec![1.0];
        }
        Accumulated {
            op: step.name(),
            tensor,
            extent,
            factors,
            difference: Difference::default(),
            clipped: 0,
        }
    }

    fn add(&mut self, expected: &[f32], got: &mut [f32]) -> Result<(), MetricError> {
        let factors = || self.factors.iter().cycle();
        let stored = expected.iter().zip(factors()).map(|(e, f)| e * f);
        let outside = stored.filter(|&e| e < self.extent.0 || e > self.extent.1);
        self.clipped += outside.count() as u64;
        let channels = self.factors.iter().cycle();
        got.iter_mut().zip(channels).for_each(|(v, f)| *v /= f);
        self.difference.update(expected, got)
    }

    fn finish(self, step: usize, name: &str) -> LayerError {
        let d = self.difference;
        LayerError {
            name: name.to_owned(),
            op: self.op.to_owned(),
            step,
            dtype: self.tensor.dtype.name().to_owned(),
            shape: self.tensor.shape.dims().to_vec(),
            // JSON can't hold an infinity.
            sqnr_db: d.sqnr_db().clamp(-EQUAL_DB, EQUAL_DB),
            cosine: d.cosine(),
            max_abs: d.max_abs(),
            clipped: self.clipped as f64 / d.count().max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Op;
    use crate::pipeline::{QuantizeOptions, Silent, quantize};
    use ampoule_runtime::ops::unary::UnaryKind;

    fn graph() -> Graph {
        let mut g = Graph::default();
        let x = g.input("x", &[1, 8]);
        let w = g.constant_value(
            "w",
            &[4, 8],
            (0..32).map(|i| ((i * 7 % 11) as f32 - 5.0) / 5.0).collect(),
        );
        let b = g.constant_value("b", &[4], vec![0.1; 4]);
        let y = g
            .push(
                "fc",
                Op::Linear {
                    residual: false,
                    activation: None,
                },
                &[x, w, b],
            )
            .unwrap();
        let y = g.push("act", Op::Unary(UnaryKind::Sigmoid), &[y]).unwrap();
        g.output("y", y);
        g
    }

    fn samples() -> Vec<Vec<Vec<f32>>> {
        (0..6)
            .map(|s| {
                vec![
                    (0..8)
                        .map(|i| ((s * 8 + i) * 5 % 13) as f32 / 6.0 - 1.0)
                        .collect(),
                ]
            })
            .collect()
    }

    #[test]
    fn int8_is_near_and_float_is_equal() {
        let done = quantize(graph(), &samples(), &QuantizeOptions::default(), &Silent).unwrap();
        let model = Model::from_bytes(done.compiled.bytes).unwrap();
        let seen = std::cell::Cell::new(0);
        let int8 = compare(&done.graph, &model, &samples(), &|n| seen.set(n)).unwrap();
        assert_eq!((int8.samples, seen.get()), (6, 6));
        assert!(!int8.layers.is_empty());
        for layer in &int8.layers {
            assert!(
                (25.0..90.0).contains(&layer.sqnr_db) && layer.cosine > 0.99,
                "{layer:?}"
            );
            assert!(layer.clipped < 0.05);
        }
        assert!(int8.first_suspicious().is_none());
        let float = Model::float(&done.graph).unwrap();
        let same = compare(&done.graph, &float, &samples(), &|_| ()).unwrap();
        assert!(
            same.layers
                .iter()
                .all(|l| l.sqnr_db == EQUAL_DB && l.max_abs == 0.0)
        );
    }

    #[test]
    fn artifacts_without_names_or_of_another_model_are_refused() {
        let stripped = QuantizeOptions {
            strip_names: true,
            ..QuantizeOptions::default()
        };
        let done = quantize(graph(), &samples(), &stripped, &Silent).unwrap();
        let model = Model::from_bytes(done.compiled.bytes).unwrap();
        let refused = compare(&done.graph, &model, &samples(), &|_| ());
        assert!(matches!(refused, Err(CompareError::NoNames)));
        let mut other = Graph::default();
        let x = other.input("x", &[1, 8]);
        let y = other
            .push("other", Op::Unary(UnaryKind::Relu), &[x])
            .unwrap();
        other.output("z", y);
        let done = quantize(graph(), &samples(), &QuantizeOptions::default(), &Silent).unwrap();
        let model = Model::from_bytes(done.compiled.bytes).unwrap();
        assert!(matches!(
            compare(&other, &model, &samples(), &|_| ()),
            Err(CompareError::NothingInCommon)
        ));
    }
}
