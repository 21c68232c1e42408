//! Which layers lose accuracy in int8, and the smallest set that must be wider.

use ampoule_runtime::Isa;
use serde::{Deserialize, Serialize};

use super::{Progress, QuantizeError};
use crate::graph::{Graph, Op, ValueId};
use crate::lower::{LowerOptions, has_i16_kernel};
use crate::model::{Model, ModelError, compile, outputs_f32};
use crate::observe::{ObserveError, Samples};
use crate::plan::PlanOptions;
use crate::scheme::{Precision, Scheme};
use crate::seal::Extras;

/// Samples used to rank layers; accuracy itself is measured on all.
const RANKING_SAMPLES: usize = 16;

/// Most layers among which [`Search::narrow`] looks for ones that need not be wide.
const MOST_NARROWED: usize = 32;

/// How close a model is to the float one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Share of samples with the float model's top-1 class, in percent.
    pub agreement: f64,
    /// Loss of top-1 accuracy in points, when the samples have labels.
    pub drop: Option<f64>,
    /// Signal-to-noise ratio of the outputs, in decibels.
    pub sqnr_db: f64,
    /// Smallest cosine of the angle to the float model's output, over the samples.
    pub min_cosine: f64,
}

impl Quality {
    /// The loss that `--max-drop` limits.
    pub fn loss(&self) -> f64 {
        self.drop.unwrap_or(100.0 - self.agreement)
    }
}

/// What a model must keep.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Limits {
    /// Largest [`Quality::loss`].
    pub max_drop: Option<f64>,
    /// Smallest [`Quality::min_cosine`].
    pub min_cosine: Option<f64>,
}

impl Limits {
    pub fn any(&self) -> bool {
        self.max_drop.is_some() || self.min_cosine.is_some()
    }

    /// The error that says which limit `q` misses.
    fn check(&self, q: &Quality) -> Result<(), QuantizeError> {
        let (reached, cosine) = (q.loss(), q.min_cosine);
        match (self.max_drop, self.min_cosine) {
            (Some(wanted), _) if reached > wanted => {
                Err(QuantizeError::MaxDrop { reached, wanted })
            }
            (_, Some(wanted)) if cosine.is_nan() || cosine < wanted => {
                Err(QuantizeError::MinCosine {
                    reached: cosine,
                    wanted,
                })
            }
            _ => Ok(()),
        }
    }

    fn met(&self, q: &Quality) -> bool {
        self.check(q).is_ok()
    }

    /// As the options that were given.
    fn options(&self) -> String {
        let drop = self.max_drop.map(|v| format!("--max-drop {v}"));
        let cosine = self.min_cosine.map(|v| format!("--min-cosine {v}"));
        let given: Vec<String> = [drop, cosine].into_iter().flatten().collect();
        given.join(" ")
    }
}

/// What one layer does to the outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerSensitivity {
    /// Node, or model input.
    pub node: String,
    /// Operator, or `Input`.
    pub op: String,
    /// Signal-to-noise ratio of the outputs when this layer alone is int8, in decibels.
    pub alone_db: f64,
    /// Type it got in the end.
    pub precision: String,
}

/// Outcome of the search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensitivityReport {
    /// Everything in int8.
    pub before: Quality,
    /// With the layers below widened.
    pub after: Quality,
    /// Layers, those that are widened first come first; empty when int8 met the limits at once.
    pub layers: Vec<LayerSensitivity>,
}

/// Widens the layers that add most noise for their cost until the limits are met.
///
/// The noise of a layer is measured with it alone in int8, so that layers are told apart even where all of
/// them together drown the signal. The shortest sufficient start of that ranking is found by doubling and
/// bisection; then those are put back that turn out not to be needed.
pub(super) fn widen(
    graph: &Graph,
    scheme: &mut Scheme,
    samples: &dyn Samples,
    limits: Limits,
    lowering: &LowerOptions,
    progress: &dyn Progress,
) -> Result<SensitivityReport, QuantizeError> {
    let mut search = Search {
        graph,
        samples,
        limits,
        lowering,
        oracle: Oracle::new(graph, samples)?,
        float: false,
    };
    let before = search.measure(scheme, samples.len())?;
    if limits.met(&before) {
        return Ok(SensitivityReport {
            before,
            after: before,
            layers: Vec::new(),
        });
    }
    let ranked = search.rank(scheme, progress)?;
    let order: Vec<Layer> = ranked.iter().map(|r| r.0).collect();
    let start = match search.shortest_start(scheme, &order) {
        // Weights of 8 bits can be the limit: float has others.
        Err(QuantizeError::MaxDrop { .. } | QuantizeError::MinCosine { .. }) => {
            search.float = true;
            search.shortest_start(scheme, &order)?
        }
        other => other?,
    };
    let wide = search.narrow(scheme, &order[..start], progress)?;
    for (layer, alone_db) in ranked.iter().filter(|r| wide.contains(&r.0)) {
        let reason = format!(
            "alone in int8 it leaves {alone_db:.1} dB; {}",
            limits.options()
        );
        search.set_wide(scheme, *layer, &reason);
    }
    search.follow(scheme);
    let after = search.measure(scheme, samples.len())?;
    let layers = ranked
        .into_iter()
        .map(|(layer, alone_db)| search.entry(scheme, layer, alone_db))
        .collect();
    Ok(SensitivityReport {
        before,
        after,
        layers,
    })
}

