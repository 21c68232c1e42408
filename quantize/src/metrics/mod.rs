//! How good a model is and how far two of them are apart.
//!
//! ```
//! use ampoule_quantize::metrics::{Rate, argmax, in_top_k};
//!
//! let logits = [0.1, 2.0, -1.0];
//! assert_eq!(argmax(&logits), Some(1));
//! assert!(in_top_k(&logits, 0, 2));
//!
//! let top1 = Rate { hits: 80, total: 100 };
//! assert_eq!(top1.to_string(), "80.00 % (95 %: 71.12..86.66, n = 100)");
//! ```

mod accuracy;
mod difference;
mod error;
mod softmax;

pub use accuracy::{Rate, agreement, argmax, classes, in_top_k, top_k};
pub use difference::{Difference, cosine, max_abs_diff, sqnr_db};
pub use error::MetricError;
pub use softmax::kl_of_softmax;
