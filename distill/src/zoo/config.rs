//! What distinguishes the networks: widths, depths, windows, input size.

use serde::{Deserialize, Serialize};

use super::error::ZooError;
use super::network::Network;
use super::{mci, moat, tiny_vit};

/// Input sizes are multiples of the stride of the last stage.
pub(super) const STRIDE: usize = 32;

/// A network of the zoo.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub config: Config,
}

/// Configuration of a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum Config {
    /// TinyViT: inverted bottlenecks, then attention in windows.
    TinyVit(TinyVitConfig),
    /// MOAT: inverted bottlenecks, then bottlenecks with attention behind them.
    Moat(MoatConfig),
    /// MCi: convolutions that train as several branches, then attention.
    Mci(MciConfig),
}

/// Size of a TinyViT (Wu et al., 2022).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TinyVitConfig {
    /// Height and width of the input.
    pub size: usize,
    /// Classes.
    pub classes: usize,
    /// Channels of the four stages.
    pub widths: [usize; 4],
    /// Blocks of the four stages.
    pub depths: [usize; 4],
    /// Side of the attention windows in stages 1 to 3.
    pub windows: [usize; 3],
    /// Channels per head.
    pub head_size: usize,
    /// Rate at which training drops the branches of the last block; it rises linearly from 0 at the
    /// first.
    pub drop_path: f32,
}

/// Size of a MOAT (Yang et al., 2022).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MoatConfig {
    /// Height and width of the input.
    pub size: usize,
    /// Classes.
    pub classes: usize,
    /// Channels of the stem.
    pub stem: usize,
    /// Channels of the four stages.
    pub widths: [usize; 4],
    /// Blocks of the four stages.
    pub depths: [usize; 4],
    /// Side of the attention windows in stages 2 and 3; global attention without.
    pub windows: Option<[usize; 2]>,
    /// Side of the maps that the position tables of stages 2 and 3 are trained for. They are resized to
    /// the map or window. No position tables without.
    pub tables: Option<[usize; 2]>,
    /// Channels per head.
    pub head_size: usize,
    /// Rate at which training drops the branches of the last block; it rises linearly from 0 at the
    /// first.
    pub drop_path: f32,
}

/// Size of an MCi (Vasu et al., 2024).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MciConfig {
    /// Height and width of the input.
    pub size: usize,
    /// Classes.
    pub classes: usize,
    /// Channels of the four stages.
    pub widths: [usize; 4],
    /// Blocks of the four stages.
    pub depths: [usize; 4],
    /// Convolutions of full size side by side in a MobileOne block, from 1.
    pub branches: usize,
    /// Channels per head.
    pub head_size: usize,
    /// Rate at which training drops the branches of the last block; it rises linearly from 0 at the
    /// first.
    pub drop_path: f32,
}

const TINY_VIT_5M: TinyVitConfig = TinyVitConfig {
    size: 224,
    classes: 1000,
    widths: [64, 128, 160, 320],
    depths: [2, 2, 6, 2],
    windows: [7, 14, 7],
    head_size: 32,
    drop_path: 0.0,
};

const TINY_VIT_21M: TinyVitConfig = TinyVitConfig {
    widths: [96, 192, 384, 576],
    drop_path: 0.2,
    ..TINY_VIT_5M
};

const TINY_MOAT_0: MoatConfig = MoatConfig {
    size: 256,
    classes: 1000,
    stem: 32,
    widths: [32, 64, 128, 256],
    depths: [2, 3, 7, 2],
    windows: None,
    tables: Some([14, 7]),
    head_size: 32,
    drop_path: 0.0,
};

const MOAT_0: MoatConfig = MoatConfig {
    size: 224,
    stem: 64,
    widths: [96, 192, 384, 768],
    drop_path: 0.2,
    ..TINY_MOAT_0
};

/// All networks, by family and size. The sizes are the papers'; the minis are ours.
pub const MODELS: &[Model] = &[
    tiny_vit(
        "tinyvit-mini",
        TinyVitConfig {
            size: 64,
            classes: 9,
            widths: [32, 64, 96, 96],
            depths: [1, 1, 2, 1],
            windows: [4, 4, 2],
            head_size: 32,
            drop_path: 0.0,
        },
    ),
    tiny_vit("tinyvit-5m", TINY_VIT_5M),
    tiny_vit(
        "tinyvit-11m",
        TinyVitConfig {
            widths: [64, 128, 256, 448],
            drop_path: 0.1,
            ..TINY_VIT_5M
        },
    ),
    tiny_vit("tinyvit-21m", TINY_VIT_21M),
    tiny_vit(
        "tinyvit-21m-384",
        TinyVitConfig {
            size: 384,
            drop_path: 0.1,
            windows: [12, 24, 12],
            ..TINY_VIT_21M
        },
    ),
    tiny_vit(
        "tinyvit-21m-512",
        TinyVitConfig {
            size: 512,
            drop_path: 0.1,
            windows: [16, 32, 16],
            ..TINY_VIT_21M
        },
    ),
    moat(
        "tiny-moat-mini",
        MoatConfig {
            size: 64,
            classes: 9,
            stem: 24,
            widths: [24, 32, 64, 96],
            depths: [1, 2, 3, 2],
            windows: None,
            tables: Some([4, 2]),
            head_size: 32,
            drop_path: 0.0,
        },
    ),
    moat("tiny-moat-0", TINY_MOAT_0),
    moat(
        "tiny-moat-1",
        MoatConfig {
            stem: 40,
            widths: [40, 80, 160, 320],
            ..TINY_MOAT_0
        },
    ),
    moat(
        "tiny-moat-2",
        MoatConfig {
            stem: 56,
            widths: [56, 112, 224, 448],
            ..TINY_MOAT_0
        },
    ),
    moat(
        "tiny-moat-3",
        MoatConfig {
            stem: 80,
            widths: [80, 160, 320, 640],
            drop_path: 0.1,
            ..TINY_MOAT_0
        },
    ),
    moat("moat-0", MOAT_0),
    moat(
        "moat-1",
        MoatConfig {
            depths: [2, 6, 14, 2],
            drop_path: 0.3,
            ..MOAT_0
        },
    ),
    Model {
        name: "mci-mini",
        config: Config::Mci(MciConfig {
            size: 64,
            classes: 9,
            widths: [24, 48, 96, 128],
            depths: [1, 2, 3, 1],
            branches: 1,
            head_size: 32,
            drop_path: 0.0,
        }),
    },
];

