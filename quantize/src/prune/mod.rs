//! Pruning: smaller graphs that stay consistent.
//!
//! [`Coupling`] finds which channels, heads and hidden units can only be cut together, [`importance()`] says how much
//! the graph relies on each, [`structured()`] chooses, and [`cut()`] makes the graph without them. [`fix()`] is for experts that a task never asks. Everything works on a
//! graph before fusion ([`passes::rewrite`](crate::passes::rewrite)), which
//! [`export::graph_to_onnx`](crate::export::graph_to_onnx) writes.

mod coupling;
mod cut;
mod error;
mod fix;
mod importance;
mod magnitude;
mod structured;

pub use coupling::{Coupling, Group, GroupKind};
pub use cut::cut;
pub use error::PruneError;
pub use fix::fix;
pub use importance::{Criterion, Importance, importance, sums_of_terms};
pub use magnitude::{LayerSparsity, Sparsity, magnitude};
pub use structured::{GroupCut, StructuredOptions, structured};
