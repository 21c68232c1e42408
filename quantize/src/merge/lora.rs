//! Folding low-rank adapters into weights.

use std::collections::BTreeMap;

use super::adapter::{Adapter, LowRank};
use super::error::MergeError;
use super::file::OnnxFile;
use super::layers::{find, find_mapped, layers};

/// What was merged into a weight.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Merged {
    /// The layer's name in the adapter.
    pub layer: String,
    /// Its initialiser in the file.
    pub weight: String,
    /// The adapter's rank there.
    pub rank: usize,
    /// Its alpha.
    pub alpha: f32,
    /// Root of the sum of squares of the change, over that of the weight before.
    pub change: f64,
}

/// Adds `scale · B · A` to the weights of an adapter's layers, as `W' = W + (α/r)·B·A`. Layers are found by
/// their names in the network's source, which exporters leave in initialisers, nodes or metadata; `map` has the
/// initialiser or node of layers where that is not so.
///
/// # Errors
///
/// [`MergeError`] for layers that are not in the file, several weights that a name fits, weights that other layers
/// share, shapes that do not fit, and results that are not finite. The file is then only in part merged.
pub fn lora(
    file: &mut OnnxFile,
    adapter: &Adapter,
    map: &BTreeMap<String, String>,
) -> Result<Vec<Merged>, MergeError> {
    let layers = layers(file);
    let mut done: BTreeMap<usize, &str> = BTreeMap::new();
    let mut out = Vec::new();
    for (name, low) in &adapter.layers {
        let layer = match map.get(name) {
            Some(target) => find_mapped(file, &layers, name, target)?,
            None => find(file, &layers, name)?,
        };
        let weight = file.initializers()[layer.weight].name.clone();
        if let Some(first) = done.insert(layer.weight, name) {
            return Err(MergeError::Twice {
                first: first.to_owned(),
                second: name.clone(),
                weight,
            });
        }
        let others = layers.iter().filter(|l| l.weight == layer.weight);
        if let Some(other) = others.into_iter().find(|l| l.node != layer.node) {
            return Err(MergeError::Shared {
                layer: name.clone(),
                weight,
                other: other.node.clone(),
            });
        }
        let (shape, mut values) = file.values(layer.weight)?;
        let before = norm(values.iter().map(|&v| f64::from(v)));
        let change =
            product(low, &shape, layer.is_transposed).ok_or_else(|| MergeError::Shape {
                layer: name.clone(),
                b: low.b_shape.clone(),
                a: low.a_shape.clone(),
                weight: weight.clone(),
                shape: shape.clone(),
            })?;
        for (v, d) in values.iter_mut().zip(&change) {
            *v = (f64::from(*v) + d) as f32;
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(MergeError::NotFinite {
                what: format!("the merged weight of layer `{name}`"),
            });
        }
        out.push(Merged {
            layer: name.clone(),
            weight,
            rank: low.rank(),
            alpha: low.alpha,
            change: norm(change.iter().copied()) / before.max(f64::MIN_POSITIVE),
        });
        file.replace(layer.weight, values);
    }
    Ok(out)
}

/// `scale · B · A` in the order of a weight; `None` where the shapes do not fit.
fn product(low: &LowRank, shape: &[usize], is_transposed: bool) -> Option<Vec<f64>> {
    let (&rank, a_rest) = low.a_shape.split_first()?;
    let (&outputs, b_rest) = low.b_shape.split_first()?;
    let inputs: usize = a_rest.iter().product();
    let trimmed = |dims: &[usize]| -> Vec<usize> {
        // 1×1 convolutions and linear layers are the same.
        let end = dims.len() - dims.iter().rev().take_while(|&&d| d == 1).count();
        dims[..end.max(1).min(dims.len())].to_vec()
    };
    let mut full = vec![outputs];
    full.extend(a_rest);
    let mut expected = shape.to_vec();
    if is_transposed {
        expected.reverse();
    }
    let fits = trimmed(b_rest) == [rank] && rank > 0 && trimmed(&full) == trimmed(&expected);
    if !fits || inputs == 0 {
        return None;
    }
    let scale = f64::from(low.scale);
    let mut out = vec![0.0; outputs * inputs];
    for (o, b) in low.b.chunks_exact(rank).enumerate() {
        for (i, place) in (0..inputs).map(|i| match is_transposed {
            true => (i, i * outputs + o),
            false => (i, o * inputs + i),
        }) {
            let a = low.a[i..].iter().step_by(inputs);
            let sum: f64 = b
                .iter()
                .zip(a)
                .map(|(&b, &a)| f64::from(b) * f64::from(a))
                .sum();
            out[place] = scale * sum;
        }
    }
    Some(out)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}
