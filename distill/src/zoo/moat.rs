//! MOAT (Yang et al., "MOAT: Alternating Mobile Convolution and Attention Brings Strong Vision Models",
//! 2022). Layers have the names of the authors' TensorFlow code, parameters the shapes of PyTorch:
//!
//! | prefix | layers |
//! |---|---|
//! | `stem` | `conv1`, `norm1`, `conv2` |
//! | `stages.i.blocks.j` | `pre_norm`, `expand_conv`, `expand_norm`, `depthwise_conv`, `depthwise_norm`, `se.reduce`, `se.expand`, `shrink_conv`, and `shortcut_conv` where the width changes |
//! | … of stages 2 and 3 | also `attention_norm`, `attention.{q, k, v, o}`, `attention.relative_position_embedding` |
//! | `head` | `norm`, `fc` |

use super::attention;
use super::config::MoatConfig;
use super::network::{Network, POINT, Tensor, Window};

const BN_EPSILON: f32 = 1e-3;
const EXPANSION: usize = 4;
/// Width of a squeeze-excite over that of the block.
const SQUEEZE: usize = 4;

pub(super) fn build(config: &MoatConfig) -> Network {
    let mut net = Network::new();
    let x = net.input(config.size);
    let mut x = net.part("stem", "2 × convolution 3×3, / 2".into(), |net| {
        let x = net.conv(&x, "stem.conv1", config.stem, square(2), 1, true);
        let x = norm_gelu(net, &x, "stem.norm1");
        net.conv(&x, "stem.conv2", config.stem, square(1), 1, true)
    });
    for stage in 0..4 {
        let (width, depth) = (config.widths[stage], config.depths[stage]);
        let attention = stage.checked_sub(2).map(|i| Attention {
            head_size: config.head_size,
            window: config.windows.map(|w| w[i]),
            table: config.tables.map(|t| t[i]),
        });
        let name = format!("stages.{stage}");
        x = net.part(&name, describe(depth, attention.as_ref()), |net| {
            (0..depth).fold(x, |x, i| {
                let (name, stride) = (format!("{name}.blocks.{i}"), if i == 0 { 2 } else { 1 });
                let x = bottleneck(net, &x, &name, width, stride, attention.is_none());
                match &attention {
                    Some(a) => a.build(net, &x, &name),
                    None => x,
                }
            })
        });
    }
    let x = net.part("head", "mean, norm, linear".into(), |net| {
        let x = net.mean(&x, "head.mean");
        let x = net.flatten(&x, "head.flatten");
        let x = net.layer_norm(&x, "head.norm");
        net.linear(&x, "head.fc", config.classes)
    });
    net.output(&x);
    net
}

fn describe(depth: usize, attention: Option<&Attention>) -> String {
    match attention.map(|a| a.window) {
        None => format!("{depth} × inverted bottleneck with squeeze-excite, / 2"),
        Some(None) => format!("{depth} × bottleneck, global attention, / 2"),
        Some(Some(w)) => format!("{depth} × bottleneck, attention in {w}×{w}, / 2"),
    }
}

/// Inverted bottleneck with norms before the convolutions and none after the last. `squeeze` adds
/// squeeze-excite.
fn bottleneck(
    net: &mut Network,
    x: &Tensor,
    name: &str,
    out: usize,
    stride: usize,
    squeeze: bool,
) -> Tensor {
    let layer = |layer: &str| format!("{name}.{layer}");
    let wide = EXPANSION * out;
    let mut skip = x.clone();
    if stride > 1 {
        skip = net.halve(&skip, &layer("shortcut_pool"));
    }
    if skip.shape[0] != out {
        skip = net.conv(&skip, &layer("shortcut_conv"), out, POINT, 1, true);
    }
    let y = net.batch_norm(x, &layer("pre_norm"), BN_EPSILON);
    let y = net.conv(&y, &layer("expand_conv"), wide, POINT, 1, false);
    let y = norm_gelu(net, &y, &layer("expand_norm"));
    let y = net.conv(
        &y,
        &layer("depthwise_conv"),
        wide,
        square(stride),
        wide,
        false,
    );
    let mut y = norm_gelu(net, &y, &layer("depthwise_norm"));
    if squeeze {
        let gate = net.mean(&y, &layer("se"));
        let reduced = (out / SQUEEZE).max(1);
        let gate = net.conv(&gate, &layer("se.reduce"), reduced, POINT, 1, true);
        let gate = net.silu(&gate, &layer("se.act"));
        let gate = net.conv(&gate, &layer("se.expand"), wide, POINT, 1, true);
        let gate = net.sigmoid(&gate, &layer("se"));
        y = net.scale(&y, &gate, &layer("se"));
    }
    let y = net.conv(&y, &layer("shrink_conv"), out, POINT, 1, true);
    net.add(&skip, &y, name)
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
    fn build(&self, net: &mut Network, x: &Tensor, block: &str) -> Tensor {
        let name = format!("{block}.attention");
        let [c, height, width] = x.map();
        let heads = c / self.head_size;
        let window = self.window.map_or([height, width], |side| [side; 2]);
        let y = net.channels_last(x, &name);
        let y = net.layer_norm(&y, &format!("{block}.attention_norm"));
        let (y, grid) = attention::cut(net, &y, &name, window);
        let tokens = y.shape[0];
        let parts = ["q", "k", "v"].map(|part| {
            let part = net.linear(&y, &format!("{name}.{part}"), c);
            net.reshape(&part, &name, &[tokens, heads, self.head_size])
        });
        let table = self.table;
        let bias = table.map(|t| attention::signed_bias(net, &name, heads, t, window));
        let y = attention::attend(net, parts, bias, &name);
        let y = net.linear(&y, &format!("{name}.o"), c);
        let y = attention::merge(net, &y, &name, &grid);
        let y = net.channels_first(&y, &name);
        net.add(x, &y, &name)
    }
}

fn norm_gelu(net: &mut Network, x: &Tensor, name: &str) -> Tensor {
    let x = net.batch_norm(x, name, BN_EPSILON);
    net.gelu(&x, name)
}

fn square(stride: usize) -> Window {
    Window {
        kernel: 3,
        stride,
        same: true,
    }
}
