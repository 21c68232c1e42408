//! TinyViT (Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", 2022), with
//! timm's parameter names.

use ampoule_distill_kernels::graph::{Activation, GraphError, Lane, Map, Value};
use ampoule_distill_kernels::ops::Window;

use super::builder::{Builder, Built};
use super::config::{TinyVitConfig, drop_path_rates};
use super::network::{Network, Role};

const BN_EPSILON: f32 = 1e-5;
const BN_MOMENTUM: f32 = 0.1;
const EXPANSION: usize = 4;

pub(super) fn build(config: &TinyVitConfig) -> Result<Network, GraphError> {
    let mut net = Builder::default();
    let x = net.graph.input(Map::new(config.size, config.size, 3));
    let (widths, depths) = (config.widths, config.depths);
    let mut rates = drop_path_rates(config.drop_path, depths.iter().sum());
    let mut x = net.part("patch_embed", "2 × convolution 3×3 / 2".into(), |net| {
        let stem = Window::square(3, 2);
        let x = conv_norm(net, x, "patch_embed.conv1", widths[0] / 2, stem)?;
        let x = net.activation(x, "patch_embed.act", Activation::Gelu)?;
        conv_norm(net, x, "patch_embed.conv2", widths[0], stem)
    })?;
    let operator = format!("{} × inverted bottleneck", depths[0]);
    x = net.part("stages.0", operator, |net| {
        (0..depths[0]).try_fold(x, |x, i| {
            let name = format!("stages.0.blocks.{i}");
            bottleneck(net, x, &name, rates.next().unwrap_or(0.0))
        })
    })?;
    for stage in 1..4 {
        let (depth, side) = (depths[stage], config.windows[stage - 1]);
        let name = format!("stages.{stage}");
        let down = format!("{name}.downsample");
        x = net.part(&down, "merging / 2".into(), |net| {
            merging(net, x, &down, widths[stage])
        })?;
        let operator = format!("{depth} × attention in {side}×{side}");
        x = net.part(&name, operator, |net| {
            (0..depth).try_fold(x, |x, i| {
                let block = Block {
                    name: format!("{name}.blocks.{i}"),
                    side,
                    head_size: config.head_size,
                    drop_path: rates.next().unwrap_or(0.0),
                };
                block.build(net, x)
            })
        })?;
    }
    let x = net.part("head", "mean, norm, linear".into(), |net| {
        let x = net.mean(x, "head.global_pool")?;
        let x = net.layer_norm(x, "head.norm")?;
        net.linear(x, "head.fc", config.classes)
    })?;
    Ok(net.finish(x))
}

/// Convolution and batch norm.
fn conv_norm(net: &mut Builder, x: Value, name: &str, out: usize, window: Window) -> Built {
    let x = net.conv(x, &format!("{name}.conv"), out, window, false)?;
    norm(net, x, name, Role::Gain)
}

/// Depthwise 3×3 convolution and batch norm.
fn depthwise_norm(net: &mut Builder, x: Value, name: &str, stride: usize) -> Built {
    let x = net.depthwise(x, &format!("{name}.conv"), Window::square(3, stride), false)?;
    norm(net, x, name, Role::Gain)
}

fn norm(net: &mut Builder, x: Value, name: &str, gain: Role) -> Built {
    net.batch_norm(x, &format!("{name}.bn"), gain, BN_EPSILON, BN_MOMENTUM)
}

/// Inverted bottleneck; the last activation follows the addition.
fn bottleneck(net: &mut Builder, x: Value, name: &str, drop_path: f32) -> Built {
    let c = net.map(x).channels;
    let y = conv_norm(
        net,
        x,
        &format!("{name}.conv1"),
        EXPANSION * c,
        Window::POINT,
    )?;
    let y = net.activation(y, &format!("{name}.act1"), Activation::Gelu)?;
    let y = depthwise_norm(net, y, &format!("{name}.conv2"), 1)?;
    let y = net.activation(y, &format!("{name}.act2"), Activation::Gelu)?;
    let last = format!("{name}.conv3");
    let y = net.conv(y, &format!("{last}.conv"), c, Window::POINT, false)?;
    let y = norm(net, y, &last, Role::LastGain)?;
    let y = net.add(x, y, name, drop_path)?;
    net.activation(y, &format!("{name}.act3"), Activation::Gelu)
}

/// Halves the map and changes the width.
fn merging(net: &mut Builder, x: Value, name: &str, out: usize) -> Built {
    let x = conv_norm(net, x, &format!("{name}.conv1"), out, Window::POINT)?;
    let x = net.activation(x, &format!("{name}.act1"), Activation::Gelu)?;
    let x = depthwise_norm(net, x, &format!("{name}.conv2"), 2)?;
    let x = net.activation(x, &format!("{name}.act2"), Activation::Gelu)?;
    conv_norm(net, x, &format!("{name}.conv3"), out, Window::POINT)
}

/// Attention in windows, depthwise convolution without residual, MLP.
struct Block {
    name: String,
    /// Side of the windows.
    side: usize,
    head_size: usize,
    drop_path: f32,
}

impl Block {
    fn build(&self, net: &mut Builder, x: Value) -> Built {
        let (c, name) = (net.map(x).channels, &self.name);
        let attention = format!("{name}.attn");
        let y = self.attention(net, x, &attention)?;
        let x = net.add(x, y, &attention, self.drop_path)?;
        let x = depthwise_norm(net, x, &format!("{name}.local_conv"), 1)?;
        let y = net.layer_norm(x, &format!("{name}.mlp.norm"))?;
        let y = net.linear(y, &format!("{name}.mlp.fc1"), EXPANSION * c)?;
        let y = net.activation(y, &format!("{name}.mlp.act"), Activation::Gelu)?;
        let y = net.linear(y, &format!("{name}.mlp.fc2"), c)?;
        net.add(x, y, &format!("{name}.mlp"), self.drop_path)
    }

    /// Attention on a zero-padded map: padding passes through the norm and counts as keys. Queries, keys
    /// and values are packed per head. The bias depends on the absolute offsets of query and key.
    fn attention(&self, net: &mut Builder, x: Value, name: &str) -> Built {
        let (c, d, window) = (net.map(x).channels, self.head_size, [self.side; 2]);
        let (y, padding) = net.pad(x, name, window)?;
        let y = net.layer_norm(y, &format!("{name}.norm"))?;
        let y = net.linear(y, &format!("{name}.qkv"), 3 * c)?;
        let lanes = [0, 1, 2].map(|i| Lane {
            input: 0,
            offset: i * d,
            stride: 3 * d,
        });
        let bias = net.absolute_bias(name, c / d, self.side);
        let y = net.attention(&[y], name, [c / d, d], lanes, window, Some(bias))?;
        let y = net.linear(y, &format!("{name}.proj"), c)?;
        net.crop(y, name, padding)
    }
}
