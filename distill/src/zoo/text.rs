//! The text tower: a small transformer over token ids, after CLIP's (Radford et al., 2021) and MiniLM's, with
//! a weighted mean over the tokens in place of one special token.

use ampoule_distill_kernels::graph::{Activation, Map, Op, Value};
use serde::{Deserialize, Serialize};

use super::builder::{Builder, Built};
use super::error::ZooError;
use super::network::{Network, Role};

/// Size of a text tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Tokens of the vocabulary; 0 is padding.
    pub vocabulary: usize,
    /// Tokens of a text, with padding.
    pub tokens: usize,
    /// Channels of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads, which divide the width.
    pub heads: usize,
    /// Hidden units of the MLP.
    pub hidden: usize,
    /// Length of the embedding.
    pub embedding: usize,
}

impl TextConfig {
    /// Token and position vectors, pre-norm blocks of attention and MLP in which padding is not seen, a
    /// mean over the tokens that weighs each by a learnt number, a linear layer, and length 1.
    ///
    /// # Errors
    ///
    /// [`ZooError`] when heads do not divide the width.
    pub fn build(&self) -> Result<Network, ZooError> {
        if self.heads == 0 || self.width % self.heads != 0 {
            return Err(ZooError::Heads {
                width: self.width,
                head_size: self.width / self.heads.max(1),
            });
        }
        let mut net = Builder::default();
        let ids = net.graph.input(Map::new(1, self.tokens, 1));
        let table = [self.vocabulary, self.width];
        let mut x = net.part("tokens", format!("{} tokens", self.vocabulary), |net| {
            let x = net.embedding(ids, "tokens", table, Role::Embedding)?;
            net.positions(x, "positions")
        })?;
        for i in 0..self.depth {
            let name = format!("blocks.{i}");
            x = net.part(&name, "attention, MLP".into(), |net| {
                self.block(net, x, ids, &name)
            })?;
        }
        let x = net.part("head", "weighted mean, linear".into(), |net| {
            let weights = net.embedding(ids, "pool", [self.vocabulary, 1], Role::Gain)?;
            let x = net
                .graph
                .push("pool.mean", Op::MaskedMean, &[x, ids, weights])?;
            let x = net.linear(x, "head", self.embedding)?;
            net.graph.push("normalize", Op::Normalize, &[x])
        })?;
        Ok(net.finish(x))
    }

    fn block(&self, net: &mut Builder, x: Value, ids: Value, name: &str) -> Built {
        let y = net.layer_norm(x, &format!("{name}.norm1"))?;
        let y = net.linear(y, &format!("{name}.qkv"), 3 * self.width)?;
        let y = net.token_attention(y, ids, &format!("{name}.attn"), self.heads)?;
        let y = net.linear(y, &format!("{name}.proj"), self.width)?;
        let x = net.add(x, y, &format!("{name}.attn"), 0.0)?;
        let y = net.layer_norm(x, &format!("{name}.norm2"))?;
        let y = net.linear(y, &format!("{name}.fc1"), self.hidden)?;
        let y = net.activation(y, &format!("{name}.act"), Activation::Gelu)?;
        let y = net.linear(y, &format!("{name}.fc2"), self.width)?;
        net.add(x, y, &format!("{name}.mlp"), 0.0)
    }
}
