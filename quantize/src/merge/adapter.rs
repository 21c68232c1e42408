//! Low-rank adapters as PEFT and its likes save them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;

use super::error::MergeError;

/// The adapters of a network's layers.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// By the layers' names in the network's source.
    pub layers: BTreeMap<String, LowRank>,
}

/// `scale · B · A`, to be added to a layer's weight.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// Dimensions of A: `[rank, in]`, or `[rank, in, height, width]` of a convolution.
    pub a_shape: Vec<usize>,
    /// A, row-major.
    pub a: Vec<f32>,
    /// Dimensions of B: `[out, rank]`, or `[out, rank, 1, 1]`.
    pub b_shape: Vec<usize>,
    /// B, row-major.
    pub b: Vec<f32>,
    /// Alpha of the layer.
    pub alpha: f32,
    /// Alpha over the rank, or over its root.
    pub scale: f32,
}

impl LowRank {
    /// Number of rows of A.
    pub fn rank(&self) -> usize {
        self.a_shape[0]
    }
}

/// What `adapter_config.json` says of scales.
#[derive(Debug, Default, Deserialize)]
struct Config {
    lora_alpha: Option<f32>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f32>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
}

/// One tensor: dimensions and elements.
type Tensor = (Vec<usize>, Vec<f32>);

impl Adapter {
    /// Reads `FILE.safetensors`, with `adapter_config.json` beside it where there is one. `alpha` comes before
    /// what they say.
    ///
    /// The scale is `alpha / rank` (Hu et al., "LoRA", 2021), or `alpha / √rank` where the configuration or the
    /// file's metadata says `use_rslora` (Kalajdzievski, 2023).
    ///
    /// # Errors
    ///
    /// [`MergeError`] for files that can't be read, tensors that are no pair of low-rank matrices, values that are
    /// not finite, and layers without an alpha.
    pub fn read(path: &Path, alpha: Option<f32>) -> Result<Self, MergeError> {
        let name = path.display().to_string();
        let malformed = |what: String| MergeError::Malformed {
            path: name.clone(),
            what,
        };
        let bytes = std::fs::read(path).map_err(|source| MergeError::Read {
            path: name.clone(),
            source,
        })?;
        let not_safetensors =
            |e| malformed(format!("it is no safetensors file, or a damaged one ({e})"));
        let file = SafeTensors::deserialize(&bytes).map_err(not_safetensors)?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(not_safetensors)?;
        let scales = Scales {
            given: alpha,
            config: config(path)?,
            metadata: metadata.metadata().clone().unwrap_or_default(),
        };
        if scales.config.use_dora {
            return Err(MergeError::Foreign {
                tensor: name,
                what: "it is a DoRA adapter, whose norms depend on the base; merge it in PEFT",
            });
        }
        let mut parts: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
        // In order, so that the same fault is named each time.
        let mut tensors: Vec<_> = file.iter().collect();
        tensors.sort_unstable_by_key(|(name, _)| *name);
        for (tensor, view) in tensors {
            let foreign = |what| MergeError::Foreign {
                tensor: tensor.to_owned(),
                what,
            };
            let (layer, part) = split(tensor).ok_or_else(|| foreign(other_kind(tensor)))?;
            let values =
                decode(&view).ok_or_else(|| foreign("its type is none of f32, f16 and bf16"))?;
            if values.iter().any(|v| !v.is_finite()) {
                return Err(MergeError::NotFinite {
                    what: format!("`{tensor}`"),
                });
            }
            parts.entry(layer).or_default()[part] = Some((view.shape().to_vec(), values));
        }
        if parts.values().all(|p| p[0].is_none() && p[1].is_none()) {
            return Err(MergeError::Nothing {
                path: name,
                tensors: file.len(),
            });
        }
        let layers = parts.into_iter().map(|(layer, [a, b, own])| {
            let half = |has, lacks| MergeError::Half {
                layer: layer.clone(),
                has,
                lacks,
            };
            let (a_shape, a) = a.ok_or_else(|| half("B", "A"))?;
            let (b_shape, b) = b.ok_or_else(|| half("A", "B"))?;
            let own = own.and_then(|(_, values)| values.first().copied());
            let rank = a_shape.first().copied().unwrap_or_default();
            let (alpha, scale) = scales.of(&layer, own, rank)?;
            let low = LowRank {
                a_shape,
                a,
                b_shape,
                b,
                alpha,
                scale,
            };
            Ok((layer, low))
        });
        Ok(Adapter {
            layers: layers.collect::<Result<_, MergeError>>()?,
        })
    }
}

