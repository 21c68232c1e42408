//! Weights with a pending factor per row and per column.

use std::sync::Arc;

use crate::graph::{Graph, Op, ValueId};

/// Rows are scaled by this factor at most, up or down.
const LARGEST_FACTOR: f64 = 1024.0;

/// A convolution or linear layer. Factors are gathered in double precision and applied once, so the
/// weights are rounded once.
pub(super) struct Layer {
    weights: ValueId,
    bias: ValueId,
    rows: usize,
    taps: usize,
    /// Input channels per group.
    columns: usize,
    groups: usize,
    /// Largest magnitude over the taps, `[rows, columns]`.
    ranges: Vec<f64>,
    /// Largest factor of every row that its bias allows.
    bias_room: Vec<f64>,
    row_factors: Vec<f64>,
    /// Per input channel of all groups.
    column_factors: Vec<f64>,
}

impl Layer {
    /// The layer that a node is, `None` for other operators and for weights that are no constants.
    pub(super) fn of(graph: &Graph, node: usize) -> Option<Layer> {
        let node = &graph.nodes[node];
        let groups = match node.op {
            Op::Conv { groups, .. } => groups,
            Op::Linear { .. } => 1,
            _ => return None,
        };
        let (&weights, &bias) = (node.inputs.get(1)?, node.inputs.get(2)?);
        let (data, offsets) = (graph.constant(weights)?, graph.constant(bias)?);
        let (&rows, rest) = graph.shape(weights).split_first()?;
        let (&columns, taps) = rest.split_last()?;
        let taps: usize = taps.iter().product();
        if groups == 0
            || !rows.is_multiple_of(groups)
            || taps * columns == 0
            || offsets.len() != rows
        {
            return None;
        }
        Some(Layer {
            weights,
            bias,
            rows,
            taps,
            columns,
            groups,
            ranges: data
                .chunks_exact(taps * columns)
                .flat_map(|row| largest_per_column(row, columns))
                .collect(),
            bias_room: bias_room(offsets),
            row_factors: vec![1.0; rows],
            column_factors: vec![1.0; groups * columns],
        })
    }

    /// Largest weight of every output channel.
    pub(super) fn row_ranges(&self) -> Vec<f64> {
        let row = |r: usize| {
            let columns = self.column_factors[self.first_column(r)..].iter();
            let weighted = self.ranges[r * self.columns..][..self.columns]
                .iter()
                .zip(columns)
                .map(|(w, f)| w * f);
            weighted.fold(0.0, f64::max) * self.row_factors[r]
        };
        (0..self.rows).map(row).collect()
    }

    /// Largest weight on every input channel.
    pub(super) fn column_ranges(&self) -> Vec<f64> {
        let mut largest = vec![0.0f64; self.column_factors.len()];
        for (r, row) in self.ranges.chunks_exact(self.columns).enumerate() {
            let first = self.first_column(r);
            for (range, w) in largest[first..].iter_mut().zip(row) {
                *range = range.max(w * self.row_factors[r]);
            }
        }
        largest
            .iter()
            .zip(&self.column_factors)
            .map(|(range, f)| range * f)
            .collect()
    }

    /// The factor closest to `factor` that keeps row `r` within its limits.
    pub(super) fn allowed_factor(&self, r: usize, factor: f64) -> f64 {
        let now = self.row_factors[r];
        let (least, most) = (1.0 / LARGEST_FACTOR, self.bias_room[r].min(LARGEST_FACTOR));
        (now * factor).clamp(least, most) / now
    }

    pub(super) fn scale_rows(&mut self, factors: &[f64]) {
        self.row_factors
            .iter_mut()
            .zip(factors)
            .for_each(|(row, f)| *row *= f);
    }

    pub(super) fn unscale_columns(&mut self, factors: &[f64]) {
        self.column_factors
            .iter_mut()
            .zip(factors)
            .for_each(|(column, f)| *column /= f);
    }

    /// Largest factor of a row, up or down.
    pub(super) fn largest_factor(&self) -> f64 {
        self.row_factors
            .iter()
            .map(|f| f.max(1.0 / f))
            .fold(1.0, f64::max)
    }

    /// Writes the scaled weights and bias to the node's own constants.
    pub(super) fn store(self, graph: &mut Graph, node: usize) {
        if self
            .row_factors
            .iter()
            .chain(&self.column_factors)
            .all(|&f| f == 1.0)
        {
            return;
        }
        let (Some(weights), Some(bias)) = (graph.constant(self.weights), graph.constant(self.bias))
        else {
            return;
        };
        let mut weights = weights.to_vec();
        for (r, row) in weights
            .chunks_exact_mut(self.taps * self.columns)
            .enumerate()
        {
            let columns = &self.column_factors[self.first_column(r)..][..self.columns];
            for tap in row.chunks_exact_mut(self.columns) {
                for (w, column) in tap.iter_mut().zip(columns) {
                    *w = (f64::from(*w) * self.row_factors[r] * column) as f32;
                }
            }
        }
        let scaled = bias
            .iter()
            .zip(&self.row_factors)
            .map(|(b, f)| (f64::from(*b) * f) as f32);
        let bias = scaled.collect();
        replace(graph, node, 1, weights);
        replace(graph, node, 2, bias);
    }

    fn first_column(&self, row: usize) -> usize {
        row / (self.rows / self.groups) * self.columns
    }
}

fn largest_per_column(row: &[f32], columns: usize) -> Vec<f64> {
    let mut largest = vec![0.0f64; columns];
    for tap in row.chunks_exact(columns) {
        largest
            .iter_mut()
            .zip(tap)
            .for_each(|(l, w)| *l = l.max(f64::from(w.abs())));
    }
    largest
}

/// By how much each bias may grow until it is as large as the largest.
fn bias_room(bias: &[f32]) -> Vec<f64> {
    let largest = bias.iter().fold(0.0f64, |a, b| a.max(f64::from(b.abs())));
    bias.iter()
        .map(|&b| {
            if b == 0.0 {
                f64::INFINITY
            } else {
                largest / f64::from(b.abs())
            }
        })
        .collect()
}

/// Gives operand `input` of a node new data, in place unless others read the same constant.
fn replace(graph: &mut Graph, node: usize, input: usize, data: Vec<f32>) {
    let value = graph.nodes[node].inputs[input];
    let readers = graph
        .nodes
        .iter()
        .flat_map(|n| &n.inputs)
        .filter(|&&v| v == value)
        .count();
    if readers == 1 && graph.outputs.iter().all(|p| p.value != value) {
        graph.value_mut(value).data = Some(Arc::new(data));
        return;
    }
    let name = format!("{}/equalised{input}", graph.nodes[node].name);
    let shape = graph.shape(value).to_vec();
    graph.nodes[node].inputs[input] = graph.add_value(&name, &shape, Some(data));
}
