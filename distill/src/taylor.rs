//! Importance of channels by gradients, for pruning.
//!
//! A channel that goes is one whose factor falls from 1 to 0. To first order the loss then changes by its gradient with
//! respect to that factor, which is the sum of activation times gradient, and also that of weight times gradient over
//! the weights that read the channel. Importance is the mean of its square over the samples: Molchanov et al.,
//! "Importance Estimation for Neural Network Pruning", 2019, with gates in front of the layers that read.

use std::collections::HashMap;

use ampoule_distill_kernels::engine::{Engine, EngineError, Mode};
use ampoule_distill_kernels::graph::{Graph as Network, ParameterId};
use ampoule_quantize::graph::{Graph, ValueId};
use ampoule_quantize::observe::{ObserveError, Samples};
use ampoule_quantize::prune::{Coupling, Importance, sums_of_terms};
use thiserror::Error;

use crate::import::{self, StudentError};
use crate::loss::{LossError, label_cross_entropy};

/// Random directions per sample without a label.
const DIRECTIONS: u64 = 4;

/// What gradients are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The cross-entropy with labels, which all samples have.
    Labels,
    /// The squared change of the outputs. The difference from the network's own answers has no gradient where it begins, so
    /// this is its second order: with random signs for the outputs, the mean square of the gradient of their sum is
    /// the sum of the squares of all gradients (Hutchinson's estimate of the Gauss-Newton term).
    Outputs,
}

