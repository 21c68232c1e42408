//! A quantisation scheme: which type each node computes in, and the parameters of every tensor.

mod build;
mod stored;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::calibrate::QParams;
use crate::graph::ValueId;
use crate::program::Stage;

pub use build::{SchemeError, SchemeOptions, build};
pub use stored::{WeightSteps, from_source, is_quantised, stated};

/// Type a node computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Precision {
    /// 8-bit weights and activations.
    I8,
    /// 8-bit weights, 16-bit activations.
    I16,
    /// Single precision.
    F32,
}

impl Precision {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Precision::I8 => "i8",
            Precision::I16 => "i16",
            Precision::F32 => "f32",
        }
    }
}

/// Quantised weights of one node.
#[derive(Debug, Clone)]
pub struct NodeWeights {
    /// Codes in the graph's weight layout, row-major by output channel.
    pub codes: Vec<i8>,
    /// Step per output channel.
    pub scales: Vec<f32>,
    /// Bias after correction, real units.
    pub bias: Vec<f32>,
}

/// Everything that turns a float graph into an integer program.
#[derive(Debug, Clone, Default)]
pub struct Scheme {
    /// 8-bit parameters of activations.
    pub values: BTreeMap<(ValueId, Stage), QParams>,
    /// 16-bit symmetric steps of activations.
    pub wide: BTreeMap<(ValueId, Stage), f32>,
    /// Precision per node.
    pub precision: Vec<Precision>,
    /// Why a node is not int8, per node.
    pub reasons: Vec<Option<String>>,
    /// Model inputs that stay in float, and why.
    pub float_inputs: BTreeMap<ValueId, String>,
    /// Weights per node that has any.
    pub weights: HashMap<usize, NodeWeights>,
}