/// What can be widened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Input(ValueId),
    Node(usize),
}

struct Search<'a> {
    graph: &'a Graph,
    samples: &'a dyn Samples,
    limits: Limits,
    lowering: &'a LowerOptions,
    oracle: Oracle,
    /// Widen to f32 even where there is an i16 kernel.
    float: bool,
}

impl Search<'_> {
    /// Candidates with their SQNR alone in int8, those with most noise for their cost first.
    fn rank(
        &self,
        scheme: &Scheme,
        progress: &dyn Progress,
    ) -> Result<Vec<(Layer, f64)>, QuantizeError> {
        let graph = self.graph;
        let inputs = graph.inputs.iter().map(|p| p.value);
        let inputs = inputs
            .filter(|&v| !graph.value(v).is_index)
            .map(Layer::Input);
        let nodes = (0..graph.nodes.len()).filter(|&i| is_candidate(&graph.nodes[i].op));
        let candidates: Vec<Layer> = inputs.chain(nodes.map(Layer::Node)).collect();
        // Every layer costs its MACs and, so that few are widened, an average layer's.
        let average = graph.macs() as f64 / candidates.len().max(1) as f64;
        let cost = |layer: &Layer| match layer {
            Layer::Input(_) => average,
            Layer::Node(i) => average + graph.node_macs(&graph.nodes[*i]) as f64,
        };
        let mut float = scheme.clone();
        candidates
            .iter()
            .for_each(|&layer| self.set_wide(&mut float, layer, ""));
        // And what only moves values.
        float.precision.fill(Precision::F32);
        let few = RANKING_SAMPLES.min(self.samples.len());
        progress.begin("sensitivity", candidates.len());
        let mut ranked = Vec::with_capacity(candidates.len());
        for (done, &layer) in candidates.iter().enumerate() {
            let mut alone = float.clone();
            match layer {
                Layer::Input(v) => drop(alone.float_inputs.remove(&v)),
                Layer::Node(i) => alone.precision[i] = Precision::I8,
            }
            ranked.push((layer, self.measure(&alone, few)?.sqnr_db));
            progress.advance(done + 1);
        }
        progress.end();
        let weight = |r: &(Layer, f64)| 10f64.powf(-r.1 / 10.0) / cost(&r.0).max(1.0);
        ranked.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
        Ok(ranked)
    }

    /// How many layers of the ranking are enough.
    fn shortest_start(&self, scheme: &Scheme, order: &[Layer]) -> Result<usize, QuantizeError> {
        let enough = |n: usize| -> Result<_, QuantizeError> {
            let quality = self.measure(&self.widened(scheme, &order[..n]), self.samples.len())?;
            Ok(self.limits.check(&quality))
        };
        let (mut low, mut high) = (0, 1.min(order.len()));
        while let Err(missed) = enough(high)? {
            if high == order.len() {
                return Err(missed);
            }
            (low, high) = (high, (2 * high).min(order.len()));
        }
        while high - low > 1 {
            let middle = (low + high) / 2;
            match enough(middle)? {
                Ok(()) => high = middle,
                Err(_) => low = middle,
            }
        }
        Ok(high)
    }

    /// Those of the layers that must be wide: each is dropped if the limits hold without it, the one with
    /// least to gain first.
    fn narrow(
        &self,
        scheme: &Scheme,
        layers: &[Layer],
        progress: &dyn Progress,
    ) -> Result<Vec<Layer>, QuantizeError> {
        let mut wide = layers.to_vec();
        if wide.len() > MOST_NARROWED {
            return Ok(wide);
        }
        progress.begin("narrow", layers.len());
        for (done, layer) in layers.iter().rev().enumerate() {
            let without: Vec<Layer> = wide.iter().copied().filter(|l| l != layer).collect();
            let quality = self.measure(&self.widened(scheme, &without), self.samples.len())?;
            if self.limits.met(&quality) {
                wide = without;
            }
            progress.advance(done + 1);
        }
        progress.end();
        Ok(wide)
    }

    fn widened(&self, scheme: &Scheme, layers: &[Layer]) -> Scheme {
        let mut out = scheme.clone();
        layers
            .iter()
            .for_each(|&layer| self.set_wide(&mut out, layer, ""));
        self.follow(&mut out);
        out
    }

    /// What moves a wide value does not narrow it.
    fn follow(&self, scheme: &mut Scheme) {
        let producers = self.graph.producers();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let from = node.inputs.first().and_then(|v| producers.get(v));
            let Some(&from) = from.filter(|_| moves(&node.op)) else {
                continue;
            };
            scheme.precision[i] = match scheme.precision[from] {
                Precision::I16 if !has_i16_kernel(&node.op) => Precision::F32,
                other => other,
            };
            if scheme.precision[i] != Precision::I8 {
                scheme.reasons[i] = Some("moves a value that is wide".to_owned());
            }
        }
    }

    fn set_wide(&self, scheme: &mut Scheme, layer: Layer, reason: &str) {
        match layer {
            Layer::Input(v) => {
                scheme.float_inputs.insert(v, reason.to_owned());
            }
            Layer::Node(i) => {
                scheme.precision[i] = match has_i16_kernel(&self.graph.nodes[i].op) {
                    true if !self.float => Precision::I16,
                    _ => Precision::F32,
                };
                scheme.reasons[i] = Some(reason.to_owned());
            }
        }
    }

    fn measure(&self, scheme: &Scheme, count: usize) -> Result<Quality, QuantizeError> {
        self.oracle
            .compare(self.graph, scheme, self.samples, self.lowering, count)
    }

    fn entry(&self, scheme: &Scheme, layer: Layer, alone_db: f64) -> LayerSensitivity {
        let (node, op, precision) = match layer {
            Layer::Input(v) => {
                let wide = scheme.float_inputs.contains_key(&v);
                let precision = if wide { Precision::F32 } else { Precision::I8 };
                (&self.graph.value(v).name, "Input", precision)
            }
            Layer::Node(i) => {
                let node = &self.graph.nodes[i];
                (&node.name, node.op.name(), scheme.precision[i])
            }
        };
        LayerSensitivity {
            node: node.clone(),
            op: op.to_owned(),
            alone_db,
            precision: precision.name().to_owned(),
        }
    }
}

