//! How an optimiser treats each parameter.

use crate::graph::{Kind, Parameter};

/// A parameter, as optimisers see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    pub name: String,
    /// Values; none for statistics.
    pub len: usize,
    /// Factor of weight decay.
    pub decay: f32,
    /// Factor of the learning rate.
    pub factor: f32,
}

/// The parameters' blocks. Those of one axis, or without weight decay, are not decayed.
pub(super) fn blocks(parameters: &[Parameter], factors: &[f32], weight_decay: f32) -> Vec<Block> {
    let block = |(i, p): (usize, &Parameter)| Block {
        name: p.name.clone(),
        len: if p.kind == Kind::Statistic {
            0
        } else {
            p.len()
        },
        decay: match p.kind {
            Kind::Weight if p.shape.len() > 1 => weight_decay,
            _ => 0.0,
        },
        factor: factors.get(i).copied().unwrap_or(1.0),
    };
    parameters.iter().enumerate().map(block).collect()
}

/// Factors of the learning rate that fall by `decay` per layer from the head to the stem, as TinyViT is
/// fine-tuned with. Layers come in the order of their first parameters; what names of one layer share is
/// `stages.1.blocks.0` (up to the second number), `stem.0` or `head`.
pub fn layer_decay(parameters: &[Parameter], decay: f32) -> Vec<f32> {
    let mut layers: Vec<&str> = Vec::new();
    let mut depth = |name| match layers.iter().position(|&l| l == name) {
        Some(known) => known,
        None => {
            layers.push(name);
            layers.len() - 1
        }
    };
    let depths: Vec<usize> = parameters.iter().map(|p| depth(layer(&p.name))).collect();
    let deepest = layers.len().saturating_sub(1);
    depths
        .iter()
        .map(|d| decay.powi((deepest - d) as i32))
        .collect()
}

/// The part of a name that its whole layer shares.
fn layer(name: &str) -> &str {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut ends = Vec::new();
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if is_number(part) {
            ends.push(end);
        }
        end += 1;
    }
    let first = name.find('.').unwrap_or(name.len());
    let at = ends.get(1).or(ends.first()).copied().unwrap_or(first);
    &name[..at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_towards_the_stem() {
        let names = [
            "patch_embed.conv1.weight",
            "patch_embed.conv2.weight",
            "stages.0.blocks.0.conv1.weight",
            "stages.0.blocks.1.conv1.weight",
            "stages.0.blocks.1.mlp.0.weight",
            "stages.1.downsample.weight",
            "stages.1.blocks.0.attn.qkv.weight",
            "head.weight",
            "head.bias",
        ];
        let parameter = |name: &str| Parameter {
            name: name.into(),
            shape: vec![2, 2],
            kind: Kind::Weight,
        };
        let factors = layer_decay(&names.map(parameter), 0.5);
        let expected = [0.03125, 0.03125, 0.0625, 0.125, 0.125, 0.25, 0.5, 1.0, 1.0];
        assert_eq!(factors, expected);
        assert!(layer_decay(&[], 0.5).is_empty());
    }
}
