//! Attention as one node.
//!
//! Exports spell it out: slices and transposes take q, k and v out of a layer's result, a product, a
//! scale and a bias make the scores, softmax and a product the result, and transposes put the heads
//! back. All that moves is addressing, so it becomes the views of one [`crate::graph::Op::Attention`].
//! Windows too: layers that work on each token alone are taken out from between the cutting of a map
//! into windows and the attention, and from between the attention and the putting together.

mod absorb;
mod factors;
mod fuse;
mod sink;
mod strides;

use super::edit::sweep;
use crate::graph::{Graph, GraphError};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize, GraphError> {
    let wanted = sink::feeding_products(graph);
    let sunk = sweep(graph, |edit, node| sink::rule(edit, node, &wanted))?;
    let fused = sweep(graph, fuse::rule)?;
    let absorbed = sweep(graph, absorb::rule)?;
    Ok(sunk + fused + absorbed)
}
