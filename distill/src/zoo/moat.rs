//! MOAT (Yang et al., "MOAT: Alternating Mobile Convolution and Attention Brings Strong Vision Models",
//! 2022). Layers have the names of the authors' TensorFlow code, parameters the shapes of PyTorch:
//!
//! | prefix | layers |
//! |---|---|
//! | `stem` | `conv1`, `norm1`, `conv2` |
//! | `stages.i.blocks.j` | `pre_norm`, `expand_conv`, `expand_norm`, `depthwise_conv`, `depthwise_norm`, `se.reduce`, `se.expand`, `shrink_conv`, and `shortcut_conv` where the width changes |
//! | … of stages 2 and 3 | also `attention_norm`, `attention.{q, k, v, o}`, `attention.relative_position_embedding` |
//! | `head` | `norm`, `fc` |

use ampoule_distill_kernels::graph::{Activation, GraphError, Lane, Map, Op, Value};
use ampoule_distill_kernels::ops::Window;

use super::builder::{Builder, Built};
use super::config::{MoatConfig, drop_path_rates};
use super::network::{Network, Role};

const BN_EPSILON: f32 = 1e-3;
/// Keras' momentum is the share of what was there: 0.99.
const BN_MOMENTUM: f32 = 0.01;
const EXPANSION: usize = 4;
/// Width of a squeeze-excite over that of the block.
const SQUEEZE: usize = 4;
/// Halves a map of even sides.
const HALVE: Window = Window {
    kernel: [2; 2],
    stride: [2; 2],
    pads: [0; 4],
};

pub(super) fn build(config: &MoatConfig) -> Result<Network, GraphError> {
    let mut net = Builder::default();
    let x = net.graph.input(Map::new(config.size, config.size, 3));
    let mut rates = drop_path_rates(config.drop_path, config.depths.iter().sum());
    let mut x = net.part("stem", "2 × convolution 3×3, / 2".into(), |net| {
        let x = net.conv(x, "stem.conv1", config.stem, same(net.map(x), 2), true)?;
        let x = norm_gelu(net, x, "stem.norm1")?;
        net.conv(x, "stem.conv2", config.stem, same(net.map(x), 1), true)
    })?;
    for stage in 0..4 {
        let (width, depth) = (config.widths[stage], config.depths[stage]);
        let attention = stage.checked_sub(2).map(|i| Attention {
            head_size: config.head_size,
            window: config.windows.map(|w| w[i]),
            table: config.tables.map(|t| t[i]),
        });
        let name = format!("stages.{stage}");
        x = net.part(&name, describe(depth, attention.as_ref()), |net| {
            (0..depth).try_fold(x, |x, i| {
                let block = Block {
                    name: format!("{name}.blocks.{i}"),
                    width,
                    stride: if i == 0 { 2 } else { 1 },
                    squeeze: attention.is_none(),
                    drop_path: rates.next().unwrap_or(0.0),
                };
                let x = block.build(net, x)?;
                match &attention {
                    Some(a) => a.build(net, x, &block),
                    None => Ok(x),
                }
            })
        })?;
    }
    let x = net.part("head", "mean, norm, linear".into(), |net| {
        let x = net.mean(x, "head.mean")?;
        let x = net.layer_norm(x, "head.norm")?;
        net.linear(x, "head.fc", config.classes)
    })?;
    Ok(net.finish(x))
}

fn describe(depth: usize, attention: Option<&Attention>) -> String {
    match attention.map(|a| a.window) {
        None => format!("{depth} × inverted bottleneck with squeeze-excite, / 2"),
        Some(None) => format!("{depth} × bottleneck, global attention, / 2"),
        Some(Some(w)) => format!("{depth} × bottleneck, attention in {w}×{w}, / 2"),
    }
}

/// Inverted bottleneck with norms before the convolutions and none after the last.
struct Block {
    name: String,
    width: usize,
    stride: usize,
    /// Whether it has squeeze-excite.
    squeeze: bool,
    drop_path: f32,
}

