//! Student networks: TinyViT and MOAT in their published sizes, and small ones, also of MCi.
//!
//! A [`Config`] says how large a network is; [`Config::build`] makes a [`Network`] of it: the graph that is
//! trained (batch norms apart from convolutions), names and shapes of all parameters, and what each part
//! costs. [`Weights`], random or from a file, are its parameters' values, and [`export`](crate::export)
//! writes both as an ONNX file.
//!
//! ```
//! use ampoule_distill::export::{self, Settings};
//! use ampoule_distill::zoo::{self, Weights};
//! let network = zoo::find("tinyvit-5m").unwrap().config.build().unwrap();
//! assert_eq!(network.parameter_count(), 5_392_764);
//! let weights = Weights::random(&network, 0);
//! let file = export::onnx(network.graph(), weights.values(), &Settings::default()).unwrap();
//! # assert!(file.len() > 4 * 5_392_764);
//! ```

pub(crate) mod builder;
mod config;
mod error;
mod mci;
mod moat;
mod network;
mod text;
mod tiny_vit;
mod towers;
mod weights;

pub use config::{Config, MODELS, MciConfig, MoatConfig, Model, TinyVitConfig, find};
pub use error::ZooError;
pub use network::{Network, Part, Role};
pub use text::TextConfig;
pub use towers::{HEAD_NAME, TEMPERATURE, Towers, TowersConfig, clip_mini};
pub use weights::Weights;