/// Where alphas come from.
struct Scales {
    given: Option<f32>,
    config: Config,
    metadata: HashMap<String, String>,
}

impl Scales {
    /// Alpha and scale of a layer; `own` is what the file has for this layer alone.
    fn of(&self, layer: &str, own: Option<f32>, rank: usize) -> Result<(f32, f32), MergeError> {
        let patterns = &self.config.alpha_pattern;
        let matches = |key: &str| {
            let rest = layer.strip_suffix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let pattern = patterns.iter().find(|(key, _)| matches(key));
        let stated = ["lora_alpha", "alpha", "ss_network_alpha"]
            .iter()
            .find_map(|key| self.metadata.get(*key)?.parse().ok());
        let alpha = self.given.or(own).or(pattern.map(|(_, &alpha)| alpha));
        let alpha = alpha.or(self.config.lora_alpha).or(stated);
        let alpha = alpha.ok_or_else(|| MergeError::NoAlpha {
            layer: layer.to_owned(),
        })?;
        let stated = self.metadata.get("use_rslora");
        let by_root =
            self.config.use_rslora || stated.is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let rank = rank as f32;
        let scale = alpha / if by_root { rank.sqrt() } else { rank };
        match scale.is_finite() {
            true => Ok((alpha, scale)),
            false => Err(MergeError::NotFinite {
                what: format!("the scale of layer `{layer}`"),
            }),
        }
    }
}

fn config(adapter: &Path) -> Result<Config, MergeError> {
    let path = adapter.with_file_name("adapter_config.json");
    let malformed = |what: String| MergeError::Malformed {
        path: path.display().to_string(),
        what,
    };
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        text => text.map_err(|e| malformed(e.to_string()))?,
    };
    let config: Config = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
    // Patterns may be regular expressions; names with dots are read as names.
    let plain = |key: &String| {
        key.chars()
            .all(|c| c.is_alphanumeric() || "._-".contains(c))
    };
    match config.alpha_pattern.keys().find(|key| !plain(key)) {
        Some(key) => Err(malformed(format!(
            "alpha_pattern `{key}` is a regular expression; write the layers' names out"
        ))),
        None => Ok(config),
    }
}

/// A tensor's layer, and whether it is A, B or an alpha.
fn split(tensor: &str) -> Option<(String, usize)> {
    let name = tensor.strip_prefix("base_model.model.").unwrap_or(tensor);
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let name = name.strip_suffix(".default").unwrap_or(name);
    let endings = [
        (".lora_A", 0),
        (".lora_B", 1),
        (".lora_down", 0),
        (".lora_up", 1),
        (".alpha", 2),
    ];
    let mut endings = endings.into_iter();
    endings.find_map(|(end, part)| Some((name.strip_suffix(end)?.to_owned(), part)))
}

/// Why a tensor that is no low-rank matrix can't be merged.
fn other_kind(tensor: &str) -> &'static str {
    if tensor.contains("lora_magnitude_vector") {
        "it is of a DoRA adapter, whose norms depend on the base; merge it in PEFT"
    } else if tensor.contains("lora_embedding") {
        "adapters of embedding tables are not known here; merge it in PEFT"
    } else {
        "it is no low-rank matrix but replaces a weight or bias; merge it in PEFT, then export again"
    }
}

fn decode(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    let half = |decode: fn([u8; 2]) -> f32| data.as_chunks().0.iter().map(|b| decode(*b)).collect();
    Some(match view.dtype() {
        Dtype::F32 => {
            let words = data.as_chunks().0.iter();
            words.map(|b| f32::from_le_bytes(*b)).collect()
        }
        Dtype::F16 => half(|b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => half(|b| bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split() {
        let is = |tensor: &str, layer: &str, part| {
            assert_eq!(split(tensor), Some((layer.to_owned(), part)), "{tensor}");
        };
        is(
            "base_model.model.blocks.0.fc1.lora_A.weight",
            "blocks.0.fc1",
            0,
        );
        is("blocks.0.fc1.lora_B.default.weight", "blocks.0.fc1", 1);
        is("fc.lora_up.weight", "fc", 1);
        is("fc.alpha", "fc", 2);
        assert_eq!(split("base_model.model.head.weight"), None);
    }
}
