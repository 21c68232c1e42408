//! Padding before a window goes into the window.

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::pool::PoolKind;

use super::edit::{Edit, Verdict, sweep};
use crate::graph::{Graph, GraphError, Node, Op};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, rule)
}

fn rule(edit: &mut Edit<'_>, node: &Node) -> Verdict {
    let Some(Node {
        op: Op::Pad {
            before,
            after,
            value,
        },
        inputs,
        ..
    }) = edit.producer(node.inputs[0])
    else {
        return Ok(None);
    };
    let outside_map = [before, after]
        .iter()
        .any(|p| p.len() != 4 || p[0] != 0 || p[3] != 0);
    if outside_map {
        return Ok(None);
    }
    let (x, value, pads) = (
        inputs[0],
        *value,
        [before[1], before[2], after[1], after[2]],
    );
    let op = match &node.op {
        Op::Conv {
            window,
            groups,
            residual,
            activation,
        } if value == 0.0 => widened(window, pads).map(|window| Op::Conv {
            window,
            groups: *groups,
            residual: *residual,
            activation: *activation,
        }),
        Op::Pool {
            kind: PoolKind::Max,
            window,
            include_pad,
        } if value <= f32::MIN => widened(window, pads).map(|window| Op::Pool {
            kind: PoolKind::Max,
            window,
            include_pad: *include_pad,
        }),
        // The zeros count; padding of the window's own must do so too.
        Op::Pool {
            kind: PoolKind::Average,
            window,
            include_pad,
        } if value == 0.0 && (*include_pad || window.pad == [0; 4]) => {
            widened(window, pads).map(|window| Op::Pool {
                kind: PoolKind::Average,
                window,
                include_pad: true,
            })
        }
        _ => None,
    };
    let Some(op) = op else { return Ok(None) };
    let mut inputs = node.inputs.clone();
    inputs[0] = x;
    edit.push(&node.name, op, &inputs).map(Some)
}

fn widened(window: &Window, pads: [usize; 4]) -> Option<Window> {
    let mut wide = *window;
    for (pad, more) in wide.pad.iter_mut().zip(pads) {
        *pad = pad.checked_add(u16::try_from(more).ok()?)?;
    }
    Some(wide)
}
