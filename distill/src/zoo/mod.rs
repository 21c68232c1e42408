//! Student networks: TinyViT and MOAT in their published sizes, and small ones.
//!
//! A [`Config`] says how large a network is; [`Config::build`] makes a [`Network`] of it: layers as they
//! are trained (batch norms apart from convolutions), names and shapes of all parameters, and what each
//! part costs. With [`Weights`], random or from a file, it becomes an ONNX file.
//!
//! ```
//! use ampoule_distill::zoo::{self, Weights};
//! let network = zoo::find("tinyvit-5m").unwrap().config.build().unwrap();
//! assert_eq!(network.parameter_count(), 5_392_764);
//! let weights = Weights::random(&network, 0);
//! let file: Vec<u8> = weights.to_onnx("tinyvit-5m");
//! # assert!(file.len() > 4 * 5_392_764);
//! ```

mod attention;
mod config;
mod error;
mod moat;
mod network;
mod tiny_vit;
mod weights;

pub use config::{Config, MODELS, MoatConfig, Model, TinyVitConfig, find};
pub use error::ZooError;
pub use network::{Network, Parameter, Part, Role};
pub use weights::Weights;
