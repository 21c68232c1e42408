//! Elastic networks as files: safetensors with the whole network's parameters under their names and each size's
//! statistics behind its number, and the sizes as metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{Elastic, ElasticError};
use crate::zoo::TinyVitConfig;

/// Key of the metadata.
const KEY: &str = "ampoule.elastic";

#[derive(Serialize, Deserialize)]
struct Sizes {
    config: TinyVitConfig,
    shares: Vec<f64>,
}

impl Elastic {
    /// The file of the network with these values, as [`Elastic::extract`] takes them.
    ///
    /// # Errors
    ///
    /// [`ElasticError::File`] when values are not those of the network.
    pub fn to_bytes(&self, values: &[Vec<f32>]) -> Result<Vec<u8>, ElasticError> {
        let failed = |what: String| ElasticError::File {
            path: "the file to be written".into(),
            what,
        };
        let bytes: Vec<Vec<u8>> = values
            .iter()
            .map(|v| v.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect();
        let names = self.names();
        if names.len() != values.len() {
            let (expected, got) = (names.len(), values.len());
            return Err(failed(format!("expected {expected} tensors, got {got}")));
        }
        let view = |((name, shape), bytes): (&(String, Vec<usize>), _)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            let view = view.map_err(|e| failed(e.to_string()))?;
            Ok::<_, ElasticError>((name.clone(), view))
        };
        let pairs = names.iter().zip(bytes.iter().map(Vec::as_slice));
        let views = pairs.map(view).collect::<Result<BTreeMap<_, _>, _>>()?;
        let sizes = Sizes {
            config: self.config.clone(),
            shares: self.shares.clone(),
        };
        let sizes = serde_json::to_string(&sizes).map_err(|e| failed(e.to_string()))?;
        let metadata = Some(HashMap::from([(KEY.to_owned(), sizes)]));
        safetensors::serialize(views, &metadata).map_err(|e| failed(e.to_string()))
    }

    /// Reads a network and its values.
    ///
    /// # Errors
    ///
    /// [`ElasticError`] when the file can't be read or is something else.
    pub fn read(path: &Path) -> Result<(Self, Vec<Vec<f32>>), ElasticError> {
        let bytes = std::fs::read(path).map_err(|source| ElasticError::Read {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |what: String| ElasticError::File {
            path: path.to_owned(),
            what,
        };
        let metadata = SafeTensors::read_metadata(&bytes);
        let (_, metadata): (usize, Metadata) = metadata.map_err(|e| wrong(no_safetensors(e)))?;
        let sizes = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
        let sizes = sizes.ok_or_else(|| wrong("it names no sizes".to_owned()))?;
        let sizes: Sizes = serde_json::from_str(sizes).map_err(|e| wrong(e.to_string()))?;
        let elastic = Elastic::new(sizes.config, &sizes.shares)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(no_safetensors(e)))?;
        let values = elastic.names().into_iter().map(|(name, shape)| {
            let tensor = file.tensor(&name).map_err(|e| wrong(e.to_string()))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
                return Err(wrong(format!("`{name}` is not {shape:?} of f32")));
            }
            let (floats, _) = tensor.data().as_chunks();
            Ok(floats.iter().map(|b| f32::from_le_bytes(*b)).collect())
        });
        let values = values.collect::<Result<_, ElasticError>>()?;
        Ok((elastic, values))
    }

    /// Names and shapes of the whole network's parameters, then of the statistics of all sizes but the last.
    pub(crate) fn names(&self) -> Vec<(String, Vec<usize>)> {
        let whole = self.whole.parameters().iter();
        let mut names: Vec<_> = whole.map(|p| (p.name.clone(), p.shape.clone())).collect();
        for (i, size) in self.sizes[..self.sizes.len() - 1].iter().enumerate() {
            let parameters = size.network().parameters();
            names.extend(size.statistics().map(|s| {
                let p = &parameters[s];
                (format!("elastic.{i}.{}", p.name), p.shape.clone())
            }));
        }
        names
    }
}

fn no_safetensors(error: safetensors::SafeTensorError) -> String {
    format!("it is no safetensors file, or a damaged one ({error})")
}
