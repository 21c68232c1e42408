//! Tensors by name from safetensors and ONNX files.

use std::collections::BTreeMap;
use std::path::Path;

use ampoule_quantize::import;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::super::error::ZooError;

/// A tensor of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// All tensors of floats that are no scalars.
pub(super) fn tensors(path: &Path) -> Result<BTreeMap<String, Stored>, ZooError> {
    let is_onnx = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
    let mut tensors = if is_onnx {
        onnx(path)?
    } else {
        safetensors(path)?
    };
    tensors.retain(|_, t| !t.shape.is_empty());
    Ok(tensors)
}

fn onnx(path: &Path) -> Result<BTreeMap<String, Stored>, ZooError> {
    let stored = |t: import::Initializer| {
        let tensor = Stored {
            shape: t.shape,
            values: t.values,
        };
        (t.name, tensor)
    };
    Ok(import::initializers(path)?
        .into_iter()
        .map(stored)
        .collect())
}

fn safetensors(path: &Path) -> Result<BTreeMap<String, Stored>, ZooError> {
    let bytes = std::fs::read(path).map_err(|source| ZooError::Read {
        path: path.to_owned(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| ZooError::Safetensors {
        path: path.to_owned(),
        what: e.to_string(),
    })?;
    let floats = file.iter().filter(|(_, view)| !is_integer(view.dtype()));
    floats
        .map(|(name, view)| Ok((name.to_owned(), decode(name, &view)?)))
        .collect()
}

fn decode(name: &str, view: &TensorView<'_>) -> Result<Stored, ZooError> {
    let data = view.data();
    let half = |decode: fn([u8; 2]) -> f32| data.as_chunks().0.iter().map(|b| decode(*b)).collect();
    let values = match view.dtype() {
        Dtype::F32 => data
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Dtype::F16 => half(|b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => half(|b| bf16::from_le_bytes(b).to_f32()),
        other => {
            return Err(ZooError::Type {
                name: name.to_owned(),
                found: format!("{other:?}"),
            });
        }
    };
    Ok(Stored {
        shape: view.shape().to_vec(),
        values,
    })
}

/// Counters and indices, which are in the state of a PyTorch module.
fn is_integer(dtype: Dtype) -> bool {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(dtype, BOOL | U8 | I8 | I16 | U16 | I32 | U32 | I64 | U64)
}
