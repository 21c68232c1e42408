//! Ampoule shrinks trained vision models and seals them to run on the edge.
//!
//! This crate joins its parts and adds what an application on a host wants:
//!
//! * [`distill`]: student networks;
//! * [`quantize`]: from an ONNX file and a folder of pictures to a sealed int8 artifact;
//! * [`runtime`]: runs the artifact, without `std` and without an allocator;
//! * [`Classifier`]: a file and pictures in, labels out;
//! * [`mapped`]: an artifact used in place from a memory map.
//!
//! The command line `ampoule` is built on the same.
//!
//! ```no_run
//! let mut classifier = ampoule::Classifier::open("model.amp")?;
//! for guess in classifier.classify_file("cat.jpg")?.top(5) {
//!     println!("{:5.1} %  {}", 100.0 * guess.probability, guess.label);
//! }
//! # Ok::<(), ampoule::ClassifyError>(())
//! ```

#![deny(unsafe_code)]

mod classifier;
pub mod mapped;

pub use ampoule_distill as distill;
pub use ampoule_quantize as quantize;
pub use ampoule_runtime as runtime;
pub use classifier::{Classifier, ClassifyError, Guess, Scores};
