//! The weights of an ONNX file, by name.

use std::path::Path;

use tract_onnx::data_resolver::MmapDataResolver;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};
use tract_onnx::tensor::load_tensor;

use super::error::{ImportError, Problem};
use super::guard::guarded;
use super::load::{invalid, named, read};
use super::{check, oracle};

/// A constant of floats in an ONNX file.
#[derive(Debug, Clone, PartialEq)]
pub struct Initializer {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its data, row-major.
    pub values: Vec<f32>,
}

/// The initialisers of a file that hold floats, as f32.
pub fn initializers(path: impl AsRef<Path>) -> Result<Vec<Initializer>, ImportError> {
    let path = path.as_ref();
    load(path).map_err(|problem| problem.of(&path.display().to_string()))
}

fn load(path: &Path) -> Result<Vec<Initializer>, Problem> {
    let folder = path.parent().map(named);
    let proto = checked(&std::fs::read(path)?, folder.as_deref())?;
    let tensors = proto.graph.map(|g| g.initializer).unwrap_or_default();
    let floats = tensors.into_iter().filter(is_float);
    floats
        .map(|t| {
            let (shape, values) = values(&t, folder.as_deref())?;
            Ok(Initializer {
                name: t.name,
                shape,
                values,
            })
        })
        .collect()
}

/// The file's message; `folder` is where its external weights may be.
pub(crate) fn checked(bytes: &[u8], folder: Option<&Path>) -> Result<ModelProto, Problem> {
    let proto = read(bytes)?;
    check::check(&proto, folder)?;
    Ok(proto)
}

/// Dimensions and elements of a tensor of floats.
pub(crate) fn values(
    tensor: &TensorProto,
    folder: Option<&Path>,
) -> Result<(Vec<usize>, Vec<f32>), Problem> {
    let folder = folder.and_then(Path::to_str);
    guarded("reading weights", || {
        load_tensor(&MmapDataResolver, tensor, folder)
            .and_then(|t| oracle::tensor(&t))
            .map_err(invalid("reading weights"))
    })
}

pub(crate) fn is_float(tensor: &TensorProto) -> bool {
    let kind = DataType::try_from(tensor.data_type);
    matches!(
        kind,
        Ok(DataType::Float | DataType::Float16 | DataType::Double)
    )
}
