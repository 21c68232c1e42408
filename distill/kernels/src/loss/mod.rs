//! Losses: value, and gradient with respect to what they compare.

mod contrastive;
mod cross_entropy;

pub use contrastive::{info_nce, normalize, normalize_gradient};
pub use cross_entropy::{Target, cross_entropy};
