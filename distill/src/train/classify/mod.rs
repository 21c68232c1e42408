//! Learning to classify pictures: from a teacher's store, from a teacher that answers meanwhile, or from
//! labels alone.

mod split;
mod targets;
mod task;

pub use split::{Split, SplitOptions};
pub use targets::{Source, Weighting};
pub use task::{Answered, Classification, ClassificationOptions, Confusion, Mimicry};
