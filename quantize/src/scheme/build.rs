//! From statistics to a scheme: ranges, shared parameters, quantised weights, corrected biases.

use std::collections::BTreeMap;

use ampoule_runtime::ops::pool::PoolKind;
use ampoule_runtime::ops::unary::UnaryKind;
use thiserror::Error;

use super::stored::SOFTMAX;
use super::{NodeWeights, Precision, Scheme};
use crate::calibrate::{
    CalibrateError, CodeWidth, Geometry, Range, RangeMethod, WeightMethod, expected_shift,
    quantize_weights_above, scale_floor_for_bias, select, select_argument,
};
use crate::graph::{Graph, Node, Op, ValueId};
use crate::observe::Statistics;
use crate::program::Stage;

/// Choices of the quantiser.
#[derive(Debug, Clone)]
pub struct SchemeOptions {
    /// How activation ranges are chosen.
    pub range: RangeMethod,
    /// How weight scales are chosen.
    pub weights: WeightMethod,
    /// Correct biases for the mean error of quantised weights.
    pub bias_correction: bool,
    /// Known ranges of inputs, which calibration does not narrow.
    pub input_ranges: BTreeMap<ValueId, Range>,
}

impl Default for SchemeOptions {
    fn default() -> Self {
        SchemeOptions {
            range: RangeMethod::default(),
            weights: WeightMethod::default(),
            bias_correction: true,
            input_ranges: BTreeMap::new(),
        }
    }
}

/// Why no scheme could be made.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SchemeError {
    /// A range or a weight could not be quantised.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Weights that are not constant.
    #[error("node `{0}`: weights are not constant")]
    NotConstant(String),
}

/// Makes an all-int8 scheme.
///
/// # Errors
///
/// [`SchemeError`], naming the tensor or node.
pub fn build(
    graph: &Graph,
    statistics: &Statistics,
    options: &SchemeOptions,
) -> Result<Scheme, SchemeError> {
    let mut scheme = Scheme {
        precision: vec![Precision::I8; graph.nodes.len()],
        reasons: vec![None; graph.nodes.len()],
        ..Scheme::default()
    };
    let ranges = ranges(graph, statistics, options)?;
    let groups = Groups::new(graph);
    let shared = groups.ranges(&ranges);
    let activations: BTreeMap<ValueId, UnaryKind> = graph
        .nodes
        .iter()
        .filter_map(|n| Some((n.output, n.op.activation()?)))
        .collect();
    for (&key, &range) in &ranges {
        let range = match key.1 {
            Stage::Post => shared.get(&groups.find(key.0)).copied().unwrap_or(range),
            Stage::Pre => range,
        };
        let function = activations.get(&key.0).filter(|_| key.1 == Stage::Pre);
        let range = match (function, statistics.histograms.get(&key)) {
            (Some(kind), Some(histogram)) => {
                let post = shared.get(&groups.find(key.0)).copied().unwrap_or(range);
                let result = post.params(CodeWidth::I8);
                let name = &graph.value(key.0).name;
                select_argument(name, histogram, &|x| kind.eval(x), &result)?
            }
            _ => range,
        };
        scheme.values.insert(key, range.params(CodeWidth::I8));
        if let Some(histogram) = statistics.histograms.get(&key) {
            let wide = select(
                &graph.value(key.0).name,
                histogram,
                RangeMethod::MinMax,
                CodeWidth::I16,
            )?;
            scheme.wide.insert(key, wide.params(CodeWidth::I16).scale);
        }
    }
    fixed_scales(graph, &groups, &mut scheme);
    share_wide(graph, &groups, &mut scheme);
    for (index, node) in graph.nodes.iter().enumerate() {
        if matches!(node.op, Op::Conv { .. } | Op::Linear { .. }) {
            let weights = node_weights(graph, node, &scheme, statistics, options)?;
            scheme.weights.insert(index, weights);
        }
    }
    Ok(scheme)
}

fn ranges(
    graph: &Graph,
    statistics: &Statistics,
    options: &SchemeOptions,
) -> Result<BTreeMap<(ValueId, Stage), Range>, SchemeError> {
    let mut out = BTreeMap::new();
    for (&(value, stage), histogram) in &statistics.histograms {
        let known = options
            .input_ranges
            .get(&value)
            .copied()
            .filter(|_| stage == Stage::Post);
        let range = match known {
            Some(range) => range,
            None => select(
                &graph.value(value).name,
                histogram,
                options.range,
                CodeWidth::I8,
            )?,
        };
        out.insert((value, stage), range);
    }
    Ok(out)
}

