//! MCi, the image tower of MobileCLIP (Vasu et al., "MobileCLIP: Fast Image-Text Models through
//! Multi-Modal Reinforced Training", 2024; its blocks are those of FastViT and MobileOne), with timm's
//! parameter names. Blocks train as several branches, each with its norm, and
//! [`export`](crate::export) with `fold` makes one convolution of them.
//!
//! | prefix | layers |
//! |---|---|
//! | `stem.i` | MobileOne blocks: `conv_kxk.k`, `conv_scale`, `identity` |
//! | `stages.i.downsample.proj` | `0.{large_conv, small_conv}`, `0.se` into the last two stages, `1` (MobileOne) |
//! | `stages.i.blocks.j` | `token_mixer.{norm, mixer, layer_scale}` or `norm`, `token_mixer.{qkv, proj}`, `layer_scale_1`; `mlp.{conv, fc1, fc2}`, `layer_scale` |
//! | `stages.3.pos_emb` | 7×7 around the pixel, before attention |
//! | `final_conv` | `0` and `1` (MobileOne), `se` |
//! | `head` | `fc` |
//!
//! Where the authors' convolutions give each channel two results, in front of stages and at the end, these
//! are a depthwise and a 1×1 convolution.

use ampoule_distill_kernels::graph::{Activation, GraphError, Lane, Map, Op, Value};
use ampoule_distill_kernels::ops::Window;

use super::builder::{Builder, Built};
use super::config::{MciConfig, drop_path_rates};
use super::network::{Network, Role};

const BN_EPSILON: f32 = 1e-5;
const BN_MOMENTUM: f32 = 0.1;
/// Width inside an MLP over that of its block.
const EXPANSION: usize = 3;
/// Width of a convolution over that of its squeeze-excite, in front of stages and at the end.
const SQUEEZE: [usize; 2] = [4, 16];

pub(super) fn build(config: &MciConfig) -> Result<Network, GraphError> {
    let mut net = Builder::default();
    let x = net.graph.input(Map::new(config.size, config.size, 3));
    let (widths, depths) = (config.widths, config.depths);
    let one = MobileOne {
        branches: config.branches,
        activated: true,
    };
    let mut rates = drop_path_rates(config.drop_path, depths.iter().sum());
    let mut x = net.part("stem", "3 MobileOne blocks / 4".into(), |net| {
        let x = one.dense(net, x, "stem.0", widths[0], Window::square(3, 2))?;
        let x = one.depthwise(net, x, "stem.1", Window::square(3, 2))?;
        one.dense(net, x, "stem.2", widths[0], Window::POINT)
    })?;
    for stage in 0..4 {
        let name = format!("stages.{stage}");
        if stage > 0 {
            let down = format!("{name}.downsample");
            x = net.part(&down, "7×7 and 3×3, MobileOne / 2".into(), |net| {
                let x = large_kernel(net, x, &format!("{down}.proj.0"), stage > 1)?;
                one.dense(
                    net,
                    x,
                    &format!("{down}.proj.1"),
                    widths[stage],
                    Window::POINT,
                )
            })?;
        }
        let attends = stage == 3;
        let mixer = if attends { "attention" } else { "RepMixer" };
        let operator = format!("{} × {mixer}, MLP", depths[stage]);
        x = net.part(&name, operator, |net| {
            if attends {
                x = position_encoding(net, x, &format!("{name}.pos_emb"))?;
            }
            (0..depths[stage]).try_fold(x, |x, i| {
                let block = Block {
                    name: format!("{name}.blocks.{i}"),
                    head_size: attends.then_some(config.head_size),
                    drop_path: rates.next().unwrap_or(0.0),
                };
                block.build(net, x)
            })
        })?;
    }
    x = net.part(
        "final_conv",
        "2 MobileOne blocks, squeeze-excite".into(),
        |net| {
            let plain = MobileOne {
                activated: false,
                ..one
            };
            let x = one.depthwise(net, x, "final_conv.0", Window::square(3, 1))?;
            let x = plain.dense(net, x, "final_conv.1", 2 * widths[3], Window::POINT)?;
            let x = squeeze_excite(net, x, "final_conv.se", SQUEEZE[1])?;
            net.activation(x, "final_conv", Activation::Gelu)
        },
    )?;
    let x = net.part("head", "mean, linear".into(), |net| {
        let x = net.mean(x, "head.global_pool")?;
        net.linear(x, "head.fc", config.classes)
    })?;
    Ok(net.finish(x))
}

