//! Passes over the float graph.
//!
//! Each pass is a file with `run`, which rewrites the graph and gives the number of changes. A pass keeps
//! the graph valid and its function the same up to rounding. [`optimise`] runs all of them in order.

pub mod activation;
pub mod affine;
pub mod attention;
pub mod branches;
pub mod cluster;
pub mod cse;
pub mod dead;
mod edit;
pub mod equalise;
pub mod fold;
pub mod layout;
pub mod linear;
pub mod merge;
pub mod migrate;
pub mod multiplier;
mod operands;
pub mod padding;
pub mod patterns;
pub mod residual;
pub mod scale;
pub mod simplify;
pub mod slices;
pub mod zero;

use crate::graph::{Graph, GraphError};

/// A pass: rewrites the graph, gives the number of changes.
pub type Pass = fn(&mut Graph) -> Result<usize, GraphError>;

/// Passes that enable each other; they run in turn until none finds anything.
pub const REWRITES: [(&str, Pass); 12] = [
    ("fold", fold::run),
    ("simplify", simplify::run),
    ("zero", zero::run),
    ("cse", cse::run),
    ("patterns", patterns::run),
    ("layout", layout::run),
    ("linear", linear::run),
    ("slices", slices::run),
    ("affine", affine::run),
    ("branches", branches::run),
    ("scale", scale::run),
    ("padding", padding::run),
];

/// Passes that fuse what the rewrites leave, once each in this order.
pub const FUSIONS: [(&str, Pass); 4] = [
    ("multiplier", multiplier::run),
    ("attention", attention::run),
    ("activation", activation::run),
    ("residual", residual::run),
];

/// Most rounds of [`REWRITES`]; graphs settle in a few.
const MAX_ROUNDS: usize = 32;

/// What a caller checks after a pass that changed the graph: the pass's name and the graph.
pub type Check<'c, E> = &'c mut dyn FnMut(&str, &Graph) -> Result<(), E>;

/// Runs all passes. `check` sees the graph after each pass that changed it and may stop the pipeline.
pub fn optimise<E: From<GraphError>>(
    graph: &mut Graph,
    mut check: Option<Check<'_, E>>,
) -> Result<(), E> {
    let mut apply = |name: &str, pass: Pass, graph: &mut Graph| -> Result<usize, E> {
        let changes = pass(graph)?;
        if let (true, Some(check)) = (changes > 0, &mut check) {
            check(name, graph)?;
        }
        Ok(changes)
    };
    settle(graph, &mut apply)?;
    for (name, pass) in FUSIONS {
        apply(name, pass, graph)?;
    }
    Ok(())
}

/// Runs the passes that come before fusion: layers are still apart from activations and additions, and
/// attention is the products that it is made of.
pub fn rewrite(graph: &mut Graph) -> Result<(), GraphError> {
    settle(graph, &mut |_, pass, graph| pass(graph))
}

/// [`REWRITES`] in turn until none finds anything.
fn settle<E>(
    graph: &mut Graph,
    apply: &mut dyn FnMut(&str, Pass, &mut Graph) -> Result<usize, E>,
) -> Result<(), E> {
    apply("dead", dead::run, graph)?;
    for _ in 0..MAX_ROUNDS {
        let mut changes = 0;
        for (name, pass) in REWRITES {
            changes += apply(name, pass, graph)?;
        }
        if changes == 0 {
            break;
        }
    }
    Ok(())
}
