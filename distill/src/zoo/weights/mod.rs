//! Weights of a network: drawn, or read from a file.

mod names;
mod random;
mod read;
mod resize;

use std::collections::BTreeMap;
use std::path::Path;

use ampoule_distill_kernels::graph::Parameter;

use super::error::ZooError;
use super::network::{Network, Role};
use random::Random;
use read::Stored;

/// Values for all parameters of a network, in the order of its graph.
#[derive(Debug, Clone)]
pub struct Weights {
    values: Vec<Vec<f32>>,
    source: String,
    resized: Vec<String>,
}

impl Weights {
    /// Draws weights as training starts from them. Equal seeds give equal weights, on every machine.
    ///
    /// Kernels follow He et al. (normal, `√(2 / fan-in)` behind an activation, `√(1 / fan-in)` elsewhere);
    /// matrices and MOAT's position tables are normal with deviation 0.02, cut at two deviations. Norms
    /// are at the identity, but those that end TinyViT's bottlenecks at 0 and those that MCi subtracts at
    /// −1; layer scales are 10⁻⁵, biases and TinyViT's position tables 0.
    pub fn initial(network: &Network, seed: u64) -> Self {
        Weights::draw(network, seed, Random::initial)
    }

    /// Draws weights for tests and timing. Equal seeds give equal weights, on every machine.
    ///
    /// They are those of [`Weights::initial`] but for what starts there as 0 or 1: biases and all
    /// position tables are normal with deviation 0.02, gains and variances uniform in 0.5..1.5 and layer
    /// scales in a tenth of it, offsets and means normal with deviation 0.1.
    pub fn random(network: &Network, seed: u64) -> Self {
        Weights::draw(network, seed, Random::alive)
    }

    fn draw(
        network: &Network,
        seed: u64,
        parameter: fn(&mut Random, Role, &[usize]) -> Vec<f32>,
    ) -> Self {
        Weights {
            values: values(network.parameters(), network.roles(), seed, parameter),
            source: format!("random, seed {seed}"),
            resized: Vec::new(),
        }
    }

    /// Reads weights by name from a safetensors file, or from the initialisers of an ONNX file. TinyViT's
    /// may have timm's names or the authors'. Position tables for other windows are resized, TinyViT's
    /// bicubically, as timm does, and MOAT's bilinearly, as its authors do. Integers and scalars in the
    /// file are no weights and left out.
    ///
    /// # Errors
    ///
    /// [`ZooError`] when the file can't be read, or when it is not just this network's weights.
    pub fn read(network: &Network, path: &Path) -> Result<Self, ZooError> {
        let stored = names::modern(read::tensors(path)?);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Weights::assign(network, stored, name.into_owned())
    }

    /// The values of [`Weights::initial`] for parameters and their roles.
    pub(crate) fn initial_values(
        parameters: &[Parameter],
        roles: &[Role],
        seed: u64,
    ) -> Vec<Vec<f32>> {
        values(parameters, roles, seed, Random::initial)
    }

    /// Values that another reader found.
    pub(crate) fn from_values(values: Vec<Vec<f32>>, source: String) -> Self {
        Weights {
            values,
            source,
            resized: Vec::new(),
        }
    }

    /// The values of each parameter, row-major.
    pub fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// The values of each parameter, to train them.
    pub fn into_values(self) -> Vec<Vec<f32>> {
        self.values
    }

    /// Where the weights come from, in words.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names of the position tables that were resized.
    pub fn resized(&self) -> &[String] {
        &self.resized
    }

    fn assign(
        network: &Network,
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
            values: Vec::with_capacity(parameters.len()),
            source,
            resized: Vec::new(),
        };
        for (parameter, &role) in parameters.iter().zip(network.roles()) {
            let found = stored.remove(&parameter.name).unwrap_or_default();
            let values = match found.shape == parameter.shape {
                true => found.values,
                false => {
                    weights.resized.push(parameter.name.clone());
                    resized(parameter, role, found)?
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
fn resized(parameter: &Parameter, role: Role, found: Stored) -> Result<Vec<f32>, ZooError> {
    let heads = parameter.shape[0];
    let sides = (side(&found.shape, heads), side(&parameter.shape, heads));
    match (role, sides) {
        (Role::Table, (Some(from), Some(to))) => Ok(resize::bicubic(&found.values, from, to)),
        (Role::SignedTable { .. }, (Some(from), Some(to))) => {
            Ok(resize::bilinear(&found.values, from, to))
        }
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

/// Draws the values of parameters one after the other.
fn values(
    parameters: &[Parameter],
    roles: &[Role],
    seed: u64,
    draw: fn(&mut Random, Role, &[usize]) -> Vec<f32>,
) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed);
    let parameters = parameters.iter().zip(roles);
    let values = parameters.map(|(p, &role)| draw(&mut random, role, &p.shape));
    values.collect()
}
