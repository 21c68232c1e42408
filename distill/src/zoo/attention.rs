//! What the attention of both families shares: windows, position biases, and the products.

use ampoule_quantize::export::Attribute;

use super::network::{Network, Role, Tensor};

/// How a map is cut into windows.
pub(super) struct Grid {
    /// Height and width of the map.
    map: [usize; 2],
    /// Windows along height and width.
    windows: [usize; 2],
    /// Height and width of a window.
    window: [usize; 2],
}

impl Grid {
    /// Height and width with the padding that completes the last windows.
    fn padded(&self) -> [usize; 2] {
        [0, 1].map(|i| self.windows[i] * self.window[i])
    }

    /// The shape `[rows, h, columns, w, C]` that tells windows from what is inside them.
    fn split(&self, c: usize) -> [usize; 5] {
        let ([rows, columns], [height, width]) = (self.windows, self.window);
        [rows, height, columns, width, c]
    }
}

/// Cuts `[H, W, C]` into windows `[h·w, C]`, which become part of the batch. A map that is no multiple of
/// the window is padded with zeros at the bottom and the right.
pub(super) fn cut(net: &mut Network, x: &Tensor, name: &str, window: [usize; 2]) -> (Tensor, Grid) {
    let (map, c) = ([x.shape[0], x.shape[1]], x.channels());
    let windows = [0, 1].map(|i| map[i].div_ceil(window[i]));
    let grid = Grid {
        map,
        windows,
        window,
    };
    let tokens = [window[0] * window[1], c];
    if windows == [1, 1] && map == window {
        return (net.reshape(x, name, &tokens), grid);
    }
    let mut x = x.clone();
    let padded = grid.padded();
    if padded != map {
        let after = [0, 1].map(|i| (padded[i] - map[i]) as i64);
        let pads = net.graph().list(&[0, 0, 0, 0, 0, after[0], after[1], 0]);
        let value = net.node("Pad", name, &[&x.value, &pads], &[]);
        x = x.then(value, vec![padded[0], padded[1], c]);
    }
    let x = net.reshape(&x, name, &grid.split(c));
    let x = net.transpose(&x, name, &[0, 2, 1, 3, 4]);
    let batch = windows[0] * windows[1];
    (net.reshape_batch(&x, name, batch, &tokens), grid)
}

/// Puts windows `[h·w, C]` together to `[H, W, C]`, without the padding.
pub(super) fn merge(net: &mut Network, x: &Tensor, name: &str, grid: &Grid) -> Tensor {
    let (c, [height, width]) = (x.channels(), grid.map);
    if x.batch == 1 && grid.padded() == grid.map {
        return net.reshape(x, name, &[height, width, c]);
    }
    let [rows, h, columns, w, _] = grid.split(c);
    let x = net.reshape_batch(x, name, 1, &[rows, columns, h, w, c]);
    let x = net.transpose(&x, name, &[0, 2, 1, 3, 4]);
    let padded = grid.padded();
    let x = net.reshape(&x, name, &[padded[0], padded[1], c]);
    if padded == grid.map {
        return x;
    }
    let lists = [[0, 0], grid.map.map(|d| d as i64), [1, 2]].map(|list| net.graph().list(&list));
    let value = net.node(
        "Slice",
        name,
        &[&x.value, &lists[0], &lists[1], &lists[2]],
        &[],
    );
    x.then(value, vec![height, width, c])
}

/// Cuts the channels of tokens into three.
pub(super) fn split(net: &mut Network, x: &Tensor, name: &str) -> [Tensor; 3] {
    let mut shape = x.shape.clone();
    let last = shape.len() - 1;
    shape[last] /= 3;
    let sizes = net.graph().list(&[shape[last] as i64; 3]);
    let name = format!("{name}/Split");
    let attributes = [("axis", Attribute::Int(-1))];
    let values = net
        .graph()
        .node_with_outputs("Split", &name, &[&x.value, &sizes], &attributes);
    values.map(|value| x.then(value, shape.clone()))
}

/// `softmax(q·kᵀ / √d + bias)·v` of `q`, `k`, `v` `[N, h, d]`, as `[N, h·d]`. The bias is `[h, N, N]`.
pub(super) fn attend(
    net: &mut Network,
    [q, k, v]: [Tensor; 3],
    bias: Option<String>,
    name: &str,
) -> Tensor {
    let [tokens, heads, d] = q.map();
    let factor = net.graph().scalar((d as f32).powf(-0.5));
    let q = net.transpose(&q, name, &[1, 0, 2]);
    let k = net.transpose(&k, name, &[1, 2, 0]);
    let v = net.transpose(&v, name, &[1, 0, 2]);
    let q_scaled = net.node("Mul", name, &[&q.value, &factor], &[]);
    let mut scores = net.node("MatMul", name, &[&q_scaled, &k.value], &[]);
    if let Some(bias) = bias {
        scores = net.node("Add", name, &[&scores, &bias], &[]);
    }
    let shares = net.node("Softmax", name, &[&scores], &[("axis", Attribute::Int(-1))]);
    let value = net.node("MatMul", name, &[&shares, &v.value], &[]);
    net.count_macs(2 * q.elements() * tokens);
    let y = net.transpose(&q.then(value, vec![heads, tokens, d]), name, &[1, 0, 2]);
    net.reshape(&y, name, &[tokens, heads * d])
}

