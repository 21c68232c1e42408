//! An addition to a layer's result is fused into the layer, which then runs after the addend exists.

use ampoule_runtime::ops::binary::BinaryKind;

use super::edit::{Edit, sweep};
use crate::graph::{Graph, GraphError, Op, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    sweep(graph, |edit, node| {
        let Op::Binary {
            kind: BinaryKind::Add,
            activation,
        } = node.op
        else {
            return Ok(None);
        };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let constant = edit.constant(a).is_some() || edit.constant(b).is_some();
        if a == b || constant || edit.shape(a) != edit.shape(b) {
            return Ok(None);
        }
        // Of two layers the later one takes the other's result, which moves least.
        let later_first = if edit.position(a) > edit.position(b) {
            [(a, b), (b, a)]
        } else {
            [(b, a), (a, b)]
        };
        let Some((layer, addend)) = later_first
            .into_iter()
            .find(|(v, _)| takes_addend(edit, *v))
        else {
            return Ok(None);
        };
        if let Some(n) = edit.producer_mut(layer) {
            n.inputs.push(addend);
            match &mut n.op {
                Op::Conv {
                    residual,
                    activation: slot,
                    ..
                }
                | Op::Linear {
                    residual,
                    activation: slot,
                } => {
                    (*residual, *slot) = (true, activation);
                }
                _ => {}
            }
        }
        edit.read(addend);
        edit.postpone(layer);
        Ok(Some(layer))
    })
}

fn takes_addend(edit: &Edit<'_>, v: ValueId) -> bool {
    let free = edit.producer(v).is_some_and(|n| {
        matches!(
            n.op,
            Op::Conv {
                residual: false,
                activation: None,
                ..
            } | Op::Linear {
                residual: false,
                activation: None
            }
        )
    });
    free && edit.is_private(v)
}
