//! Learning to match pictures and texts: two towers whose embeddings lie in one space (CLIP, Radford et
//! al., 2021), with a text teacher whose embeddings both towers approach, and an image teacher whose
//! similarities they follow (MobileCLIP, Vasu et al., 2024).

mod captions;
mod recall;
mod space;
mod task;
#[cfg(test)]
mod tests;
mod texts;

pub use captions::{Captions, check_captions};
pub use recall::{Recall, Retrieval};
pub use space::Space;
pub use task::{ImageTeaching, Pairs, PairsOptions, PairsWeights, TextTeaching};
pub use texts::Texts;
