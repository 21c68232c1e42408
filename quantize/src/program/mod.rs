//! A lowered program before memory is planned: virtual tensors, steps and constants.
//!
//! [`crate::lower`] makes it from a graph, [`crate::plan`] gives each tensor its place,
//! [`crate::seal`] writes the file.

use std::collections::HashMap;

use ampoule_runtime::artifact::layout::ALIGN;
use ampoule_runtime::artifact::{Blob, Step};
use ampoule_runtime::{DType, Shape, TensorId};

use crate::graph::ValueId;

/// Which tensor of a graph value a program tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The result before a fused activation that is not a clamp.
    Pre,
    /// The value itself.
    Post,
}

/// A tensor without an address.
#[derive(Debug, Clone)]
pub struct VirtualTensor {
    /// Name for tables and the names section.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Shape,
    /// Quantisation step; 1 for float.
    pub scale: f32,
    /// Zero point; 0 for float and i16.
    pub zero_point: i32,
    /// Place in the constants, `None` for arena tensors.
    pub constant: Option<Blob>,
    /// The graph value it holds.
    pub origin: Option<(ValueId, Stage)>,
    /// The tensor whose memory this one is a part of, and where in it, in bytes. That one is no view.
    pub view: Option<(TensorId, usize)>,
}

impl VirtualTensor {
    /// Bytes it occupies.
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size()
    }
}

/// An input or output of the program.
#[derive(Debug, Clone)]
pub struct ProgramPort {
    /// Name in the source model.
    pub name: String,
    /// Tensor.
    pub tensor: TensorId,
    /// Source dimension `i` is stored dimension `layout[i]`.
    pub layout: Vec<usize>,
}

/// Steps over virtual tensors.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Tensors, indexed by [`TensorId`].
    pub tensors: Vec<VirtualTensor>,
    /// Steps in execution order.
    pub steps: Vec<Step>,
    /// For each step the name of the graph node it comes from.
    pub step_names: Vec<String>,
    /// For each step its multiply-accumulates.
    pub step_macs: Vec<u64>,
    /// Constants, as the weights section will hold them.
    pub constants: Constants,
    /// Inputs.
    pub inputs: Vec<ProgramPort>,
    /// Outputs.
    pub outputs: Vec<ProgramPort>,
    /// What left the int8 path, and why: one entry per float or i16 step.
    pub islands: Vec<Island>,
}

/// A step that does not run in int8.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Island {
    /// Graph node.
    pub node: String,
    /// Operator.
    pub op: String,
    /// Type it runs in.
    pub dtype: String,
    /// Why.
    pub reason: String,
}

impl Program {
    /// Adds a tensor.
    pub fn add_tensor(&mut self, tensor: VirtualTensor) -> TensorId {
        self.tensors.push(tensor);
        (self.tensors.len() - 1) as TensorId
    }

    /// The tensor of that number.
    pub fn tensor(&self, id: TensorId) -> &VirtualTensor {
        &self.tensors[usize::from(id)]
    }

    /// Appends a step that comes from graph node `name`.
    pub fn push(&mut self, name: &str, macs: u64, step: Step) {
        self.steps.push(step);
        self.step_names.push(name.to_owned());
        self.step_macs.push(macs);
    }
}

/// The weights section under construction: aligned, equal blobs stored once.
#[derive(Debug, Clone, Default)]
pub struct Constants {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, Blob>,
}

impl Constants {
    /// Stores bytes and returns their place.
    pub fn add(&mut self, bytes: &[u8]) -> Blob {
        if let Some(&blob) = self.known.get(bytes) {
            return blob;
        }
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let blob = Blob {
            offset: self.bytes.len() as u32,
            len: bytes.len() as u32,
        };
        self.bytes.extend_from_slice(bytes);
        if bytes.len() <= 1 << 16 {
            self.known.insert(bytes.to_vec(), blob);
        }
        blob
    }

    /// Stores 32-bit floats.
    pub fn add_f32(&mut self, values: &[f32]) -> Blob {
        self.add(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>(),
        )
    }

    /// Stores 32-bit integers.
    pub fn add_i32(&mut self, values: &[i32]) -> Blob {
        self.add(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>(),
        )
    }

    /// Stores bytes followed by `slack` zeros that count into the blob's length.
    pub fn add_with_slack(&mut self, mut bytes: Vec<u8>, slack: usize) -> Blob {
        bytes.resize(bytes.len() + slack, 0);
        self.add(&bytes)
    }

    /// The section's bytes, padded to the alignment.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of one blob.
    pub fn get(&self, blob: Blob) -> &[u8] {
        &self.bytes[blob.offset as usize..(blob.offset + blob.len) as usize]
    }
}
