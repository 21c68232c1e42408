//! TinyViT (Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", 2022), with
//! timm's parameter names.

use super::attention;
use super::config::TinyVitConfig;
use super::network::{Network, POINT, Tensor, Window};

const BN_EPSILON: f32 = 1e-5;
const EXPANSION: usize = 4;

pub(super) fn build(config: &TinyVitConfig) -> Network {
    let mut net = Network::new();
    let x = net.input(config.size);
    let widths = config.widths;
    let mut x = net.part("patch_embed", "2 × convolution 3×3 / 2".into(), |net| {
        let x = conv_norm(net, &x, "patch_embed.conv1", widths[0] / 2, square(2), 1);
        let x = net.gelu(&x, "patch_embed.act");
        conv_norm(net, &x, "patch_embed.conv2", widths[0], square(2), 1)
    });
    let depth = config.depths[0];
    x = net.part(
        "stages.0",
        format!("{depth} × inverted bottleneck"),
        |net| {
            (0..depth).fold(x, |x, i| {
                bottleneck(net, &x, &format!("stages.0.blocks.{i}"))
            })
        },
    );
    for stage in 1..4 {
        let (depth, window) = (config.depths[stage], config.windows[stage - 1]);
        let name = format!("stages.{stage}");
        let down = format!("{name}.downsample");
        x = net.part(&down, "merging / 2".into(), |net| {
            merging(net, &x, &down, widths[stage])
        });
        let operator = format!("{depth} × attention in {window}×{window}");
        x = net.part(&name, operator, |net| {
            let x = net.channels_last(&x, &down);
            let x = (0..depth).fold(x, |x, i| {
                let name = format!("{name}.blocks.{i}");
                block(net, &x, &name, window, config.head_size)
            });
            net.channels_first(&x, &name)
        });
    }
    let x = net.part("head", "mean, norm, linear".into(), |net| {
        let x = net.mean(&x, "head.global_pool");
        let x = net.flatten(&x, "head.flatten");
        let x = net.layer_norm(&x, "head.norm");
        net.linear(&x, "head.fc", config.classes)
    });
    net.output(&x);
    net
}

/// Convolution and batch norm.
fn conv_norm(
    net: &mut Network,
    x: &Tensor,
    name: &str,
    out: usize,
    window: Window,
    groups: usize,
) -> Tensor {
    let x = net.conv(x, &format!("{name}.conv"), out, window, groups, false);
    net.batch_norm(&x, &format!("{name}.bn"), BN_EPSILON)
}

/// Inverted bottleneck; the last activation follows the addition.
fn bottleneck(net: &mut Network, x: &Tensor, name: &str) -> Tensor {
    let [c, ..] = x.map();
    let wide = EXPANSION * c;
    let y = conv_norm(net, x, &format!("{name}.conv1"), wide, POINT, 1);
    let y = net.gelu(&y, &format!("{name}.act1"));
    let y = conv_norm(net, &y, &format!("{name}.conv2"), wide, square(1), wide);
    let y = net.gelu(&y, &format!("{name}.act2"));
    let y = conv_norm(net, &y, &format!("{name}.conv3"), c, POINT, 1);
    let y = net.add(&y, x, name);
    net.gelu(&y, &format!("{name}.act3"))
}

/// Halves the map and changes the width.
fn merging(net: &mut Network, x: &Tensor, name: &str, out: usize) -> Tensor {
    let x = conv_norm(net, x, &format!("{name}.conv1"), out, POINT, 1);
    let x = net.gelu(&x, &format!("{name}.act1"));
    let x = conv_norm(net, &x, &format!("{name}.conv2"), out, square(2), out);
    let x = net.gelu(&x, &format!("{name}.act2"));
    conv_norm(net, &x, &format!("{name}.conv3"), out, POINT, 1)
}

/// Attention in windows, depthwise convolution without residual, MLP, on `[H, W, C]`.
fn block(net: &mut Network, x: &Tensor, name: &str, window: usize, head_size: usize) -> Tensor {
    let c = x.channels();
    let y = attention(net, x, &format!("{name}.attn"), window, head_size);
    let x = net.add(x, &y, &format!("{name}.attn"));
    let local = format!("{name}.local_conv");
    let y = net.channels_first(&x, &local);
    let y = conv_norm(net, &y, &local, c, square(1), c);
    let x = net.channels_last(&y, &local);
    let y = net.layer_norm(&x, &format!("{name}.mlp.norm"));
    let y = net.linear(&y, &format!("{name}.mlp.fc1"), EXPANSION * c);
    let y = net.gelu(&y, &format!("{name}.mlp.act"));
    let y = net.linear(&y, &format!("{name}.mlp.fc2"), c);
    net.add(&x, &y, &format!("{name}.mlp"))
}

/// Attention in windows of a zero-padded map: padding passes through the norm and counts as keys. Queries,
/// keys and values are packed per head. The bias depends on the absolute offsets of query and key.
fn attention(net: &mut Network, x: &Tensor, name: &str, side: usize, head_size: usize) -> Tensor {
    let c = x.channels();
    let (heads, tokens) = (c / head_size, side * side);
    let (y, grid) = attention::cut(net, x, name, [side; 2]);
    let y = net.layer_norm(&y, &format!("{name}.norm"));
    let y = net.linear(&y, &format!("{name}.qkv"), 3 * c);
    let y = net.reshape(&y, name, &[tokens, heads, 3 * head_size]);
    let parts = attention::split(net, &y, name);
    let bias = attention::absolute_bias(net, name, heads, side);
    let y = attention::attend(net, parts, Some(bias), name);
    let y = net.linear(&y, &format!("{name}.proj"), c);
    attention::merge(net, &y, name, &grid)
}

fn square(stride: usize) -> Window {
    Window {
        kernel: 3,
        stride,
        same: false,
    }
}
