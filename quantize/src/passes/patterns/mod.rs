//! Operators that exporters spell out in smaller ones.

mod clamp;
mod gate;
mod log;
mod mean;
mod norm;

use super::edit::sweep;
use crate::graph::{Graph, GraphError};

/// Runs the pass: means, clamps, gated activations, logarithms of softmax, layer normalisation.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for rule in [
        mean::rule,
        clamp::rule,
        gate::rule,
        log::rule,
        norm::rule,
        norm::parameters,
    ] {
        changes += sweep(graph, rule)?;
    }
    Ok(changes)
}
