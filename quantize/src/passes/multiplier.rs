//! A convolution that makes several channels of each one is a depthwise convolution of repeated channels.
//!
//! FastViT's down-sampling has it. Kernels know depthwise and dense convolutions; as a dense one it would be
//! mostly zeros.

use super::edit::{Edit, Verdict, sweep};
use crate::graph::{Graph, GraphError, Node, Op};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, rule)
}

fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Op::Conv {
        window,
        groups,
        residual,
        activation,
    } = node.op
    else {
        return Ok(None);
    };
    let x = node.inputs[0];
    let (shape, outputs) = (edit.shape(x).to_vec(), edit.len(node.inputs[2]));
    let channels = shape[3];
    if groups != channels || channels == 1 || outputs == channels {
        return Ok(None);
    }
    let mut steps = [&shape[..], &[1]].concat();
    let push = |edit: &mut Edit<'_>, op, x| edit.push(&format!("{}.repeat", node.name), op, &[x]);
    let x = push(edit, Op::Reshape(steps.clone()), x)?;
    steps[4] = outputs / channels;
    let x = push(edit, Op::Broadcast(steps), x)?;
    let repeated = [&shape[..3], &[outputs]].concat();
    let mut inputs = node.inputs.clone();
    inputs[0] = push(edit, Op::Reshape(repeated), x)?;
    let op = Op::Conv {
        window,
        groups: outputs,
        residual,
        activation,
    };
    edit.push(&node.name, op, &inputs).map(Some)
}