/// Why there are no gradients.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TaylorError {
    /// The training engine does not have an operator of the graph.
    #[error("no gradients: {0}")]
    Student(#[from] StudentError),
    /// Samples that are missing or can't be used.
    #[error(transparent)]
    Samples(#[from] ObserveError),
    /// Samples that are not the network's inputs.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A label that is no class of the network.
    #[error(transparent)]
    Loss(#[from] LossError),
}

/// Importance of every channel of `coupling` to the loss, of a graph before fusion, and what the loss is. Samples run one
/// by one; `progress` is told how many have.
///
/// # Errors
///
/// [`TaylorError`], with the operator's name when the graph can't be trained.
pub fn taylor(
    graph: &Graph,
    coupling: &Coupling,
    samples: &dyn Samples,
    progress: &dyn Fn(usize),
) -> Result<(Importance, Objective), TaylorError> {
    if samples.is_empty() {
        return Err(ObserveError::NoSamples.into());
    }
    let (student, weights) = import::traced(graph, "a graph".to_owned())?;
    let network = student.network.graph().clone();
    let is_classifier = match network.outputs() {
        [output] => network.map(*output).pixels() == 1,
        _ => false,
    };
    let has_labels = (0..samples.len()).all(|i| samples.label(i).is_some());
    let objective = match is_classifier && has_labels {
        true => Objective::Labels,
        false => Objective::Outputs,
    };
    let mut pass = Pass {
        gradients: student.weights.values().to_vec(),
        parameters: student.weights.into_values(),
        engine: Engine::new(network, 1)?,
        weights,
    };
    let mut importance = Importance::new();
    let mut add = |terms: &HashMap<ValueId, Vec<f32>>, share: f64| {
        for (channel, sum) in sums_of_terms(graph, coupling, terms) {
            *importance.entry(channel).or_default() += share * sum * sum;
        }
    };
    for index in 0..samples.len() {
        let sample = samples.sample(index);
        let inputs = sample.map_err(|message| ObserveError::Sample { index, message })?;
        pass.forward(&inputs)?;
        match samples
            .label(index)
            .filter(|_| objective == Objective::Labels)
        {
            Some(label) => {
                let mut gradient = vec![0.0; pass.engine.output(0).len()];
                label_cross_entropy(pass.engine.output(0), label, 0.0, &mut gradient)?;
                add(&pass.backward(&[gradient])?, 1.0);
            }
            None => {
                for direction in 0..DIRECTIONS {
                    let signs = pass.signs(index as u64 * DIRECTIONS + direction);
                    add(&pass.backward(&signs)?, 1.0 / DIRECTIONS as f64);
                }
            }
        }
        progress(index + 1);
    }
    for value in importance.values_mut() {
        *value /= samples.len() as f64;
    }
    Ok((importance, objective))
}

/// A network between forward and backward passes.
struct Pass {
    engine: Engine,
    parameters: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    weights: Vec<(ValueId, ParameterId)>,
}

impl Pass {
    fn forward(&mut self, inputs: &[Vec<f32>]) -> Result<(), EngineError> {
        let inputs: Vec<&[f32]> = inputs.iter().map(|v| &v[..]).collect();
        self.engine
            .forward(&mut self.parameters, &inputs, 1, Mode::EVAL)
    }

    /// Weight times gradient of every layer, in the source's layout.
    fn backward(
        &mut self,
        outputs: &[Vec<f32>],
    ) -> Result<HashMap<ValueId, Vec<f32>>, EngineError> {
        let outputs: Vec<&[f32]> = outputs.iter().map(|v| &v[..]).collect();
        for gradient in &mut self.gradients {
            gradient.fill(0.0);
        }
        self.engine
            .backward(&self.parameters, &outputs, &mut self.gradients)?;
        let mut all: HashMap<ValueId, Vec<f32>> = HashMap::new();
        for &(value, id) in &self.weights {
            let (weights, gradients) = (&self.parameters[id.0], &self.gradients[id.0]);
            let terms: Vec<f32> = weights.iter().zip(gradients).map(|(w, g)| w * g).collect();
            let terms = channels_last(&terms, &self.engine.graph().parameters()[id.0].shape);
            match all.get_mut(&value) {
                Some(known) => known.iter_mut().zip(terms).for_each(|(k, t)| *k += t),
                None => drop(all.insert(value, terms)),
            }
        }
        Ok(all)
    }

    /// Ones of either sign for all outputs.
    fn signs(&self, seed: u64) -> Vec<Vec<f32>> {
        let mut state = seed;
        let network: &Network = self.engine.graph();
        let mut signs = |len: usize| (0..len).map(|_| sign(&mut state)).collect();
        let outputs = network.outputs().iter();
        outputs.map(|&o| signs(network.map(o).len())).collect()
    }
}

/// The next sign of a sequence (SplitMix64).
fn sign(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    match (z ^ (z >> 31)) >> 63 {
        0 => 1.0,
        _ => -1.0,
    }
}

/// `[O, I, height, width]` to `[O, height, width, I]`.
fn channels_last(from: &[f32], shape: &[usize]) -> Vec<f32> {
    let [_, inputs, height, width] = *shape else {
        return from.to_vec();
    };
    let taps = height * width;
    let size = (inputs * taps).max(1);
    let at = |i: usize| i / size * size + i % inputs * taps + i % size / inputs;
    (0..from.len()).map(|i| from[at(i)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ampoule_quantize::graph::Op;
    use ampoule_quantize::passes;
    use ampoule_quantize::prune::GroupKind;

    fn mini() -> Graph {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/fixtures/minis/tinyvit-mini.onnx"
        );
        let mut graph = ampoule_quantize::import::onnx(std::path::Path::new(path))
            .unwrap()
            .graph;
        passes::rewrite(&mut graph).unwrap();
        graph
    }

    struct One(Vec<f32>, Option<usize>);

    impl Samples for One {
        fn len(&self) -> usize {
            1
        }

        fn sample(&self, _: usize) -> Result<Vec<Vec<f32>>, String> {
            Ok(vec![self.0.clone()])
        }

        fn label(&self, _: usize) -> Option<usize> {
            self.1
        }
    }

    fn picture() -> Vec<f32> {
        let value = |i: usize| ((i * 37 % 101) as f32 / 50.0 - 1.0) * (i as f32 * 0.001).sin();
        (0..64 * 64 * 3).map(value).collect()
    }

    /// The graph with a factor on all weights that read a channel.
    fn gated(graph: &Graph, coupling: &Coupling, channel: usize, factor: f32) -> Graph {
        let mut out = graph.clone();
        for node in &graph.nodes {
            let (Op::Conv { groups: 1, .. } | Op::Linear { .. }) = node.op else {
                continue;
            };
            let x = node.inputs[0];
            let indices = coupling.of(x, graph.shape(x).len() - 1);
            let mut data = graph.constant(node.inputs[1]).unwrap().to_vec();
            for (i, v) in data.iter_mut().enumerate() {
                if indices[i % indices.len()].contains(&channel) {
                    *v *= factor;
                }
            }
            out.value_mut(node.inputs[1]).data = Some(data.into());
        }
        out
    }

    fn logits(graph: Graph, picture: &[f32]) -> Vec<f64> {
        let (student, _) = import::traced(&graph, String::new()).unwrap();
        let mut engine = Engine::new(student.network.graph().clone(), 1).unwrap();
        let mut parameters = student.weights.into_values();
        let mode = Mode::EVAL;
        engine
            .forward(&mut parameters, &[picture], 1, mode)
            .unwrap();
        engine.output(0).iter().map(|&v| f64::from(v)).collect()
    }

    /// Change of a function of the logits per change of a channel's factor, by a difference.
    fn slope(graph: &Graph, coupling: &Coupling, channel: usize, f: impl Fn(&[f64]) -> f64) -> f64 {
        let at = |factor| f(&logits(gated(graph, coupling, channel, factor), &picture()));
        (at(1.01) - at(0.99)) / 0.02
    }

    fn some_channels(coupling: &Coupling) -> Vec<usize> {
        let groups = coupling
            .groups
            .iter()
            .filter(|g| g.kind != GroupKind::HeadChannels);
        groups.map(|g| g.channels[g.channels.len() / 2]).collect()
    }

    #[test]
    fn squares_of_the_losss_slope_with_labels() {
        let (graph, label) = (mini(), 3);
        let coupling = Coupling::new(&graph);
        let sample = One(picture(), Some(label));
        let (found, objective) = taylor(&graph, &coupling, &sample, &|_| {}).unwrap();
        assert_eq!(objective, Objective::Labels);
        let loss = |z: &[f64]| z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[label];
        for channel in some_channels(&coupling) {
            let expected = slope(&graph, &coupling, channel, loss).powi(2);
            let got = found[&channel];
            let close = (got - expected).abs() < 0.05 * expected + 1e-5;
            assert!(close, "channel {channel}: {got:e}, expected {expected:e}");
        }
    }

    #[test]
    fn squares_of_the_outputs_slopes_without() {
        let graph = mini();
        let coupling = Coupling::new(&graph);
        let sample = One(picture(), None);
        let (found, objective) = taylor(&graph, &coupling, &sample, &|_| {}).unwrap();
        assert_eq!(objective, Objective::Outputs);
        // With the very signs that were drawn.
        for channel in some_channels(&coupling) {
            let mut expected = 0.0;
            for direction in 0..DIRECTIONS {
                let mut state = direction;
                let signs: Vec<f64> = (0..9).map(|_| f64::from(sign(&mut state))).collect();
                let sum = |z: &[f64]| z.iter().zip(&signs).map(|(z, s)| z * s).sum();
                expected += slope(&graph, &coupling, channel, sum).powi(2) / DIRECTIONS as f64;
            }
            let got = found[&channel];
            let close = (got - expected).abs() < 0.05 * expected + 1e-3;
            assert!(close, "channel {channel}: {got:e}, expected {expected:e}");
        }
    }
}