/// Whether an operator computes nothing.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Broadcast(_)
    )
}

fn is_candidate(op: &Op) -> bool {
    !moves(op) && !matches!(op, Op::Gather { .. } | Op::ArgMax { .. })
}

/// The float model's answers.
struct Oracle {
    outputs: Vec<Vec<f32>>,
}

impl Oracle {
    fn new(graph: &Graph, samples: &dyn Samples) -> Result<Self, QuantizeError> {
        let mut model = Model::float(graph)?;
        Ok(Oracle {
            outputs: answers(&mut model, samples, samples.len())?,
        })
    }

    fn compare(
        &self,
        graph: &Graph,
        scheme: &Scheme,
        samples: &dyn Samples,
        lowering: &LowerOptions,
        count: usize,
    ) -> Result<Quality, QuantizeError> {
        let compiled = compile(
            graph,
            Some(scheme),
            lowering,
            &PlanOptions::default(),
            &Extras::default(),
        )?;
        let got = answers(&mut Model::from_bytes(compiled.bytes)?, samples, count)?;
        let (mut signal, mut noise, mut same) = (0f64, 0f64, 0usize);
        let (mut labelled, mut right_float, mut right) = (0usize, 0usize, 0usize);
        let mut min_cosine = 1f64;
        for (i, (a, b)) in self.outputs.iter().zip(&got).enumerate() {
            // `min` would pass over a cosine that is no number.
            let cosine = crate::metrics::cosine(a, b).unwrap_or(f64::NAN);
            min_cosine = if cosine >= min_cosine {
                min_cosine
            } else {
                cosine
            };
            signal += a.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            noise += a
                .iter()
                .zip(b)
                .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
                .sum::<f64>();
            let (top_float, top) = (argmax(a), argmax(b));
            same += usize::from(top_float == top);
            if let Some(label) = samples.label(i) {
                labelled += 1;
                right_float += usize::from(top_float == Some(label));
                right += usize::from(top == Some(label));
            }
        }
        let percent = |n: usize, of: usize| 100.0 * n as f64 / of.max(1) as f64;
        Ok(Quality {
            agreement: percent(same, got.len()),
            drop: (labelled > 0).then(|| percent(right_float, labelled) - percent(right, labelled)),
            sqnr_db: 10.0 * (signal / noise.max(f64::MIN_POSITIVE)).log10(),
            min_cosine,
        })
    }
}