/// The network with that name.
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|m| m.name == name)
}

const fn tiny_vit(name: &'static str, config: TinyVitConfig) -> Model {
    Model {
        name,
        config: Config::TinyVit(config),
    }
}

const fn moat(name: &'static str, config: MoatConfig) -> Model {
    Model {
        name,
        config: Config::Moat(config),
    }
}

impl Config {
    /// Height and width of the input.
    pub fn size(&self) -> usize {
        match self {
            Config::TinyVit(c) => c.size,
            Config::Moat(c) => c.size,
            Config::Mci(c) => c.size,
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        match self {
            Config::TinyVit(c) => c.classes,
            Config::Moat(c) => c.classes,
            Config::Mci(c) => c.classes,
        }
    }

    /// The same network with another number of classes.
    pub fn with_classes(mut self, classes: usize) -> Self {
        match &mut self {
            Config::TinyVit(c) => c.classes = classes,
            Config::Moat(c) => c.classes = classes,
            Config::Mci(c) => c.classes = classes,
        }
        self
    }

    /// The same network at another input size. TinyViT's windows grow with it, as in the published
    /// networks for 384 and 512; the attention of others stays as it is.
    ///
    /// # Errors
    ///
    /// [`ZooError::Size`] when it is not a multiple of 32.
    pub fn with_size(mut self, size: usize) -> Result<Self, ZooError> {
        check_size(size)?;
        match &mut self {
            Config::TinyVit(c) => {
                c.windows = c.windows.map(|w| w * size / c.size);
                c.size = size;
            }
            Config::Moat(c) => c.size = size,
            Config::Mci(c) => c.size = size,
        }
        Ok(self)
    }

    /// The same network with attention in windows of these sides in stages 2 and 3.
    ///
    /// # Errors
    ///
    /// [`ZooError::Windows`] for all but MOAT (TinyViT's follow from the input size), and for sides of 0.
    pub fn with_windows(mut self, windows: [usize; 2]) -> Result<Self, ZooError> {
        match &mut self {
            Config::Moat(c) if windows.iter().all(|&w| w > 0) => c.windows = Some(windows),
            _ => return Err(ZooError::Windows),
        }
        Ok(self)
    }

    /// The same network with another rate of drop path.
    pub fn with_drop_path(mut self, rate: f32) -> Self {
        match &mut self {
            Config::TinyVit(c) => c.drop_path = rate,
            Config::Moat(c) => c.drop_path = rate,
            Config::Mci(c) => c.drop_path = rate,
        }
        self
    }

    /// The network's layers.
    ///
    /// # Errors
    ///
    /// [`ZooError`] when sizes do not go together.
    pub fn build(&self) -> Result<Network, ZooError> {
        check_size(self.size())?;
        match self {
            Config::TinyVit(c) => {
                check_heads(&c.widths[1..], c.head_size)?;
                Ok(tiny_vit::build(c)?)
            }
            Config::Moat(c) => {
                check_heads(&c.widths[2..], c.head_size)?;
                Ok(moat::build(c)?)
            }
            Config::Mci(c) => {
                check_heads(&c.widths[3..], c.head_size)?;
                Ok(mci::build(c)?)
            }
        }
    }
}

/// Rates of drop path for `blocks` blocks, from 0 to `last`.
pub(super) fn drop_path_rates(last: f32, blocks: usize) -> impl Iterator<Item = f32> {
    (0..blocks).map(move |i| last * i as f32 / blocks.saturating_sub(1).max(1) as f32)
}

fn check_size(size: usize) -> Result<(), ZooError> {
    match size > 0 && size % STRIDE == 0 {
        true => Ok(()),
        false => Err(ZooError::Size { size }),
    }
}

fn check_heads(widths: &[usize], head_size: usize) -> Result<(), ZooError> {
    match widths
        .iter()
        .find(|w| head_size == 0 || *w % head_size != 0)
    {
        None => Ok(()),
        Some(&width) => Err(ZooError::Heads { width, head_size }),
    }
}
