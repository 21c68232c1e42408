//! Elastic students (POA, Zhang et al., "POA: Pre-training Once for Models of All Sizes", 2024): one set of weights
//! from which networks of many sizes are cut, each made of the first channels, heads and hidden units of every layer
//! and of some of the blocks.
//!
//! [`Elastic`] has the sizes. Training ([`Trainer::elastic`](crate::train::Trainer::elastic)) shows each batch to the
//! whole network and to one of the others, which learns from the same targets and from the whole; small ones are drawn
//! more often. Each size has batch statistics of its own, because those of the whole are of other values. A cut layer's
//! input counts by the factor whole channels over cut channels, which is folded into the weights of a network that is
//! cut out: [`Elastic::extract`] gives a plain one.
//!
//! TinyViT's layers are made for it: queries, keys and values are packed per head, and all norms are of the channels
//! that are there. The first stage keeps its blocks, because what follows an addition there is not the identity.
//!
//! ```
//! use ampoule_distill::elastic::Elastic;
//! use ampoule_distill::zoo::{self, Config};
//! let Config::TinyVit(config) = zoo::find("tinyvit-mini").unwrap().config.clone() else { unreachable!() };
//! let elastic = Elastic::new(config, &[0.34, 0.67]).unwrap();
//! assert_eq!(elastic.sizes().len(), 6);
//! let smallest = &elastic.sizes()[0];
//! assert_eq!(smallest.config().widths, [8, 32, 32, 32]);
//! assert!(smallest.macs() < elastic.whole().macs() / 3);
//! ```

mod file;
mod order;
mod size;
mod slice;

use ampoule_distill_kernels::graph::GraphError;
use thiserror::Error;

use crate::zoo::{Config, Network, TinyVitConfig, Weights, ZooError};
pub(crate) use order::Order;
pub use size::Size;
pub(crate) use slice::Slices;

/// What can go wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ElasticError {
    /// A network that has no sizes below its own.
    #[error(
        "the shares {shares:?} give no size below the whole network; give smaller ones, as 0.34,0.67"
    )]
    NoSizes {
        /// The shares.
        shares: Vec<f64>,
    },
    /// A share that is none.
    #[error(
        "a share of {share}: expected more than 0 and less than 1, or 1 for all of a network that is trained alone, as 0.5"
    )]
    Share {
        /// The share.
        share: f64,
    },
    /// Networks of these sizes can't be built.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// Layers that do not go together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A file that can't be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is no elastic network.
    #[error("`{path}` is no elastic network: {what}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing that small.
    #[error("no size has at most {budget} multiply-accumulates; the smallest has {least}")]
    Budget {
        /// What was asked for.
        budget: u64,
        /// Of the smallest size.
        least: u64,
    },
}

/// A network and the smaller ones in it.
#[derive(Debug, Clone)]
pub struct Elastic {
    config: TinyVitConfig,
    shares: Vec<f64>,
    whole: Network,
    /// By multiply-accumulates; the last is the whole network.
    sizes: Vec<Size>,
}

impl Elastic {
    /// All pairs of these shares of the widths and these shares of the blocks, and of all of them. Widths are rounded
    /// to whole heads, those of the first stage to eights; at least one head and one block stay.
    ///
    /// # Errors
    ///
    /// [`ElasticError`] for shares that are none or give nothing smaller.
    pub fn new(config: TinyVitConfig, shares: &[f64]) -> Result<Self, ElasticError> {
        if let Some(&share) = shares.iter().find(|s| !(**s > 0.0 && **s < 1.0)) {
            return Err(ElasticError::Share { share });
        }
        let whole = Config::TinyVit(config.clone()).build()?;
        let mut steps = shares.to_vec();
        steps.push(1.0);
        steps.sort_by(f64::total_cmp);
        let mut sizes: Vec<Size> = Vec::new();
        for (w, &width) in steps.iter().enumerate() {
            for (d, &depth) in steps.iter().enumerate() {
                let size = Size::new(&config, [width, depth], [w, d], steps.len())?;
                if sizes.iter().all(|s| s.config() != size.config()) {
                    sizes.push(size);
                }
            }
        }
        sizes.sort_by_key(Size::macs);
        if sizes.len() < 2 {
            let shares = shares.to_vec();
            return Err(ElasticError::NoSizes { shares });
        }
        Ok(Elastic {
            config,
            shares: shares.to_vec(),
            whole,
            sizes,
        })
    }

    /// The whole network.
    pub fn whole(&self) -> &Network {
        &self.whole
    }

    /// All sizes by multiply-accumulates; the last is the whole network.
    pub fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    /// The largest size of at most so many multiply-accumulates.
    ///
    /// # Errors
    ///
    /// [`ElasticError::Budget`] when there is none.
    pub fn within(&self, budget: u64) -> Result<&Size, ElasticError> {
        let fitting = self.sizes.iter().rfind(|s| s.macs() <= budget);
        fitting.ok_or(ElasticError::Budget {
            budget,
            least: self.sizes[0].macs(),
        })
    }

    /// The configuration with these shares of widths and blocks, rounded as sizes are.
    ///
    /// # Errors
    ///
    /// [`ElasticError`] for shares that are none.
    pub fn shrunk(config: &TinyVitConfig, shares: [f64; 2]) -> Result<TinyVitConfig, ElasticError> {
        if let Some(&share) = shares.iter().find(|s| !(**s > 0.0 && **s <= 1.0)) {
            return Err(ElasticError::Share { share });
        }
        Ok(Size::new(config, shares, [0, 0], 1)?.config().clone())
    }

    /// The weights of a size as those of a plain network: the first rows and columns of the whole's, times the factor
    /// of a cut input, and the size's own batch statistics. `values` are the whole network's parameters and then, size
    /// by size but the last, the statistics.
    ///
    /// # Errors
    ///
    /// [`ElasticError::Graph`] when the size is of another network.
    pub fn extract(&self, size: &Size, values: &[Vec<f32>]) -> Result<Weights, ElasticError> {
        let at = self.sizes.iter().position(|s| s.config() == size.config());
        let slices = Slices::new(&self.whole, size)?;
        let mut own = slices.room();
        slices.gather(values, &mut own);
        if let Some(at) = at.filter(|at| at + 1 < self.sizes.len()) {
            let before = self.sizes[..at].iter().map(|s| s.statistics().count());
            let first = self.whole.parameters().len() + before.sum::<usize>();
            for (to, from) in size.statistics().zip(&values[first..]) {
                own[to].clone_from(from);
            }
        }
        Ok(Weights::from_values(own, "an elastic network".to_owned()))
    }
}
