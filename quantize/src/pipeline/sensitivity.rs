//! Which layers lose accuracy in int8, and the smallest set that must be wider.

use ampoule_runtime::Isa;
use serde::{Deserialize, Serialize};

use super::{Progress, QuantizeError};
use crate::graph::{Graph, Op};
use crate::lower::{LowerOptions, has_i16_kernel};
use crate::model::{Model, ModelError, compile, outputs_f32};
use crate::observe::{ObserveError, Samples};
use crate::plan::PlanOptions;
use crate::scheme::{Precision, Scheme};
use crate::seal::Extras;

/// Samples used to rank layers; accuracy itself is measured on all.
const RANKING_SAMPLES: usize = 16;

/// How close a model is to the float one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Share of samples with the float model's top-1 class, in percent.
    pub agreement: f64,
    /// Loss of top-1 accuracy in points, when the samples have labels.
    pub drop: Option<f64>,
    /// Signal-to-noise ratio of the outputs, in decibels.
    pub sqnr_db: f64,
}

impl Quality {
    /// The loss that `--max-drop` limits.
    pub fn loss(&self) -> f64 {
        self.drop.unwrap_or(100.0 - self.agreement)
    }
}

/// What widening one layer gains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerSensitivity {
    /// Node.
    pub node: String,
    /// Operator.
    pub op: String,
    /// Gain in output signal-to-noise ratio when this layer alone is widened, in decibels.
    pub gain_db: f64,
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
    /// Layers, most sensitive first; empty when int8 met the limit at once.
    pub layers: Vec<LayerSensitivity>,
}

/// Widens the most sensitive layers until the loss is at most `max_drop`.
pub(super) fn widen(
    graph: &Graph,
    scheme: &mut Scheme,
    samples: &dyn Samples,
    max_drop: f64,
    lowering: &LowerOptions,
    progress: &dyn Progress,
) -> Result<SensitivityReport, QuantizeError> {
    let oracle = Oracle::new(graph, samples)?;
    let measure =
        |scheme: &Scheme, count: usize| oracle.compare(graph, scheme, samples, lowering, count);
    let before = measure(scheme, samples.len())?;
    if before.loss() <= max_drop {
        return Ok(SensitivityReport {
            before,
            after: before,
            layers: Vec::new(),
        });
    }
    let candidates: Vec<usize> = (0..graph.nodes.len())
        .filter(|&i| is_candidate(&graph.nodes[i].op))
        .collect();
    let few = RANKING_SAMPLES.min(samples.len());
    let base = measure(scheme, few)?.sqnr_db;
    progress.begin("sensitivity", candidates.len());
    let mut ranked = Vec::with_capacity(candidates.len());
    for (done, &node) in candidates.iter().enumerate() {
        let mut trial = scheme.clone();
        trial.precision[node] = wider(&graph.nodes[node].op);
        ranked.push((node, measure(&trial, few)?.sqnr_db - base));
        progress.advance(done + 1);
    }
    progress.end();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut after = before;
    let mut widened = 0;
    while after.loss() > max_drop && widened < ranked.len() {
        let upto = (widened * 2).max(1).min(ranked.len());
        for &(node, gain) in &ranked[widened..upto] {
            scheme.precision[node] = wider(&graph.nodes[node].op);
            scheme.reasons[node] = Some(format!(
                "widening it gains {gain:.2} dB; --max-drop {max_drop}"
            ));
        }
        widened = upto;
        after = measure(scheme, samples.len())?;
    }
    if after.loss() > max_drop {
        return Err(QuantizeError::MaxDrop {
            reached: after.loss(),
            wanted: max_drop,
        });
    }
    let layers = ranked
        .into_iter()
        .map(|(node, gain_db)| LayerSensitivity {
            node: graph.nodes[node].name.clone(),
            op: graph.nodes[node].op.name().to_owned(),
            gain_db,
            precision: scheme.precision[node].name().to_owned(),
        })
        .collect();
    Ok(SensitivityReport {
        before,
        after,
        layers,
    })
}

fn is_candidate(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv { .. }
            | Op::Linear { .. }
            | Op::Binary { .. }
            | Op::Unary(_)
            | Op::Softmax { .. }
            | Op::MatMul
    )
}

fn wider(op: &Op) -> Precision {
    if has_i16_kernel(op) {
        Precision::I16
    } else {
        Precision::F32
    }
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
        for (i, (a, b)) in self.outputs.iter().zip(&got).enumerate() {
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
