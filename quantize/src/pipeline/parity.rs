//! Does a graph still compute what it did before a pass?

use std::cell::OnceCell;

use ampoule_runtime::MAX_RANK;

use super::QuantizeError;
use crate::graph::Graph;
use crate::lower::LowerError;
use crate::model::{Model, ModelError};

/// Largest difference allowed, relative to the largest output value: passes may only reorder sums.
const TOLERANCE: f64 = 1e-4;

/// Outputs of the graph before the passes, on one generated input.
///
/// A graph as it comes may have more dimensions than the runtime knows, which the first passes take away: then
/// the first graph that runs is the one compared with.
pub(super) struct Parity {
    inputs: Vec<(Vec<usize>, Vec<f32>)>,
    outputs: OnceCell<Vec<Vec<f32>>>,
}

impl Parity {
    pub(super) fn new(graph: &Graph) -> Result<Self, QuantizeError> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        let inputs: Vec<_> = graph
            .inputs
            .iter()
            .map(|port| {
                let shape = source_shape(graph, port);
                let count = shape.iter().product::<usize>();
                let limit = graph.index_limit(port.value) as f32;
                let values = (0..count).map(|_| match graph.value(port.value).is_index {
                    true => ((next() + 1.0) / 2.0 * limit).floor(),
                    false => next(),
                });
                (shape, values.collect())
            })
            .collect();
        let parity = Parity {
            inputs,
            outputs: OnceCell::new(),
        };
        if let Some(outputs) = parity.run(graph)? {
            let _ = parity.outputs.set(outputs);
        }
        Ok(parity)
    }

    pub(super) fn check(&self, pass: &str, graph: &Graph) -> Result<(), QuantizeError> {
        let Some(now) = self.run(graph)? else {
            return Ok(());
        };
        let Some(before) = self.outputs.get() else {
            let _ = self.outputs.set(now);
            return Ok(());
        };
        for ((port, before), after) in graph.outputs.iter().zip(before).zip(&now) {
            let largest = before
                .iter()
                .filter(|v| v.is_finite())
                .fold(1e-6f64, |m, &v| m.max(f64::from(v.abs())));
            let worst = before
                .iter()
                .zip(after)
                .fold(0f64, |m, (&a, &b)| m.max(distance(a, b)));
            let difference = worst / largest;
            if before.len() != after.len() || difference > TOLERANCE {
                return Err(QuantizeError::Parity {
                    pass: pass.to_owned(),
                    output: port.name.clone(),
                    difference,
                });
            }
        }
        Ok(())
    }

    /// Outputs; `None` while the graph has too many dimensions.
    fn run(&self, graph: &Graph) -> Result<Option<Vec<Vec<f32>>>, QuantizeError> {
        match run(graph, &self.inputs) {
            Err(QuantizeError::Model(ModelError::Lower(LowerError::Shape { shape, .. })))
                if shape.len() > MAX_RANK =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}

/// How far apart two values are: infinitely when one of them is no number.
fn distance(a: f32, b: f32) -> f64 {
    if a.to_bits() == b.to_bits() {
        return 0.0;
    }
    let distance = f64::from(a) - f64::from(b);
    if distance.is_nan() {
        f64::INFINITY
    } else {
        distance.abs()
    }
}

fn run(graph: &Graph, inputs: &[(Vec<usize>, Vec<f32>)]) -> Result<Vec<Vec<f32>>, QuantizeError> {
    let stored: Vec<Vec<f32>> = graph
        .inputs
        .iter()
        .zip(inputs)
        .map(|(port, (shape, values))| to_stored(values, shape, &port.layout))
        .collect();
    let outputs = Model::float(graph)?.run_f32(&stored)?;
    Ok(graph
        .outputs
        .iter()
        .zip(outputs)
        .map(|(port, values)| to_source(&values, graph.shape(port.value), &port.layout))
        .collect())
}

/// The shape of a port in the source's layout.
pub fn source_shape(graph: &Graph, port: &crate::graph::Port) -> Vec<usize> {
    let stored = graph.shape(port.value);
    port.layout.iter().map(|&d| stored[d]).collect()
}

/// Values in the source's layout, moved to the stored one: source dimension `i` is stored dimension
/// `layout[i]`.
pub fn to_stored(values: &[f32], source: &[usize], layout: &[usize]) -> Vec<f32> {
    let mut stored = vec![0usize; source.len()];
    layout.iter().zip(source).for_each(|(&d, &n)| stored[d] = n);
    let strides = strides(&stored);
    let moved: Vec<usize> = layout.iter().map(|&d| strides[d]).collect();
    let mut out = vec![0.0; values.len()];
    for_each_index(source, &moved, |i, at| out[at] = values[i]);
    out
}

/// The inverse of [`to_stored`].
pub fn to_source(values: &[f32], stored: &[usize], layout: &[usize]) -> Vec<f32> {
    let source: Vec<usize> = layout.iter().map(|&d| stored[d]).collect();
    let strides = strides(stored);
    let moved: Vec<usize> = layout.iter().map(|&d| strides[d]).collect();
    let mut out = vec![0.0; values.len()];
    for_each_index(&source, &moved, |i, at| out[i] = values[at]);
    out
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        out[d] = out[d + 1] * shape[d + 1];
    }
    out
}

/// Calls `f(i, offset)` for the `i`-th index of `shape` in row-major order.
fn for_each_index(shape: &[usize], strides: &[usize], mut f: impl FnMut(usize, usize)) {
    let mut index = vec![0; shape.len()];
    for i in 0..shape.iter().product() {
        f(i, index.iter().zip(strides).map(|(a, b)| a * b).sum());
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_a_difference() {
        assert_eq!(distance(f32::NAN, f32::NAN), 0.0);
        assert_eq!(distance(1.0, 1.5), 0.5);
        for (a, b) in [(f32::NAN, 0.0), (0.0, f32::NAN), (f32::INFINITY, 1.0)] {
            assert_eq!(distance(a, b), f64::INFINITY);
        }
    }

    #[test]
    fn layouts_go_there_and_back() {
        let nchw = [1, 2, 1, 3];
        let values: Vec<f32> = (0..6u8).map(f32::from).collect();
        let stored = to_stored(&values, &nchw, &[0, 3, 1, 2]);
        assert_eq!(stored, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(to_source(&stored, &[1, 1, 3, 2], &[0, 3, 1, 2]), values);
    }
}