/// TinyViT's bias: a table over the absolute offsets in a window, `[h, side²]`.
pub(super) fn absolute_bias(net: &mut Network, name: &str, heads: usize, side: usize) -> String {
    let table = net.parameter(name, "attention_biases", &[heads, side * side], Role::Table);
    let offsets = format!("absolute offsets in {side}x{side}");
    gather(net, name, &table, &offsets, || absolute_offsets(side))
}

/// MOAT's bias: a table `[h, 2·trained − 1, 2·trained − 1]` over the signed offsets (key minus query),
/// resized bilinearly to the window.
pub(super) fn signed_bias(
    net: &mut Network,
    name: &str,
    heads: usize,
    trained: usize,
    window: [usize; 2],
) -> String {
    let stored = [2 * trained - 1; 2];
    let shape = [heads, stored[0], stored[1]];
    let mut table = net.parameter(name, "relative_position_embedding", &shape, Role::Table);
    let [rows, columns] = window.map(|side| 2 * side - 1);
    if [rows, columns] != stored {
        let as_map = [1, heads as i64, stored[0] as i64, stored[1] as i64];
        let as_map = net.graph().list(&as_map);
        table = net.node("Reshape", name, &[&table, &as_map], &[]);
        let sizes = [1, heads as i64, rows as i64, columns as i64];
        let sizes = net.graph().list(&sizes);
        let centres = (
            "coordinate_transformation_mode",
            Attribute::Text("half_pixel"),
        );
        let attributes = [("mode", Attribute::Text("linear")), centres];
        table = net.node("Resize", name, &[&table, "", "", &sizes], &attributes);
    }
    let flat = net.graph().list(&[heads as i64, (rows * columns) as i64]);
    let table = net.node("Reshape", name, &[&table, &flat], &[]);
    let offsets = format!("signed offsets in {}x{}", window[0], window[1]);
    gather(net, name, &table, &offsets, || signed_offsets(window))
}

/// For all pairs of positions in a square window the entry of TinyViT's table.
fn absolute_offsets(side: usize) -> Vec<i64> {
    pairs([side; 2], |[y, x], [to_y, to_x]| {
        y.abs_diff(to_y) * side + x.abs_diff(to_x)
    })
}

/// For all pairs of positions in a window the entry of MOAT's table of that size.
fn signed_offsets([rows, columns]: [usize; 2]) -> Vec<i64> {
    pairs([rows, columns], |[y, x], [to_y, to_x]| {
        (to_y + rows - 1 - y) * (2 * columns - 1) + to_x + columns - 1 - x
    })
}

/// `entry(query, key)` for all pairs of positions in a window, row by row.
fn pairs([rows, columns]: [usize; 2], entry: impl Fn([usize; 2], [usize; 2]) -> usize) -> Vec<i64> {
    let positions = || (0..rows).flat_map(|y| (0..columns).map(move |x| [y, x]));
    positions()
        .flat_map(|query| positions().map(move |key| (query, key)))
        .map(|(query, key)| entry(query, key) as i64)
        .collect()
}

/// `[h, T]` by indices of `T` to `[h, tokens, tokens]`. Equal windows share their indices under a name.
fn gather(
    net: &mut Network,
    name: &str,
    table: &str,
    offsets: &str,
    index: impl FnOnce() -> Vec<i64>,
) -> String {
    if !net.graph().contains(offsets) {
        let index = index();
        let tokens = index.len().isqrt();
        net.graph().integers(offsets, &[tokens, tokens], &index);
    }
    net.node(
        "Gather",
        name,
        &[table, offsets],
        &[("axis", Attribute::Int(1))],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The papers' code for windows of 2×2, and of MOAT's the corners for 2×3.
    #[test]
    fn offsets() {
        let rows = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]];
        assert_eq!(absolute_offsets(2), rows.concat());
        let rows = [[4, 5, 7, 8], [3, 4, 6, 7], [1, 2, 4, 5], [0, 1, 3, 4]];
        assert_eq!(signed_offsets([2, 2]), rows.concat());
        let wide = signed_offsets([2, 3]);
        assert_eq!([wide[0], wide[5], wide[30], wide[35]], [7, 14, 0, 7]);
    }
}