/// A MobileOne block: convolutions side by side, each with its norm, a 1×1 one beside larger ones, and a
/// norm alone where the shape stays.
#[derive(Clone, Copy)]
struct MobileOne {
    /// Convolutions of full size.
    branches: usize,
    /// Whether a GELU follows.
    activated: bool,
}

impl MobileOne {
    fn dense(self, net: &mut Builder, x: Value, name: &str, out: usize, window: Window) -> Built {
        self.build(net, x, name, window, |net, x, name, window| {
            net.conv(x, name, out, window, false)
        })
    }

    fn depthwise(self, net: &mut Builder, x: Value, name: &str, window: Window) -> Built {
        self.build(net, x, name, window, |net, x, name, window| {
            net.depthwise(x, name, window, false)
        })
    }

    fn build(
        self,
        net: &mut Builder,
        x: Value,
        name: &str,
        window: Window,
        conv: impl Fn(&mut Builder, Value, &str, Window) -> Built,
    ) -> Built {
        let mut branches = Vec::new();
        let mut add = |net: &mut Builder, branch: &str, window: Window| -> Built {
            let branch = format!("{name}.{branch}");
            let y = conv(net, x, &format!("{branch}.conv"), window)?;
            let y = norm(net, y, &format!("{branch}.bn"), Role::Gain)?;
            branches.push(y);
            Ok(y)
        };
        let mut y = x;
        for i in 0..self.branches {
            y = add(net, &format!("conv_kxk.{i}"), window)?;
        }
        if window.taps() > 1 {
            let point = Window {
                stride: window.stride,
                ..Window::POINT
            };
            y = add(net, "conv_scale", point)?;
        }
        if net.map(x) == net.map(y) {
            branches.push(norm(net, x, &format!("{name}.identity"), Role::Gain)?);
        }
        let y = sum(net, &branches, name)?;
        match self.activated {
            true => net.activation(y, name, Activation::Gelu),
            false => Ok(y),
        }
    }
}

/// A mixer of pixels or tokens, then an MLP.
struct Block {
    name: String,
    /// Channels per head of attention; RepMixer without.
    head_size: Option<usize>,
    drop_path: f32,
}

impl Block {
    fn build(&self, net: &mut Builder, x: Value) -> Built {
        let name = &self.name;
        let (x, scale) = match self.head_size {
            Some(d) => (self.attention(net, x, d)?, "layer_scale_2"),
            None => (self.mixer(net, x)?, "layer_scale"),
        };
        let c = net.map(x).channels;
        let y = net.depthwise(
            x,
            &format!("{name}.mlp.conv.conv"),
            Window::square(7, 1),
            false,
        )?;
        let y = norm(net, y, &format!("{name}.mlp.conv.bn"), Role::Gain)?;
        let y = net.conv(
            y,
            &format!("{name}.mlp.fc1"),
            EXPANSION * c,
            Window::POINT,
            true,
        )?;
        let y = net.activation(y, &format!("{name}.mlp.act"), Activation::Gelu)?;
        let y = net.conv(y, &format!("{name}.mlp.fc2"), c, Window::POINT, true)?;
        let y = net.layer_scale(y, &format!("{name}.{scale}"))?;
        net.add(x, y, &format!("{name}.mlp"), self.drop_path)
    }

