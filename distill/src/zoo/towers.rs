//! Two towers, one for pictures and one for texts, whose embeddings lie in one space (CLIP, Radford et al.,
//! 2021).

use ampoule_distill_kernels::graph::{Activation, Graph, Kind, Op};
use serde::Serialize;

use super::builder::Builder;
use super::config::{Config, TinyVitConfig};
use super::error::ZooError;
use super::network::Network;
use super::text::TextConfig;

/// Name of the parameter that is the logarithm of what cosines are multiplied by.
pub const TEMPERATURE: &str = "logit_scale";

/// Sizes of a pair of towers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TowersConfig {
    /// The picture tower; its classes are the length of the embedding.
    pub image: Config,
    /// The text tower.
    pub text: TextConfig,
}

/// A pair of towers.
#[derive(Debug, Clone)]
pub struct Towers {
    /// From `[H, W, 3]` to an embedding of length 1.
    pub image: Network,
    /// From `[1, tokens, 1]` ids to an embedding of length 1.
    pub text: Network,
}

/// The pair `clip-mini`, at most 1.5 million parameters each with a vocabulary of 8192: a TinyViT for
/// pictures of 64×64, and two transformer blocks for 32 tokens.
pub fn clip_mini(vocabulary: usize) -> TowersConfig {
    let embedding = 128;
    TowersConfig {
        image: Config::TinyVit(TinyVitConfig {
            size: 64,
            classes: embedding,
            widths: [32, 64, 128, 192],
            depths: [1, 1, 2, 1],
            windows: [8, 4, 2],
            head_size: 32,
            drop_path: 0.0,
        }),
        text: TextConfig {
            vocabulary,
            tokens: 32,
            width: 128,
            depth: 2,
            heads: 4,
            hidden: 512,
            embedding,
        },
    }
}

impl TowersConfig {
    /// The towers' layers.
    ///
    /// # Errors
    ///
    /// [`ZooError`] when sizes do not go together.
    pub fn build(&self) -> Result<Towers, ZooError> {
        let image = self.image.clone().with_classes(self.text.embedding);
        let mut image = image.build()?;
        for output in image.graph.take_outputs() {
            let unit = image.graph.push("normalize", Op::Normalize, &[output])?;
            image.graph.output(unit);
        }
        Ok(Towers {
            image,
            text: self.text.build()?,
        })
    }
}

/// Hidden channels of the head that a trunk gets.
const HEAD: usize = 512;
/// Name of that head.
pub const HEAD_NAME: &str = "embed";

impl Towers {
    /// A picture tower from the first layers of another network, trained already or not: its map, or its
    /// vector, goes through a hidden layer, a mean over the pixels and a linear layer. The head's
    /// parameters, whose names begin with [`HEAD_NAME`], come behind the trunk's.
    ///
    /// # Errors
    ///
    /// [`ZooError`] when sizes do not go together.
    pub fn on_trunk(trunk: Network, text: &TextConfig) -> Result<Self, ZooError> {
        let mut net = Builder::from(trunk);
        let outputs = net.graph.take_outputs();
        let x = *outputs.first().ok_or(ZooError::NoOutput)?;
        let x = net.part(HEAD_NAME, "hidden, mean, linear".into(), |net| {
            let x = net.linear(x, "embed.hidden", HEAD)?;
            let x = net.activation(x, "embed.act", Activation::Gelu)?;
            let x = net.mean(x, "embed.mean")?;
            let x = net.linear(x, "embed.linear", text.embedding)?;
            net.graph.push("normalize", Op::Normalize, &[x])
        })?;
        Ok(Towers {
            image: net.finish(x),
            text: text.build()?,
        })
    }

    /// Both in one graph: inputs pictures and ids, outputs their embeddings. Its parameters are those of the
    /// picture tower, of the text tower, and [`TEMPERATURE`].
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        graph.append(self.image.graph(), "image.");
        graph.append(self.text.graph(), "text.");
        graph.parameter(TEMPERATURE, &[1], Kind::Undecayed);
        graph
    }

    /// The two towers' parameters among those of [`Towers::graph`].
    pub fn split<'v>(&self, values: &'v [Vec<f32>]) -> [&'v [Vec<f32>]; 2] {
        let (image, rest) = values.split_at(self.image.parameters().len());
        [image, &rest[..self.text.parameters().len()]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clip_mini_is_small() {
        let towers = clip_mini(8192).build().expect("it fits");
        let counts = [&towers.image, &towers.text].map(Network::parameter_count);
        assert_eq!(counts, [1_035_368, 1_473_920]);
        let graph = towers.graph();
        assert_eq!(graph.parameter_count() as u64, counts[0] + counts[1] + 1);
        assert_eq!([graph.inputs().len(), graph.outputs().len()], [2, 2]);
        assert!(graph.parameters()[0].name.starts_with("image."));
    }

    #[test]
    fn a_trunk_gets_a_head() {
        let text = clip_mini(100).text;
        let trunk = clip_mini(100).image.build().expect("it fits");
        let (own, map) = (trunk.parameter_count(), text.embedding);
        let towers = Towers::on_trunk(trunk, &text).expect("it fits");
        let head = map * HEAD + HEAD + HEAD * map + map;
        assert_eq!(towers.image.parameter_count(), own + head as u64);
        let last = towers.image.parameters().last().expect("some");
        assert!(last.name.starts_with(HEAD_NAME), "{}", last.name);
        let outputs = towers.image.graph().outputs();
        assert_eq!(towers.image.graph().map(outputs[0]).len(), map);
    }
}
