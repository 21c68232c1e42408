//! An ONNX file whose initialisers can be replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::f16;
use prost::Message;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto};

use super::wire::{self, Field};
use crate::import::initializers::{checked, is_float, values};
use crate::import::load::named;
use crate::import::{ImportError, Problem};

/// Numbers of fields in ONNX's messages.
const MODEL_GRAPH: u64 = 7;
const GRAPH_NODE: u64 = 1;
const GRAPH_INITIALIZER: u64 = 5;

/// An ONNX file in memory, with weights from external files in reach.
#[derive(Debug, Clone)]
pub struct OnnxFile {
    /// Its path, for messages.
    pub(super) name: String,
    bytes: Vec<u8>,
    proto: ModelProto,
    folder: Option<PathBuf>,
    replaced: BTreeMap<usize, Vec<f32>>,
}

impl OnnxFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ImportError`] for what is no ONNX model.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let folder = path.parent().map(named);
        let read = || -> Result<_, Problem> {
            let bytes = std::fs::read(path)?;
            let proto = checked(&bytes, folder.as_deref())?;
            Ok((bytes, proto))
        };
        let (bytes, proto) = read().map_err(|p| p.of(&name))?;
        Ok(OnnxFile {
            name,
            bytes,
            proto,
            folder,
            replaced: BTreeMap::new(),
        })
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.graph().node.len()
    }

    /// The bytes of the file with the new initialisers. Weights of external files are inside.
    ///
    /// # Errors
    ///
    /// [`ImportError`] when a weight can't be read.
    pub fn into_bytes(self) -> Result<Vec<u8>, ImportError> {
        self.written().map_err(|p| p.of(&self.name))
    }

    pub(super) fn graph(&self) -> &GraphProto {
        // `checked` refuses models without a graph.
        static EMPTY: std::sync::LazyLock<GraphProto> = std::sync::LazyLock::new(Default::default);
        self.proto.graph.as_ref().unwrap_or(&EMPTY)
    }

    pub(super) fn initializers(&self) -> &[TensorProto] {
        &self.graph().initializer
    }

    pub(super) fn is_float(&self, initializer: usize) -> bool {
        is_float(&self.initializers()[initializer])
    }

    /// Dimensions and elements of an initialiser of floats, as they are now.
    pub(super) fn values(&self, initializer: usize) -> Result<(Vec<usize>, Vec<f32>), ImportError> {
        let tensor = &self.initializers()[initializer];
        if let Some(values) = self.replaced.get(&initializer) {
            let dims = tensor.dims.iter().map(|&d| d as usize).collect();
            return Ok((dims, values.clone()));
        }
        values(tensor, self.folder.as_deref()).map_err(|p| p.of(&self.name))
    }

    pub(super) fn replace(&mut self, initializer: usize, values: Vec<f32>) {
        self.replaced.insert(initializer, values);
    }

    /// The module paths that PyTorch's newer exporter keeps as metadata of nodes.
    pub(super) fn scopes(&self) -> Vec<Option<String>> {
        self.graph_fields()
            .into_iter()
            .flat_map(|(_, fields)| fields)
            .filter(|f| f.number == GRAPH_NODE)
            .map(|f| self.scope(&f))
            .collect()
    }

    fn scope(&self, node: &Field) -> Option<String> {
        const NODE_METADATA: u64 = 9;
        let fields = |f: &Field| wire::fields(&self.bytes, f.content.clone()?);
        let text = |f: &Field| std::str::from_utf8(&self.bytes[f.content.clone()?]).ok();
        let entries = fields(node)?;
        let mut entries = entries.iter().filter(|f| f.number == NODE_METADATA);
        entries.find_map(|entry| match &fields(entry)?[..] {
            [key, value] if text(key) == Some("pkg.torch.onnx.name_scopes") => {
                // A list in Python's words; the last is the function's own name.
                let quoted: Vec<&str> = text(value)?.split('\'').skip(1).step_by(2).collect();
                let (_, modules) = quoted.split_last()?;
                Some((*modules.last()?).to_owned())
            }
            _ => None,
        })
    }

    fn graph_fields(&self) -> Option<(Field, Vec<Field>)> {
        let model = wire::fields(&self.bytes, 0..self.bytes.len())?;
        let graph = model.into_iter().rfind(|f| f.number == MODEL_GRAPH)?;
        let fields = wire::fields(&self.bytes, graph.content.clone()?)?;
        Some((graph, fields))
    }

    fn written(&self) -> Result<Vec<u8>, Problem> {
        let damaged = || Problem::NotOnnx("its graph is in pieces".into());
        let (graph, fields) = self.graph_fields().ok_or_else(damaged)?;
        let mut inner = Vec::with_capacity(self.bytes.len());
        let mut initializer = 0..;
        let copied = fields.iter().filter(|f| f.number == GRAPH_INITIALIZER);
        if copied.count() != self.initializers().len() {
            return Err(damaged());
        }
        for field in fields {
            let index = match field.number == GRAPH_INITIALIZER {
                true => initializer.next(),
                false => None,
            };
            match index.map(|i| self.tensor(i)).transpose()?.flatten() {
                Some(tensor) => wire::push(&mut inner, GRAPH_INITIALIZER, &tensor.encode_to_vec()),
                None => inner.extend(&self.bytes[field.whole]),
            }
        }
        let mut out = self.bytes[..graph.whole.start].to_vec();
        wire::push(&mut out, MODEL_GRAPH, &inner);
        out.extend(&self.bytes[graph.whole.end..]);
        Ok(out)
    }

    /// The tensor to write in place of what the file has, where it is another.
    fn tensor(&self, initializer: usize) -> Result<Option<TensorProto>, Problem> {
        let old = &self.initializers()[initializer];
        let outside = old.data_location == Some(DataLocation::External as i32);
        let data = match self.replaced.get(&initializer) {
            Some(data) => data.clone(),
            None if outside && is_float(old) => values(old, self.folder.as_deref())?.1,
            None if outside => {
                return Err(Problem::ExternalData {
                    tensor: old.name.clone(),
                    location: String::new(),
                    what: "only floats can be taken into the file".into(),
                });
            }
            None => return Ok(None),
        };
        let raw_data = match DataType::try_from(old.data_type) {
            Ok(DataType::Float16) => {
                let halves = data.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes());
                halves.collect()
            }
            Ok(DataType::Double) => data
                .iter()
                .flat_map(|&v| f64::from(v).to_le_bytes())
                .collect(),
            _ => data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        Ok(Some(TensorProto {
            dims: old.dims.clone(),
            data_type: old.data_type,
            name: old.name.clone(),
            doc_string: old.doc_string.clone(),
            raw_data,
            ..TensorProto::default()
        }))
    }
}