/// The first output for the first `count` samples.
fn answers(
    model: &mut Model,
    samples: &dyn Samples,
    count: usize,
) -> Result<Vec<Vec<f32>>, QuantizeError> {
    let mut session = model.session(Isa::best())?;
    (0..count)
        .map(|index| {
            let inputs = samples
                .sample(index)
                .map_err(|message| ObserveError::Sample { index, message })?;
            for (i, values) in inputs.iter().enumerate() {
                session.write_f32(i, values).map_err(ModelError::Runtime)?;
            }
            session.run().map_err(ModelError::Runtime)?;
            Ok(outputs_f32(&session)?
                .into_iter()
                .next()
                .unwrap_or_default())
        })
        .collect()
}

fn argmax(values: &[f32]) -> Option<usize> {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]).then(b.cmp(&a)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::testing::Lcg;
    use crate::pipeline::{QuantizeOptions, Quantized, Silent, quantize};
    use ampoule_runtime::ops::unary::UnaryKind;

    /// Two layers with a function between them and a shape after them.
    fn widened(min_cosine: f64) -> Result<Quantized, QuantizeError> {
        let mut rng = Lcg(7);
        let mut g = Graph::default();
        let x = g.input("x", &[1, 8]);
        let layer = |g: &mut Graph, name: &str, x, rng: &mut Lcg, activation| {
            let w = g.constant_value("w", &[8, 8], rng.gaussians(64));
            let b = g.constant_value("b", &[8], rng.gaussians(8));
            let op = Op::Linear {
                residual: false,
                activation,
            };
            g.push(name, op, &[x, w, b]).unwrap()
        };
        let y = layer(&mut g, "first", x, &mut rng, Some(UnaryKind::Silu));
        let y = layer(&mut g, "second", y, &mut rng, None);
        let y = g.push("shape", Op::Reshape(vec![2, 4]), &[y]).unwrap();
        g.output("y", y);
        let samples: Vec<_> = (0..12).map(|_| vec![rng.gaussians(8)]).collect();
        let options = QuantizeOptions {
            min_cosine: Some(min_cosine),
            ..QuantizeOptions::default()
        };
        quantize(g, &samples, &options, &Silent)
    }

    #[test]
    fn a_limit_that_int8_keeps_widens_nothing() {
        let done = widened(0.9).unwrap();
        let report = done.sensitivity.unwrap();
        assert!(report.before.min_cosine > 0.99 && report.layers.is_empty());
        assert_eq!(report.before, report.after);
        assert!(done.compiled.program.islands.is_empty());
    }

    #[test]
    fn a_tight_limit_widens_layers_and_says_so() {
        let done = widened(0.9999999).unwrap();
        let report = done.sensitivity.unwrap();
        assert!(report.before.min_cosine < 0.9999999);
        assert!(report.after.min_cosine >= 0.9999999);
        let wide: Vec<&str> = report
            .layers
            .iter()
            .filter(|l| l.precision != "i8")
            .map(|l| l.node.as_str())
            .collect();
        assert!(wide.contains(&"x") && wide.contains(&"second"), "{wide:?}");
        let islands = &done.compiled.program.islands;
        for name in wide {
            let island = islands.iter().find(|i| i.node == name).unwrap();
            assert!(island.reason.contains("--min-cosine 0.9999999"));
        }
        let moved = islands.iter().find(|i| i.node == "shape").unwrap();
        assert_eq!(moved.reason, "moves a value that is wide");
    }

    #[test]
    fn a_limit_out_of_reach_is_an_error() {
        let error = widened(1.1).unwrap_err();
        assert!(
            matches!(error, QuantizeError::MinCosine { reached, wanted } if reached > 0.999 && wanted == 1.1),
            "{error}"
        );
    }
}