impl Block {
    fn build(&self, net: &mut Builder, x: Value) -> Built {
        let layer = |layer: &str| format!("{}.{layer}", self.name);
        let (out, wide) = (self.width, EXPANSION * self.width);
        let mut skip = x;
        if self.stride > 1 {
            let pool = Op::AveragePool(HALVE);
            skip = net.graph.push(layer("shortcut_pool"), pool, &[skip])?;
        }
        if net.map(skip).channels != out {
            skip = net.conv(skip, &layer("shortcut_conv"), out, Window::POINT, true)?;
        }
        let y = norm(net, x, &layer("pre_norm"))?;
        let y = net.conv(y, &layer("expand_conv"), wide, Window::POINT, false)?;
        let y = norm_gelu(net, y, &layer("expand_norm"))?;
        let window = same(net.map(y), self.stride);
        let y = net.depthwise(y, &layer("depthwise_conv"), window, false)?;
        let mut y = norm_gelu(net, y, &layer("depthwise_norm"))?;
        if self.squeeze {
            y = squeeze_excite(net, y, &layer("se"), (out / SQUEEZE).max(1))?;
        }
        let y = net.conv(y, &layer("shrink_conv"), out, Window::POINT, true)?;
        net.add(skip, y, &self.name, self.drop_path)
    }
}

/// A factor per channel from the means of all.
fn squeeze_excite(net: &mut Builder, x: Value, name: &str, reduced: usize) -> Built {
    let wide = net.map(x).channels;
    let y = net.mean(x, name)?;
    let y = net.conv(y, &format!("{name}.reduce"), reduced, Window::POINT, true)?;
    let y = net.activation(y, &format!("{name}.act"), Activation::Silu)?;
    let y = net.conv(y, &format!("{name}.expand"), wide, Window::POINT, true)?;
    let y = net.activation(y, name, Activation::Sigmoid)?;
    net.graph.push(name, Op::Gate, &[x, y])
}

/// Attention behind a bottleneck.
struct Attention {
    head_size: usize,
    /// Side of the windows; global without.
    window: Option<usize>,
    /// Side of the map that the position table is trained for; no table without.
    table: Option<usize>,
}

impl Attention {
    /// Norm, attention and shortcut. The map is padded with zeros behind the norm where windows do not
    /// divide it.
    fn build(&self, net: &mut Builder, x: Value, block: &Block) -> Built {
        let name = format!("{}.attention", block.name);
        let (map, d) = (net.map(x), self.head_size);
        let (c, heads) = (map.channels, map.channels / d);
        let window = self
            .window
            .map_or([map.height, map.width], |side| [side; 2]);
        let y = net.layer_norm(x, &format!("{name}_norm"))?;
        let (y, padding) = net.pad(y, &name, window)?;
        let mut parts = [y; 3];
        for (part, layer) in parts.iter_mut().zip(["q", "k", "v"]) {
            *part = net.linear(y, &format!("{name}.{layer}"), c)?;
        }
        let lanes = [0, 1, 2].map(|input| Lane {
            input,
            offset: 0,
            stride: d,
        });
        let table = self.table;
        let bias = table.map(|t| net.signed_bias(&name, heads, t, window));
        let y = net.attention(&parts, &name, [heads, d], lanes, window, bias)?;
        let y = net.linear(y, &format!("{name}.o"), c)?;
        let y = net.crop(y, &name, padding)?;
        net.add(x, y, &name, block.drop_path)
    }
}

fn norm(net: &mut Builder, x: Value, name: &str) -> Built {
    net.batch_norm(x, name, Role::Gain, BN_EPSILON, BN_MOMENTUM)
}

fn norm_gelu(net: &mut Builder, x: Value, name: &str) -> Built {
    let x = norm(net, x, name)?;
    net.activation(x, name, Activation::Gelu)
}

/// A 3×3 window with TensorFlow's padding, whose odd pixel goes to the bottom and the right.
fn same(map: Map, stride: usize) -> Window {
    const KERNEL: usize = 3;
    let [vertical, horizontal] = [map.height, map.width].map(|size| {
        let covered = (size.div_ceil(stride) - 1) * stride + KERNEL;
        let total = covered.saturating_sub(size);
        [total / 2, total.div_ceil(2)]
    });
    Window {
        kernel: [KERNEL; 2],
        stride: [stride; 2],
        pads: [vertical[0], horizontal[0], vertical[1], horizontal[1]],
    }
}
