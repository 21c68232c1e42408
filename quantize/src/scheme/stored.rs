//! The scheme of a model that is quantised already: its own scales, zero points and weights.

use std::collections::{BTreeMap, HashMap};

use ampoule_runtime::ops::pool::PoolKind;

use super::{NodeWeights, Precision, Scheme, SchemeError};
use crate::calibrate::{CodeWidth, QParams};
use crate::graph::{Graph, Node, Op, ValueId};
use crate::lower::{clamp_of, no_i8_kernel};
use crate::program::Stage;

/// Steps of weights that the source stores as int8: by node, one for each output channel.
pub type WeightSteps = HashMap<String, Vec<f32>>;

/// How far from a code a stored weight may be, in steps: single precision leaves 1e-5.
const OFF_CODE: f64 = 1e-3;

/// What a softmax gives in int8: its values fill [0, 1).
pub(super) const SOFTMAX: QParams = QParams {
    scale: 1.0 / 256.0,
    zero_point: -128,
    width: CodeWidth::I8,
};

/// Whether the source states the parameters of any activation.
pub fn is_quantised(graph: &Graph) -> bool {
    graph
        .nodes
        .iter()
        .any(|n| matches!(n.op, Op::Quantize(_)) && graph.constant(n.inputs[0]).is_none())
}

/// The parameters that the source states for a value.
pub fn stated(graph: &Graph, value: ValueId) -> Option<QParams> {
    graph.nodes.iter().find_map(|n| match n.op {
        Op::Quantize(params) if n.inputs[0] == value => Some(params),
        _ => None,
    })
}

/// Takes over the parameters that [`Op::Quantize`] nodes state, and removes those nodes that only state
/// them; the others are changes of scale. Weights become the codes they came from.
///
/// A node whose operands or result have no parameters computes in f32, and the scheme says why.
///
/// # Errors
///
/// [`SchemeError`], naming the node whose weights are not constant.
pub fn from_source(graph: &mut Graph, steps: &WeightSteps) -> Result<Scheme, SchemeError> {
    let values = take_parameters(graph);
    let mut scheme = Scheme {
        values: values
            .into_iter()
            .map(|(v, q)| ((v, Stage::Post), q))
            .collect(),
        precision: vec![Precision::I8; graph.nodes.len()],
        reasons: vec![None; graph.nodes.len()],
        ..Scheme::default()
    };
    for port in &graph.inputs {
        if !graph.value(port.value).is_index && !knows(&scheme, port.value) {
            let why = "the source has no int8 parameters for it".to_owned();
            scheme.float_inputs.insert(port.value, why);
        }
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        if let Some(why) = stays_float(graph, node, &scheme) {
            scheme.precision[index] = Precision::F32;
            scheme.reasons[index] = Some(why);
        } else if matches!(node.op, Op::Conv { .. } | Op::Linear { .. })
            && no_i8_kernel(graph, node).is_none()
        {
            match node_weights(graph, node, steps.get(&node.name))? {
                Some(weights) => {
                    scheme.weights.insert(index, weights);
                }
                None => {
                    scheme.precision[index] = Precision::F32;
                    scheme.reasons[index] =
                        Some("the source has no int8 weights for it".to_owned());
                }
            }
        }
    }
    Ok(scheme)
}

