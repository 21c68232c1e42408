//! How much a graph relies on each channel.

use std::collections::{HashMap, HashSet};

use super::Coupling;
use crate::graph::{Graph, Op, ValueId};
use crate::lower::LowerOptions;
use crate::model::{Model, ModelError, compile};
use crate::observe::{ObserveError, Samples};
use crate::plan::PlanOptions;
use crate::seal::Extras;

/// What importance is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Criterion {
    /// Squares of the weights that read a channel, times the mean square of what they read: the energy that its
    /// loss takes from the sums it is part of. Needs samples. After "A Simple and Effective Pruning
    /// Approach for Large Language Models" (Wanda; Sun et al., 2023), squared and summed over channels.
    #[default]
    Energy,
    /// Squares of the weights that read a channel (Li et al., "Pruning Filters for Efficient ConvNets", 2016,
    /// with L2).
    Magnitude,
}

/// Importance per channel, by its number in the coupling. Only comparisons count, so that any table will do; one from
/// gradients comes from the training engine. By [`importance()`] it is the sum, over all products that read a channel,
/// of its share in what is read. A group's channels thus sum to the number of products that read the group, and those
/// of different groups compare.
pub type Importance = HashMap<usize, f64>;

/// Importance of every channel of `coupling`, of a graph before fusion. `samples` are needed for
/// [`Criterion::Energy`].
///
/// # Errors
///
/// [`ObserveError`] when there are no samples, or one can't be used.
pub fn importance(
    graph: &Graph,
    coupling: &Coupling,
    criterion: Criterion,
    samples: &dyn Samples,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Importance, ObserveError> {
    let readings = readings(graph);
    let energies = match criterion {
        Criterion::Magnitude => HashMap::new(),
        Criterion::Energy => energies(graph, &readings, samples, progress)?,
    };
    let mut importance = Importance::new();
    for reading in &readings {
        let mut shares = reading.weights(graph);
        for (value, axis) in &reading.operands {
            if let Some(energy) = energies.get(&(*value, *axis)) {
                shares.iter_mut().zip(energy).for_each(|(s, e)| *s *= e);
            }
        }
        let total: f64 = shares.iter().sum();
        let (value, axis) = reading.operands[0];
        for (share, channels) in shares.iter().zip(coupling.of(value, axis)) {
            for &channel in channels {
                *importance.entry(channel).or_default() += share / total.max(f64::MIN_POSITIVE);
            }
        }
    }
    Ok(importance)
}

/// Sums per channel of `terms` over the weights that read it; for a channel that no weights read (of queries and keys,
/// say) over those that make it. `terms` has one number per element of the weights that are given, in the graph's
/// layout. With weight times gradient as terms, the sum is what the loss changes by, to first order, when the channel
/// grows by its own size: all readings of one channel together are a gate at it.
pub fn sums_of_terms(
    graph: &Graph,
    coupling: &Coupling,
    terms: &HashMap<ValueId, Vec<f32>>,
) -> HashMap<usize, f64> {
    let mut sums: HashMap<usize, f64> = HashMap::new();
    let mut seen = HashSet::new();
    for reading in readings(graph) {
        let Some((weights, terms)) = reading.weights.and_then(|w| Some((w, terms.get(&w)?))) else {
            continue;
        };
        if !seen.insert(weights) {
            continue;
        }
        let (value, axis) = reading.operands[0];
        let indices = coupling.of(value, axis);
        for (i, &term) in terms.iter().enumerate() {
            for &channel in &indices[i % indices.len()] {
                *sums.entry(channel).or_default() += f64::from(term);
            }
        }
    }
    let read: HashSet<usize> = sums.keys().copied().collect();
    for node in &graph.nodes {
        let weights = node.inputs.get(1);
        let (Op::Conv { .. } | Op::Linear { .. }, Some(terms)) =
            (&node.op, weights.and_then(|w| terms.get(w)))
        else {
            continue;
        };
        let indices = coupling.of(node.output, graph.shape(node.output).len() - 1);
        for (terms, channels) in terms.chunks_exact(terms.len() / indices.len()).zip(indices) {
            for channel in channels.iter().filter(|c| !read.contains(c)) {
                let sum: f64 = terms.iter().map(|&t| f64::from(t)).sum();
                *sums.entry(*channel).or_default() += sum;
            }
        }
    }
    sums
}

/// A sum over channels: a convolution, a linear layer, a product of two activations.
struct Reading {
    /// What is read along which axis; all have the same indices there.
    operands: Vec<(ValueId, usize)>,
    /// Constant weights `[O, .., I]`.
    weights: Option<ValueId>,
}

fn readings(graph: &Graph) -> Vec<Reading> {
    let one = |node: &crate::graph::Node| {
        let last = |v: ValueId| (v, graph.shape(v).len() - 1);
        let x = *node.inputs.first()?;
        match node.op {
            Op::Conv { groups: 1, .. } | Op::Linear { .. } => Some(Reading {
                operands: vec![last(x)],
                weights: Some(node.inputs[1]),
            }),
            Op::MatMul => {
                let b = node.inputs[1];
                Some(Reading {
                    operands: vec![last(x), (b, graph.shape(b).len() - 2)],
                    weights: None,
                })
            }
            _ => None,
        }
    };
    graph.nodes.iter().filter_map(one).collect()
}

impl Reading {
    /// Per index the sum of the squares of the weights that read it; 1 without weights.
    fn weights(&self, graph: &Graph) -> Vec<f64> {
        let (value, axis) = self.operands[0];
        let count = graph.shape(value)[axis];
        let mut sums = vec![0.0; count];
        match self.weights.and_then(|w| graph.constant(w)) {
            Some(weights) => {
                for row in weights.chunks_exact(count) {
                    let squares = row.iter().map(|&w| f64::from(w) * f64::from(w));
                    sums.iter_mut().zip(squares).for_each(|(s, w)| *s += w);
                }
            }
            None => sums.fill(1.0),
        }
        sums
    }
}

type Energies = HashMap<(ValueId, usize), Vec<f64>>;

/// Mean square of what is read, per index of the axis.
fn energies(
    graph: &Graph,
    readings: &[Reading],
    samples: &dyn Samples,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Energies, ObserveError> {
    if samples.is_empty() {
        return Err(ObserveError::NoSamples);
    }
    let mut energies = Energies::new();
    for &(value, axis) in readings.iter().flat_map(|r| &r.operands) {
        let constant = graph.constant(value);
        let mut sums = vec![0.0; graph.shape(value)[axis]];
        if let Some(data) = constant {
            add(&mut sums, data, graph.shape(value), axis);
        }
        energies.insert((value, axis), sums);
    }
    let compiled = compile(
        graph,
        None,
        &LowerOptions::default(),
        &PlanOptions::default(),
        &Extras::default(),
    )?;
    let mut model = Model::from_bytes(compiled.bytes)?;
    let program = compiled.program;
    let mut values = Vec::new();
    for index in 0..samples.len() {
        let inputs = samples
            .sample(index)
            .map_err(|message| ObserveError::Sample { index, message })?;
        for (port, data) in graph.inputs.iter().zip(&inputs) {
            for (_, axis, sums) in of(&mut energies, port.value) {
                add(sums, data, graph.shape(port.value), axis);
            }
        }
        let mut session = model.session(ampoule_runtime::Isa::best())?;
        for (i, values) in inputs.iter().enumerate() {
            session.write_f32(i, values).map_err(ModelError::Runtime)?;
        }
        let seen = session.run_observed(|o| {
            let Some((value, _)) = program.tensor(o.output).origin else {
                return;
            };
            values.clear();
            let words = o.bytes.as_chunks::<4>().0;
            values.extend(words.iter().map(|w| f32::from_le_bytes(*w)));
            for (_, axis, sums) in of(&mut energies, value) {
                add(sums, &values, graph.shape(value), axis);
            }
        });
        seen.map_err(ModelError::Runtime)?;
        progress(index + 1);
    }
    Ok(energies)
}

fn of(
    energies: &mut Energies,
    value: ValueId,
) -> impl Iterator<Item = (ValueId, usize, &mut Vec<f64>)> {
    let all = energies.iter_mut().filter(move |((v, _), _)| *v == value);
    all.map(|(&(v, axis), sums)| (v, axis, sums))
}

/// Adds the squares of a tensor's elements per index of an axis.
fn add(sums: &mut [f64], data: &[f32], shape: &[usize], axis: usize) {
    let inner: usize = shape[axis + 1..].iter().product();
    for (i, block) in data.chunks_exact(inner).enumerate() {
        let squares = block.iter().map(|&v| f64::from(v) * f64::from(v));
        let at = i % shape[axis];
        sums[at] += squares.sum::<f64>();
    }
}
