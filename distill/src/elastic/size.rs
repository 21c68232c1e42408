//! A size of an elastic network.

use ampoule_distill_kernels::graph::Kind;

use super::ElasticError;
use crate::zoo::{Config, Network, TinyVitConfig};

/// Channels of the first stage are a multiple of this.
const STEP: usize = 8;

/// A network that is part of a larger one.
#[derive(Debug, Clone)]
pub struct Size {
    config: TinyVitConfig,
    /// Per stage, the whole network's blocks that its own are.
    blocks: [Vec<usize>; 4],
    network: Network,
    /// How often it is drawn, in a round of all sizes.
    times: usize,
}

impl Size {
    /// These shares of widths and blocks, the `places`-th of `count` each.
    pub(super) fn new(
        whole: &TinyVitConfig,
        [width, depth]: [f64; 2],
        places: [usize; 2],
        count: usize,
    ) -> Result<Self, ElasticError> {
        let rounded = |of: usize, share: f64, step: usize| {
            let steps = (of as f64 * share / step as f64).round() as usize;
            (steps.max(1) * step).min(of)
        };
        let mut config = whole.clone();
        for stage in 0..4 {
            let step = if stage == 0 { STEP } else { whole.head_size };
            config.widths[stage] = rounded(whole.widths[stage], width, step);
            if stage > 0 {
                config.depths[stage] = rounded(whole.depths[stage], depth, 1);
            }
        }
        let blocks = [0, 1, 2, 3].map(|stage| {
            let (all, kept) = (whole.depths[stage], config.depths[stage]);
            let block = |i: usize| i * all.saturating_sub(1) / kept.saturating_sub(1).max(1);
            (0..kept).map(block).collect()
        });
        let network = Config::TinyVit(config.clone()).build()?;
        // From 3 times for the smallest to once for the largest, in both dimensions.
        let often = |place: usize| 3.0 - 2.0 * place as f64 / count.saturating_sub(1).max(1) as f64;
        let [a, b] = places.map(often);
        Ok(Size {
            config,
            blocks,
            network,
            times: (a * b).round() as usize,
        })
    }

    /// Widths and depths.
    pub fn config(&self) -> &TinyVitConfig {
        &self.config
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Multiply-accumulates for one picture.
    pub fn macs(&self) -> u64 {
        self.network.macs()
    }

    /// How often it is drawn, in a round of all sizes.
    pub(super) fn times(&self) -> usize {
        self.times
    }

    /// Which of its parameters are statistics.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = usize> {
        let all = self.network.parameters().iter().enumerate();
        all.filter(|(_, p)| p.kind == Kind::Statistic)
            .map(|(i, _)| i)
    }

    /// The whole network's name of one of its parameters.
    pub(super) fn original(&self, name: &str) -> String {
        let parts: Vec<&str> = name.splitn(5, '.').collect();
        if let ["stages", stage, "blocks", block, rest] = parts[..]
            && let (Ok(s), Ok(b)) = (stage.parse::<usize>(), block.parse::<usize>())
            && let Some(original) = self.blocks.get(s).and_then(|blocks| blocks.get(b))
        {
            return format!("stages.{stage}.blocks.{original}.{rest}");
        }
        name.to_owned()
    }
}
