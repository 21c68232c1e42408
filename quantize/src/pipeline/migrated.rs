//! What migration multiplied the channels of tensors by, found by running the graph before and after it.

use std::collections::{BTreeMap, HashMap};

use ampoule_runtime::dequantize;

use crate::graph::Graph;
use crate::model::{Model, ModelError};

/// Factors per channel (the last axis), by tensor.
pub(super) type Factors = BTreeMap<String, Vec<f32>>;

/// Factors nearer to 1 than this are rounding.
const LEAST: f64 = 1e-3;

/// The tensors whose channels differ between two graphs that compute the same, and by what. A channel of zeros
/// counts as unchanged. `input` is one sample.
pub(super) fn factors(
    before: &Graph,
    after: &Graph,
    input: &[Vec<f32>],
) -> Result<Factors, ModelError> {
    let (before, after) = (tensors(before, input)?, tensors(after, input)?);
    let mut all = Factors::new();
    for (name, (channels, moved)) in after {
        let Some((_, plain)) = before
            .get(&name)
            .filter(|(c, v)| (*c, v.len()) == (channels, moved.len()))
        else {
            continue;
        };
        let ratios: Vec<f64> = (0..channels)
            .map(|c| ratio(plain, &moved, channels, c))
            .collect();
        if ratios.iter().any(|r| (r - 1.0).abs() > LEAST) {
            all.insert(name, ratios.into_iter().map(rounded).collect());
        }
    }
    Ok(all)
}

/// Every tensor's number of channels and values.
fn tensors(
    graph: &Graph,
    input: &[Vec<f32>],
) -> Result<HashMap<String, (usize, Vec<f32>)>, ModelError> {
    let mut model = Model::float(graph)?;
    let names: Vec<Option<String>> = {
        let artifact = model.artifact()?;
        let name = |id| artifact.tensor_name(id).map(str::to_owned);
        artifact.steps().map(|s| name(s.output())).collect()
    };
    let mut all = HashMap::new();
    model.run_observed(input, |o| {
        if let Some(name) = names.get(o.index).cloned().flatten() {
            let mut values = vec![0.0; o.tensor.shape.elements()];
            dequantize(&o.tensor, o.bytes, &mut values);
            all.insert(name, (o.tensor.shape.last(), values));
        }
    })?;
    Ok(all)
}

/// What one channel is multiplied by, by least squares.
fn ratio(plain: &[f32], moved: &[f32], channels: usize, channel: usize) -> f64 {
    let pairs = plain.iter().zip(moved).skip(channel).step_by(channels);
    let (both, own) = pairs.fold((0.0, 0.0), |(both, own), (&p, &m)| {
        let (p, m) = (f64::from(p), f64::from(m));
        (both + p * m, own + p * p)
    });
    let ratio = both / own;
    if ratio.is_finite() && ratio > 0.0 {
        ratio
    } else {
        1.0
    }
}

/// Five digits, which are fewer bytes in the file.
fn rounded(ratio: f64) -> f32 {
    let digit = 10f64.powi(ratio.log10().floor() as i32 - 4);
    ((ratio / digit).round() * digit) as f32
}
