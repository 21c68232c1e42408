//! Attention on views as attention of layers.

use std::sync::Arc;

use ampoule_distill_kernels::graph::{Attention, Lane, Map, Op, PositionBias, Value};
use ampoule_quantize::graph::{Attention as SourceAttention, Node};
use ampoule_runtime::ops::attention::{Geometry, View};

use super::StudentError;
use super::translate::{Translator, unsupported};
use crate::zoo::Role;
use crate::zoo::builder::{absolute_offsets, signed_offsets};

/// Scores from here on are those of masks.
const BARRED: f32 = -1e4;

/// The attention of one head in one window.
struct Group {
    outer: [u32; 4],
    head: usize,
    /// Pixels of the map that its tokens are.
    pixels: Vec<usize>,
}

impl Translator<'_> {
    pub(super) fn attention(
        &mut self,
        node: &Node,
        name: &str,
        a: &SourceAttention,
    ) -> Result<Value, StudentError> {
        let g = &a.geometry;
        let values = [0, 1, 2].map(|i| self.input(node, i));
        let [q, k, v] = values;
        let values = [q?, k?, v?];
        let map = self.net.map(values[0]);
        let d = g.width as usize;
        if a.sizes || g.depth != g.width || g.queries != g.keys {
            return Err(unsupported(node, "but of tokens among themselves"));
        }
        let len: usize = a.shape.iter().product();
        let heads = len / (map.pixels() * d).max(1);
        if heads * map.pixels() * d != len {
            return Err(unsupported(node, "of that shape"));
        }
        let groups = groups(g, heads * d, d);
        let groups = groups.ok_or_else(|| unsupported(node, "with heads in that order"))?;
        let window = window(&groups, map);
        let window = window.ok_or_else(|| unsupported(node, "but in windows of a map"))?;
        let mut inputs: Vec<Value> = Vec::new();
        let mut lanes = Vec::new();
        for (value, view) in values.into_iter().zip([&g.q, &g.k, &g.v]) {
            let known = inputs.iter().position(|&v| v == value);
            let input = known.unwrap_or(inputs.len());
            if known.is_none() {
                inputs.push(value);
            }
            let c = self.net.map(value).channels;
            let lane = lane(g, view, &groups, c, heads, d);
            let [offset, stride] =
                lane.ok_or_else(|| unsupported(node, "with heads that far apart"))?;
            lanes.push(Lane {
                input,
                offset,
                stride,
            });
        }
        let (bias, causal) = match a.bias {
            true => self.bias(node, name, &groups, heads, window)?,
            false => (None, false),
        };
        let op = Op::Attention(Attention {
            heads,
            head_size: d,
            scale: a.scale,
            lanes: [lanes[0], lanes[1], lanes[2]],
            window: (window != [map.height, map.width]).then_some(window),
            bias,
            causal,
            mask: None,
        });
        Ok(self.net.graph.push(name, op, &inputs)?)
    }

    /// The position bias, and whether it hides from each token those behind it.
    fn bias(
        &mut self,
        node: &Node,
        name: &str,
        groups: &[Group],
        heads: usize,
        window: [usize; 2],
    ) -> Result<(Option<PositionBias>, bool), StudentError> {
        let data = self.constant(node, 3)?;
        let shape = self.source.shape(node.inputs[3]);
        let pairs: usize = shape[4..].iter().product();
        let mut of_heads: Vec<Option<&[f32]>> = vec![None; heads];
        for group in groups {
            let block = (0..4).fold(0, |at, i| {
                at * shape[i] + (group.outer[i] as usize).min(shape[i] - 1)
            });
            let block = &data[block * pairs..][..pairs];
            let known = of_heads[group.head].get_or_insert(block);
            if *known != block {
                return Err(unsupported(
                    node,
                    "with a bias that differs between windows",
                ));
            }
        }
        let of_heads: Vec<&[f32]> = of_heads.into_iter().flatten().collect();
        let tokens = window[0] * window[1];
        let later = |pair: usize| pair % tokens > pair / tokens;
        let barred = |pair: usize| of_heads.iter().all(|b| b[pair] <= BARRED);
        let causal = tokens > 1 && (0..pairs).all(|p| barred(p) == later(p));
        let free = |pair: usize| !(causal && later(pair));
        if !causal && (0..pairs).any(barred) {
            return Err(unsupported(node, "with a mask that is not causal"));
        }
        if causal
            && of_heads
                .iter()
                .all(|b| (0..pairs).all(|p| !free(p) || b[p] == 0.0))
        {
            return Ok((None, true));
        }
        let own: Arc<[u32]> = (0..pairs as u32).collect();
        let [rows, columns] = window.map(|side| 2 * side - 1);
        let forms = [
            (
                absolute_offsets(window),
                vec![tokens],
                "attention_biases",
                Role::Table,
            ),
            (
                signed_offsets(window),
                vec![rows, columns],
                "relative_position_embedding",
                Role::SignedTable { published: rows },
            ),
            (own, vec![pairs], "position_biases", Role::Table),
        ];
        for (index, entries, leaf, role) in forms {
            let count = entries.iter().product();
            // Counts are those of squares.
            let role = match rows == columns {
                true => role,
                false => Role::Table,
            };
            if let Some(table) = tied(&of_heads, &index, count, free) {
                let shape = [&[heads], &entries[..]].concat();
                let table = self.parameter(name, leaf, &shape, role, table);
                return Ok((Some(PositionBias { table, index }), causal));
            }
        }
        Err(unsupported(node, "with such a bias"))
    }
}