    /// `x + scale · (mixer(x) − norm(x))`. The norm's gain and offset have the other sign, so that it is
    /// one of the mixer's branches.
    fn mixer(&self, net: &mut Builder, x: Value) -> Built {
        let name = format!("{}.token_mixer", self.name);
        let one = MobileOne {
            branches: 1,
            activated: false,
        };
        let mixed = one.depthwise(net, x, &format!("{name}.mixer"), Window::square(3, 1))?;
        let less = norm(net, x, &format!("{name}.norm.identity"), Role::NegativeGain)?;
        let y = sum(net, &[mixed, less], &name)?;
        let y = net.layer_scale(y, &format!("{name}.layer_scale"))?;
        net.add(x, y, &name, 0.0)
    }

    /// Attention of all pixels behind a batch norm.
    fn attention(&self, net: &mut Builder, x: Value, d: usize) -> Built {
        let (name, map) = (format!("{}.token_mixer", self.name), net.map(x));
        let c = map.channels;
        let y = norm(net, x, &format!("{}.norm", self.name), Role::Gain)?;
        let y = net.projection(y, &format!("{name}.qkv"), 3 * c)?;
        let lanes = [0, 1, 2].map(|i| Lane {
            input: 0,
            offset: i * c,
            stride: d,
        });
        let window = [map.height, map.width];
        let y = net.attention(&[y], &name, [c / d, d], lanes, window, None)?;
        let y = net.linear(y, &format!("{name}.proj"), c)?;
        let y = net.layer_scale(y, &format!("{}.layer_scale_1", self.name))?;
        net.add(x, y, &name, self.drop_path)
    }
}

/// Depthwise 7×7 and 3×3 side by side, halving the map; squeeze-excite; GELU.
fn large_kernel(net: &mut Builder, x: Value, name: &str, squeeze: bool) -> Built {
    let mut branches = Vec::new();
    for (branch, kernel) in [("large_conv", 7), ("small_conv", 3)] {
        let branch = format!("{name}.{branch}");
        let y = net.depthwise(
            x,
            &format!("{branch}.conv"),
            Window::square(kernel, 2),
            false,
        )?;
        branches.push(norm(net, y, &format!("{branch}.bn"), Role::Gain)?);
    }
    let mut y = sum(net, &branches, name)?;
    if squeeze {
        y = squeeze_excite(net, y, &format!("{name}.se"), SQUEEZE[0])?;
    }
    net.activation(y, name, Activation::Gelu)
}

/// Adds a depthwise 7×7 convolution to the map: where a pixel is.
fn position_encoding(net: &mut Builder, x: Value, name: &str) -> Built {
    let y = net.depthwise(x, &format!("{name}.pos_enc"), Window::square(7, 1), true)?;
    net.add(x, y, name, 0.0)
}

/// A factor per channel from the means of all.
fn squeeze_excite(net: &mut Builder, x: Value, name: &str, ratio: usize) -> Built {
    let c = net.map(x).channels;
    let reduced = (c / ratio).max(1);
    let y = net.mean(x, name)?;
    let y = net.conv(y, &format!("{name}.fc1"), reduced, Window::POINT, true)?;
    let y = net.activation(y, &format!("{name}.act"), Activation::Relu)?;
    let y = net.conv(y, &format!("{name}.fc2"), c, Window::POINT, true)?;
    let y = net.activation(y, name, Activation::Sigmoid)?;
    net.graph.push(name, Op::Gate, &[x, y])
}

fn norm(net: &mut Builder, x: Value, name: &str, gain: Role) -> Built {
    net.batch_norm(x, name, gain, BN_EPSILON, BN_MOMENTUM)
}

/// Sum of branches; of one the branch.
fn sum(net: &mut Builder, branches: &[Value], name: &str) -> Built {
    match branches {
        [branch] => Ok(*branch),
        _ => net.graph.push(name, Op::Add { drop_path: 0.0 }, branches),
    }
}