/// The parameters of each value, after the nodes that state them are gone.
fn take_parameters(graph: &mut Graph) -> BTreeMap<ValueId, QParams> {
    let mut known: BTreeMap<ValueId, QParams> = BTreeMap::new();
    let mut replaced: HashMap<ValueId, ValueId> = HashMap::new();
    let mut readers: HashMap<ValueId, usize> = HashMap::new();
    let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().copied());
    for v in read.chain(graph.outputs.iter().map(|p| p.value)) {
        *readers.entry(v).or_default() += 1;
    }
    let producers = graph.producers();
    let ops: Vec<Op> = graph.nodes.iter().map(|n| n.op.clone()).collect();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for v in &mut node.inputs {
            *v = replaced.get(v).copied().unwrap_or(*v);
        }
        let first = node.inputs[0];
        if let Op::Quantize(params) = node.op {
            // Several statements about one value have been merged if they agree.
            let free = !known.contains_key(&first)
                && readers.get(&first).is_none_or(|&n| n <= 1)
                && producers
                    .get(&first)
                    .is_none_or(|&i| may_have(&ops[i], &params));
            if free || known.get(&first) == Some(&params) {
                known.insert(first, params);
                replaced.insert(node.output, first);
                let uses = readers.get(&node.output).copied().unwrap_or(0);
                readers.insert(first, uses);
                continue;
            }
            known.insert(node.output, params);
        } else if keeps_codes(&node.op) {
            let equal = |v: &ValueId| {
                matches!(node.op, Op::Merge { .. }) || known.get(v) == known.get(&first)
            };
            if let Some(&params) = known.get(&first).filter(|_| node.inputs.iter().all(equal)) {
                known.insert(node.output, params);
            }
        } else if node.op == (Op::Softmax { log: false }) && known.contains_key(&first) {
            known.insert(node.output, SOFTMAX);
        }
        kept.push(node);
    }
    graph.nodes = kept;
    for port in &mut graph.outputs {
        port.value = replaced.get(&port.value).copied().unwrap_or(port.value);
    }
    known
}

/// Whether the result of an operator can have these parameters, so that no change of scale is needed.
fn may_have(op: &Op, params: &QParams) -> bool {
    match op {
        Op::Softmax { log: false } => *params == SOFTMAX,
        _ => true,
    }
}

/// Operators whose result has the parameters of their operands.
fn keeps_codes(op: &Op) -> bool {
    match op {
        Op::Pool {
            kind: PoolKind::Max,
            ..
        }
        | Op::Resize { .. }
        | Op::Pad { .. }
        | Op::Merge { .. } => true,
        op => op.moves(),
    }
}

fn knows(scheme: &Scheme, value: ValueId) -> bool {
    scheme.values.contains_key(&(value, Stage::Post))
}

/// Why a node is not int8, `None` when it is.
fn stays_float(graph: &Graph, node: &Node, scheme: &Scheme) -> Option<String> {
    if graph.value(node.output).is_index {
        return None;
    }
    if !knows(scheme, node.output) {
        return Some("the source has no int8 parameters for its result".to_owned());
    }
    if matches!(node.op, Op::Quantize(_)) {
        return None;
    }
    let unknown = node
        .inputs
        .iter()
        .find(|&&v| graph.constant(v).is_none() && !graph.value(v).is_index && !knows(scheme, v));
    if let Some(&v) = unknown {
        let name = &graph.value(v).name;
        return Some(format!("the source has no int8 parameters for `{name}`"));
    }
    let table = node.op.activation().filter(|&a| {
        clamp_of(a).is_none() && !scheme.values.contains_key(&(node.output, Stage::Pre))
    });
    table.map(|a| format!("the source has no int8 parameters before {}", a.name()))
}

/// The codes that a layer's weights came from; `None` without steps, or where a pass has changed weights.
fn node_weights(
    graph: &Graph,
    node: &Node,
    steps: Option<&Vec<f32>>,
) -> Result<Option<NodeWeights>, SchemeError> {
    let constant = |i: usize| {
        graph
            .constant(node.inputs[i])
            .ok_or_else(|| SchemeError::NotConstant(node.name.clone()))
    };
    let (weights, bias) = (constant(1)?, constant(2)?);
    let channels = graph.shape(node.inputs[1])[0];
    let Some(steps) = steps.filter(|s| s.len() == channels) else {
        return Ok(None);
    };
    let rows = weights.chunks_exact(weights.len() / channels).zip(steps);
    let codes: Option<Vec<i8>> = rows
        .flat_map(|(row, &step)| row.iter().map(move |&w| code(w, step)))
        .collect();
    Ok(codes.map(|codes| NodeWeights {
        codes,
        scales: steps.clone(),
        bias: bias.to_vec(),
    }))
}

/// The symmetric code of a weight, if it is one.
fn code(weight: f32, step: f32) -> Option<i8> {
    let exact = f64::from(weight) / f64::from(step);
    let code = exact.round_ties_even();
    ((exact - code).abs() <= OFF_CODE && code.abs() <= 127.0).then_some(code as i8)
}