/// The table `[heads, entries]` that gives these biases under an index, if there is one.
fn tied(
    of_heads: &[&[f32]],
    index: &[u32],
    entries: usize,
    free: impl Fn(usize) -> bool,
) -> Option<Vec<f32>> {
    let mut table = Vec::with_capacity(of_heads.len() * entries);
    for bias in of_heads {
        let mut row = vec![None; entries];
        for (pair, &entry) in index.iter().enumerate().filter(|&(p, _)| free(p)) {
            let known = row[entry as usize].get_or_insert(bias[pair]);
            if *known != bias[pair] {
                return None;
            }
        }
        table.extend(row.into_iter().map(|v| v.unwrap_or(0.0)));
    }
    Some(table)
}

/// Tokens of each outer index by where their results go, in a map of `c` channels.
fn groups(g: &Geometry, c: usize, d: usize) -> Option<Vec<Group>> {
    let [a, b, e, f] = g.outer;
    let outer = (0..a).flat_map(move |i| {
        (0..b).flat_map(move |j| (0..e).flat_map(move |k| (0..f).map(move |l| [i, j, k, l])))
    });
    outer
        .map(|outer| {
            let rows: Vec<usize> = rows(g, &g.y, outer);
            let head = rows[0] % c;
            let same = rows.iter().all(|row| row % c == head);
            (same && head % d == 0).then(|| Group {
                outer,
                head: head / d,
                pixels: rows.iter().map(|row| row / c).collect(),
            })
        })
        .collect()
}

/// First elements of all tokens' rows.
fn rows(g: &Geometry, view: &View, outer: [u32; 4]) -> Vec<usize> {
    let [height, width] = g.keys;
    (0..height)
        .flat_map(|i| (0..width).map(move |j| view.row(outer, [i, j])))
        .collect()
}

/// Height and width of the windows that the groups are, when each is one, row by row.
fn window(groups: &[Group], map: Map) -> Option<[usize; 2]> {
    let place = |pixel: usize| [pixel / map.width, pixel % map.width];
    let (first, last) = (groups[0].pixels.first()?, groups[0].pixels.last()?);
    let ([top, left], [bottom, right]) = (place(*first), place(*last));
    let size = [bottom.checked_sub(top)? + 1, right.checked_sub(left)? + 1];
    let fits = map.height % size[0] == 0 && map.width % size[1] == 0;
    let is_window = |group: &Group| {
        let [y, x] = place(group.pixels[0]);
        let pixels =
            (0..size[0]).flat_map(|i| (0..size[1]).map(move |j| (y + i) * map.width + x + j));
        y % size[0] == 0 && x % size[1] == 0 && pixels.eq(group.pixels.iter().copied())
    };
    (fits && groups.iter().all(is_window)).then_some(size)
}

/// First channel of the first head, and distance of heads, in a map of `c` channels.
fn lane(
    g: &Geometry,
    view: &View,
    groups: &[Group],
    c: usize,
    heads: usize,
    d: usize,
) -> Option<[usize; 2]> {
    let mut first = vec![None; heads];
    for group in groups {
        for (row, pixel) in rows(g, view, group.outer).into_iter().zip(&group.pixels) {
            let known = *first.get_mut(group.head)?.get_or_insert(row % c);
            if row / c != *pixel || row % c != known {
                return None;
            }
        }
    }
    let first: Vec<usize> = first.into_iter().collect::<Option<_>>()?;
    let stride = match first[..] {
        [a, b, ..] => b.checked_sub(a)?,
        _ => d,
    };
    let even = first
        .iter()
        .enumerate()
        .all(|(h, &at)| at == first[0] + h * stride);
    even.then_some([first[0], stride])
}
