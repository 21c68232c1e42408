//! Attention as nodes, in the form that exports of transformers have.

use ampoule_distill_kernels::graph::{Attention, Lane, PositionBias, Value};
use ampoule_quantize::export::Attribute;

use super::writer::{Layout, Writer};

/// Added to the scores of padding, as in training.
const BARRED: f32 = -1e4;

/// How a map is cut into windows.
struct Grid {
    /// Windows along height and width.
    windows: [usize; 2],
    /// Height and width of a window.
    window: [usize; 2],
}

impl Grid {
    fn tokens(&self) -> i64 {
        (self.window[0] * self.window[1]) as i64
    }

    /// One window is the whole map.
    fn is_whole(&self) -> bool {
        self.windows == [1, 1]
    }
}

impl Writer<'_> {
    /// `softmax(scale · q·kᵀ + bias)·v` per head and window, as tokens.
    pub(super) fn attention(&mut self, name: &str, a: &Attention, inputs: &[Value]) -> String {
        let map = self.graph.map(inputs[0]);
        let window = a.window.unwrap_or([map.height, map.width]);
        let grid = Grid {
            windows: [map.height / window[0], map.width / window[1]],
            window,
        };
        let parts = a.lanes.iter().map(|l| l.input + 1).max().unwrap_or(0);
        let parts = &inputs[..parts];
        let cut: Vec<String> = parts.iter().map(|&x| self.cut(name, x, &grid)).collect();
        let channels: Vec<usize> = parts.iter().map(|&x| self.graph.map(x).channels).collect();
        let [q, k, v] = self.lanes(name, a, &grid, &cut, &channels);
        let factor = self.onnx.scalar(a.scale);
        let q = self.transpose(name, &q, &[0, 2, 1, 3]);
        let k = self.transpose(name, &k, &[0, 2, 3, 1]);
        let v = self.transpose(name, &v, &[0, 2, 1, 3]);
        let q = self.emit("Mul", name, &[&q, &factor], &[]);
        let mut scores = self.emit("MatMul", name, &[&q, &k], &[]);
        if let Some(bias) = &a.bias {
            let bias = self.bias(name, a.heads, bias, grid.tokens());
            scores = self.emit("Add", name, &[&scores, &bias], &[]);
        }
        if a.causal {
            let mask = self.causal_mask(grid.tokens() as usize);
            scores = self.emit("Add", name, &[&scores, &mask], &[]);
        }
        if let Some(mask) = a.mask {
            let barred = self.where_padding(name, inputs[mask], BARRED, 0.0);
            let axes = self.onnx.list(&[1, 2]);
            let barred = self.emit("Unsqueeze", name, &[&barred, &axes], &[]);
            scores = self.emit("Add", name, &[&scores, &barred], &[]);
        }
        let last = [("axis", Attribute::Int(-1))];
        let shares = self.emit("Softmax", name, &[&scores], &last);
        let y = self.emit("MatMul", name, &[&shares, &v], &[]);
        let y = self.transpose(name, &y, &[0, 2, 1, 3]);
        self.merge(name, y, a.heads * a.head_size, &grid)
    }

    /// Windows `[N · windows, tokens, C]` of a map.
    fn cut(&mut self, name: &str, x: Value, grid: &Grid) -> String {
        let map = self.graph.map(x);
        let c = map.channels as i64;
        let tokens = self.get(x, Layout::Tokens, name);
        if map.height == 1 && map.width > 1 && grid.is_whole() {
            return tokens;
        }
        let mut x = tokens;
        if !grid.is_whole() {
            let ([rows, columns], [height, width]) = (grid.windows, grid.window);
            let split = [rows, height, columns, width].map(|n| n as i64);
            let shape = [&[-1][..], &split, &[c]].concat();
            x = self.reshape(name, &x, &shape);
            x = self.transpose(name, &x, &[0, 1, 3, 2, 4, 5]);
        }
        self.reshape(name, &x, &[-1, grid.tokens(), c])
    }

    /// Puts windows `[N · windows, tokens, heads, d]` of `c` channels together.
    fn merge(&mut self, name: &str, x: String, c: usize, grid: &Grid) -> String {
        let ([rows, columns], [height, width]) = (grid.windows, grid.window);
        let [rows, columns, height, width, c] = [rows, columns, height, width, c].map(|n| n as i64);
        let whole = match [rows * height, columns * width] {
            [1, 1] => vec![-1, c],
            [1, width] => vec![-1, width, c],
            [height, width] => vec![-1, height, width, c],
        };
        if grid.is_whole() {
            return self.reshape(name, &x, &whole);
        }
        let x = self.reshape(name, &x, &[-1, rows, columns, height, width, c]);
        let x = self.transpose(name, &x, &[0, 1, 3, 2, 4, 5]);
        self.reshape(name, &x, &whole)
    }

    /// Queries, keys and values `[.., tokens, heads, d]`.
    fn lanes(
        &mut self,
        name: &str,
        a: &Attention,
        grid: &Grid,
        cut: &[String],
        channels: &[usize],
    ) -> [String; 3] {
        let (heads, d) = (a.heads, a.head_size);
        let of = |lane: Lane| (lane.input, lane.offset, lane.stride);
        let packed = |offset: usize, stride: usize| {
            channels[0] == 3 * heads * d
                && (0..3).all(|i| of(a.lanes[i]) == (0, i * offset, stride))
        };
        let tokens = grid.tokens();
        let per_head = [-1, tokens, heads as i64, d as i64];
        // Per head: q, k and v of the first, then of the second …
        if packed(d, 3 * d) {
            let shape = [-1, tokens, heads as i64, 3 * d as i64];
            let x = self.reshape(name, &cut[0], &shape);
            return self.split(name, &x, d);
        }
        // The queries of all heads, then the keys, then the values.
        if packed(heads * d, d) {
            let parts = self.split(name, &cut[0], heads * d);
            return parts.map(|x| self.reshape(name, &x, &per_head));
        }
        a.lanes.map(|lane| {
            let mut x = cut[lane.input].clone();
            let everything = lane.offset == 0 && lane.stride == d;
            if !everything || channels[lane.input] != heads * d {
                let channel = |i: usize| lane.offset + i / d * lane.stride + i % d;
                let places: Vec<i64> = (0..heads * d).map(|i| channel(i) as i64).collect();
                let places = self.onnx.list(&places);
                let last = [("axis", Attribute::Int(-1))];
                x = self.emit("Gather", name, &[&x, &places], &last);
            }
            self.reshape(name, &x, &per_head)
        })
    }

    /// Cuts the last dimension into three of that size.
    fn split(&mut self, name: &str, x: &str, size: usize) -> [String; 3] {
        let sizes = self.onnx.list(&[size as i64; 3]);
        let (name, last) = (format!("{name}/Split"), [("axis", Attribute::Int(-1))]);
        self.onnx
            .node_with_outputs("Split", &name, &[x, &sizes], &last)
    }

    /// The bias `[heads, tokens, tokens]` out of its table. Layers of equal windows share their indices.
    fn bias(&mut self, name: &str, heads: usize, bias: &PositionBias, tokens: i64) -> String {
        let mut table = self.parameter(bias.table);
        let shape = &self.graph.parameters()[bias.table.0].shape;
        if shape.len() != 2 {
            let entries = shape[1..].iter().product::<usize>();
            table = self.reshape(name, &table, &[heads as i64, entries as i64]);
        }
        let index: Vec<i64> = bias.index.iter().map(|&i| i64::from(i)).collect();
        let count = self.indices.len();
        let onnx = &mut self.onnx;
        let index = self.indices.entry(index).or_insert_with_key(|index| {
            let name = format!("offsets {count} of {tokens} tokens");
            onnx.integers(&name, &[tokens as usize; 2], index);
            name
        });
        let index = index.clone();
        let second = [("axis", Attribute::Int(1))];
        self.emit("Gather", name, &[&table, &index], &second)
    }

    /// Zeros, and where the key comes after the query the lowest number.
    fn causal_mask(&mut self, tokens: usize) -> String {
        let name = format!("causal mask of {tokens} tokens");
        if !self.onnx.contains(&name) {
            let later = |i: usize| i % tokens > i / tokens;
            let entry = |i: usize| if later(i) { f32::MIN } else { 0.0 };
            let mask: Vec<f32> = (0..tokens * tokens).map(entry).collect();
            self.onnx.floats(&name, &[tokens; 2], &mask);
        }
        name
    }
}
