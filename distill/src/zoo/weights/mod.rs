//! Weights of a network: drawn, or read from a file.

mod names;
mod random;
mod read;
mod resize;

use std::collections::BTreeMap;
use std::path::Path;

use super::error::ZooError;
use super::network::{Network, Parameter, Role};
use random::Random;
use read::Stored;

/// Values for all parameters of one network.
#[derive(Debug, Clone)]
pub struct Weights<'n> {
    network: &'n Network,
    values: Vec<Vec<f32>>,
    source: String,
    resized: Vec<String>,
}

impl<'n> Weights<'n> {
    /// Draws weights. Equal seeds give equal weights, on every machine.
    ///
    /// Kernels follow He et al. (normal, `√(2 / fan-in)` behind an activation, `√(1 / fan-in)` elsewhere);
    /// matrices, biases and position tables are normal with deviation 0.02, cut at two deviations. Norms
    /// are not at the identity, as in a trained network: gains and variances are uniform in 0.5..1.5,
    /// offsets and means normal with deviation 0.1.
    pub fn random(network: &'n Network, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let draw = |p: &Parameter| random.parameter(p);
        Weights {
            network,
            values: network.parameters().iter().map(draw).collect(),
            source: format!("random, seed {seed}"),
            resized: Vec::new(),
        }
    }

    /// Reads weights by name from a safetensors file, or from the initialisers of an ONNX file. TinyViT's
    /// may have timm's names or the authors'. Position tables for other windows are resized
    /// bicubically, as timm does. Integers and scalars in the file are no weights and left out.
    ///
    /// # Errors
    ///
    /// [`ZooError`] when the file can't be read, or when it is not just this network's weights.
    pub fn read(network: &'n Network, path: &Path) -> Result<Self, ZooError> {
        let stored = names::modern(read::tensors(path)?);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Weights::assign(network, stored, name.into_owned())
    }

    /// Where the weights come from, in words.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names of the position tables that were resized.
    pub fn resized(&self) -> &[String] {
        &self.resized
    }

    /// The network as an ONNX file whose initialisers have the parameters' names; `architecture` goes into
    /// its metadata. Input `input[batch, 3, H, W]`, output `logits[batch, classes]`.
    pub fn to_onnx(&self, architecture: &str) -> Vec<u8> {
        let graph = self.network.onnx(self.values.iter().map(Vec::as_slice));
        graph.into_model(&[("architecture", architecture), ("weights", &self.source)])
    }

    fn assign(
        network: &'n Network,
        mut stored: BTreeMap<String, Stored>,
        source: String,
    ) -> Result<Self, ZooError> {
        let parameters = network.parameters();
        let missing = parameters.iter().filter(|p| !stored.contains_key(&p.name));
        let names: Vec<String> = missing.map(|p| p.name.clone()).collect();
        if !names.is_empty() {
            return Err(ZooError::Missing {
                names,
                total: parameters.len(),
            });
        }
        let mut weights = Weights {
            network,
            values: Vec::with_capacity(parameters.len()),
            source,
            resized: Vec::new(),
        };
        for parameter in parameters {
            let found = stored.remove(&parameter.name).unwrap_or_default();
            let values = match found.shape == parameter.shape {
                true => found.values,
                false => {
                    weights.resized.push(parameter.name.clone());
                    resized(parameter, found)?
                }
            };
            weights.values.push(values);
        }
        match stored.is_empty() {
            true => Ok(weights),
            false => Err(ZooError::Extra {
                names: stored.into_keys().collect(),
            }),
        }
    }
}

/// A position table of another size, resized.
fn resized(parameter: &Parameter, found: Stored) -> Result<Vec<f32>, ZooError> {
    let sides = (
        side(&found.shape, parameter.shape[0]),
        side(&parameter.shape, parameter.shape[0]),
    );
    match (parameter.role, sides) {
        (Role::Table, (Some(from), Some(to))) => Ok(resize::bicubic(&found.values, from, to)),
        _ => Err(ZooError::Shape {
            name: parameter.name.clone(),
            expected: parameter.shape.clone(),
            found: found.shape,
        }),
    }
}

/// Side of the squares in a table `[heads, side²]` or `[heads, side, side]`.
fn side(shape: &[usize], heads: usize) -> Option<usize> {
    let (first, rest) = shape.split_first()?;
    let side = match *rest {
        [area] => area.isqrt(),
        [side, _] => side,
        _ => return None,
    };
    (*first == heads && side > 0 && rest.iter().product::<usize>() == side * side).then_some(side)
}