/// Weights, their scales and the corrected bias of one node.
fn node_weights(
    graph: &Graph,
    node: &Node,
    scheme: &Scheme,
    statistics: &Statistics,
    options: &SchemeOptions,
) -> Result<NodeWeights, SchemeError> {
    let constant = |i: usize| {
        graph
            .constant(node.inputs[i])
            .ok_or_else(|| SchemeError::NotConstant(node.name.clone()))
    };
    let (weights, bias) = (constant(1)?, constant(2)?);
    let shape = graph.shape(node.inputs[1]);
    let input = (node.inputs[0], Stage::Post);
    // The narrowest step the input may get, so that biases fit whatever the node's precision becomes.
    let step = scheme
        .wide
        .get(&input)
        .copied()
        .or_else(|| scheme.values.get(&input).map(|q| q.scale))
        .unwrap_or(1.0);
    let floors: Vec<f32> = bias
        .iter()
        .map(|&b| 2.0 * scale_floor_for_bias(b, step))
        .collect();
    let quantised = quantize_weights_above(weights, shape[0], options.weights, &floors)?;
    let mut bias = bias.to_vec();
    if let (true, Some(stats), Some(geometry)) = (
        options.bias_correction,
        statistics.channels.get(&node.inputs[0]),
        Geometry::of(graph, node),
    ) {
        let shift = expected_shift(weights, &quantised.dequantize(), &stats.means(), &geometry)?;
        bias.iter_mut().zip(shift).for_each(|(b, s)| *b -= s);
    }
    Ok(NodeWeights {
        codes: quantised.codes,
        scales: quantised.scales,
        bias,
    })
}

/// Softmax has a fixed output scale: its values fill [0, 1).
fn fixed_scales(graph: &Graph, groups: &Groups, scheme: &mut Scheme) {
    for node in graph
        .nodes
        .iter()
        .filter(|n| matches!(n.op, Op::Softmax { log: false }))
    {
        let group = groups.find(node.output);
        for (key, params) in &mut scheme.values {
            if key.1 == Stage::Post && groups.find(key.0) == group {
                *params = SOFTMAX;
            }
        }
    }
}

/// Values that share codes share the 16-bit scale too: the largest.
fn share_wide(graph: &Graph, groups: &Groups, scheme: &mut Scheme) {
    let mut largest: BTreeMap<u32, f32> = BTreeMap::new();
    for (&(value, stage), &scale) in &scheme.wide {
        if stage == Stage::Post && graph.constant(value).is_none() {
            let slot = largest.entry(groups.find(value)).or_insert(scale);
            *slot = slot.max(scale);
        }
    }
    for (&(value, stage), scale) in &mut scheme.wide {
        if stage == Stage::Post {
            *scale = largest.get(&groups.find(value)).copied().unwrap_or(*scale);
        }
    }
}

/// Sets of values that hold the same codes: what an operator only moves keeps its parameters.
struct Groups(Vec<u32>);

impl Groups {
    fn new(graph: &Graph) -> Self {
        let mut groups = Groups((0..graph.values.len() as u32).collect());
        for node in &graph.nodes {
            let moves = matches!(
                node.op,
                Op::Reshape(_)
                    | Op::Transpose(_)
                    | Op::Slice { .. }
                    | Op::Concat { .. }
                    | Op::Pad { .. }
                    | Op::Broadcast(_)
                    | Op::Resize { .. }
                    | Op::Merge { .. }
                    | Op::Pool {
                        kind: PoolKind::Max,
                        ..
                    }
            );
            if moves {
                let held = match node.op {
                    Op::Merge { .. } => &node.inputs[..1],
                    _ => &node.inputs,
                };
                for &input in held.iter().filter(|&&v| graph.constant(v).is_none()) {
                    groups.union(input, node.output);
                }
            }
        }
        groups
    }

    fn find(&self, value: ValueId) -> u32 {
        let mut at = value.0;
        while self.0[at as usize] != at {
            at = self.0[at as usize];
        }
        at
    }

    fn union(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b) as usize] = a.min(b);
    }

    /// The hull of the ranges of each group.
    fn ranges(&self, ranges: &BTreeMap<(ValueId, Stage), Range>) -> BTreeMap<u32, Range> {
        let mut out: BTreeMap<u32, Range> = BTreeMap::new();
        for (&(value, stage), range) in ranges {
            if stage == Stage::Post {
                let hull = out.entry(self.find(value)).or_insert(*range);
                *hull = Range {
                    lo: hull.lo.min(range.lo),
                    hi: hull.hi.max(range.hi),
                };
            }
        }
        out
    }
}
