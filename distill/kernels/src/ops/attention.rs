//! Softmax attention of one sample, in windows of its map.
//!
//! Queries, keys and values are addressed in the rows of their maps, so that projections packed in any
//! order need no transposition. The backward pass computes the weights again instead of storing them.

use crate::gemm::{self, Packed, Panels, Start};
use crate::isa::{self, kernel};
use crate::math;

/// Shape of an attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Height and width of the map.
    pub map: [usize; 2],
    /// Height and width of the windows, which divide the map.
    pub window: [usize; 2],
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Whether a token sees only those before it and itself.
    pub causal: bool,
    /// Queries, keys and values.
    pub lanes: [Lane; 3],
    /// The input that is 0 where a token is padding, which no token sees.
    pub mask: Option<usize>,
}

/// Added to the logits of padding; the exponential of that is 0.
const BARRED: f32 = -1e4;

/// Where the heads of queries, keys or values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// Which input.
    pub input: usize,
    /// First channel of the first head.
    pub offset: usize,
    /// Distance of the first channels of two heads.
    pub stride: usize,
}

/// Memory of one head in one window.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The rows of the map that are the window's tokens.
    rows: Vec<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d: Vec<f32>,
    weights: Vec<f32>,
    of_weights: Vec<f32>,
    out: Vec<f32>,
    packed: Packed,
    panels: Panels,
    /// The term of the weights themselves.
    pub sparsity: Sparsity,
}

/// A term of the loss that looks at attention weights A: a factor times the sum of ln(1 + A²) (Prasetyo et al.,
/// "Sparse then Prune: Toward Efficient Vision Transformers", 2023).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sparsity {
    /// The factor; where it is 0, nothing is summed.
    pub factor: f32,
    /// The sum over the forward passes since it was 0.
    pub sum: f64,
}

impl Geometry {
    /// Attention weights of a sample.
    pub fn weights(&self) -> usize {
        self.windows() * self.heads * self.tokens() * self.tokens()
    }

    /// Tokens of a window.
    pub fn tokens(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.map[0] / self.window[0] * (self.map[1] / self.window[1])
    }

    /// The row of the map that is token `t` of window `w`.
    fn row(&self, w: usize, t: usize) -> usize {
        let across = self.map[1] / self.window[1];
        let y = w / across * self.window[0] + t / self.window[1];
        let x = w % across * self.window[1] + t % self.window[1];
        y * self.map[1] + x
    }

    /// Channels of a map of that many values, and the first channel of a lane's head.
    fn place(&self, lane: &Lane, len: usize, h: usize) -> [usize; 2] {
        let channels = len / (self.map[0] * self.map[1]);
        [channels, lane.offset + h * lane.stride]
    }

    /// The same of the result, or of its gradient.
    fn result(&self, h: usize) -> [usize; 2] {
        [self.heads * self.head_size, h * self.head_size]
    }
}

/// `y[tokens, heads · head size] = softmax(scale · q·kᵀ + bias)·v`, with `bias[heads, tokens, tokens]` of
/// a window.
pub fn forward(
    g: &Geometry,
    inputs: &[&[f32]],
    bias: Option<&[f32]>,
    y: &mut [f32],
    s: &mut Scratch,
) {
    let (n, d) = (g.tokens(), g.head_size);
    s.out.resize(n * d, 0.0);
    for w in 0..g.windows() {
        s.enter(g, w);
        for h in 0..g.heads {
            s.gather(g, inputs, h);
            s.weigh(g, inputs, bias, h);
            if s.sparsity.factor != 0.0 {
                s.sparsity.sum += log_one_plus_squares(&s.weights);
            }
            s.packed.pack(&s.v, [n, d], [d, 1]);
            gemm::product(n, &s.weights, n, &s.packed, Start::Zero, &mut s.out, d);
            scatter(&s.rows, d, &s.out, 1.0, g.result(h), y);
        }
    }
}

/// Gradients with respect to queries, keys and values, written to their places, and that of the bias,
/// added to `of_bias`, from `dy`, that with respect to `y`.
pub fn backward(
    g: &Geometry,
    inputs: &[&[f32]],
    bias: Option<&[f32]>,
    dy: &[f32],
    gradients: &mut [&mut [f32]],
    mut of_bias: Option<&mut [f32]>,
    s: &mut Scratch,
) {
    let (n, d) = (g.tokens(), g.head_size);
    for w in 0..g.windows() {
        s.enter(g, w);
        for h in 0..g.heads {
            let give = |lane: usize, factor, s: &Scratch, to: &mut [&mut [f32]]| {
                let lane = &g.lanes[lane];
                let to = &mut *to[lane.input];
                let place = g.place(lane, to.len(), h);
                scatter(&s.rows, d, &s.out, factor, place, to);
            };
            s.gather(g, inputs, h);
            s.weigh(g, inputs, bias, h);
            s.d.resize(n * d, 0.0);
            gather(&s.rows, d, dy, g.result(h), 1.0, &mut s.d);
            s.out.clear();
            s.out.resize(n * d, 0.0);
            gemm::accumulate_transposed(
                n,
                &s.weights,
                [n, n],
                &s.d,
                [d, d],
                &mut s.out,
                &mut s.panels,
            );
            give(2, 1.0, s, gradients);
            s.packed.pack(&s.v, [d, n], [1, d]);
            s.of_weights.resize(n * n, 0.0);
            gemm::product(n, &s.d, d, &s.packed, Start::Zero, &mut s.of_weights, n);
            if s.sparsity.factor != 0.0 {
                sparsity_gradient(s.sparsity.factor, &s.weights, &mut s.of_weights);
            }
            softmax_gradient(n, &s.weights, &mut s.of_weights);
            if let Some(of_bias) = of_bias.as_deref_mut() {
                let of_bias = &mut of_bias[h * n * n..][..n * n];
                of_bias
                    .iter_mut()
                    .zip(&s.of_weights)
                    .for_each(|(b, g)| *b += g);
            }
            s.packed.pack(&s.k, [n, d], [d, 1]);
            s.out.resize(n * d, 0.0);
            gemm::product(n, &s.of_weights, n, &s.packed, Start::Zero, &mut s.out, d);
            give(0, g.scale, s, gradients);
            s.out.fill(0.0);
            // The queries are scaled already.
            gemm::accumulate_transposed(
                n,
                &s.of_weights,
                [n, n],
                &s.q,
                [d, d],
                &mut s.out,
                &mut s.panels,
            );
            give(1, 1.0, s, gradients);
        }
    }
}

impl Scratch {
    /// Goes to a window.
    fn enter(&mut self, g: &Geometry, w: usize) {
        self.rows.clear();
        self.rows.extend((0..g.tokens()).map(|t| g.row(w, t)));
    }

    /// Copies a head of the window, the queries scaled.
    fn gather(&mut self, g: &Geometry, inputs: &[&[f32]], h: usize) {
        let (n, d) = (g.tokens(), g.head_size);
        let lanes = [&mut self.q, &mut self.k, &mut self.v];
        for (i, (to, lane)) in lanes.into_iter().zip(&g.lanes).enumerate() {
            let from = inputs[lane.input];
            let factor = if i == 0 { g.scale } else { 1.0 };
            to.resize(n * d, 0.0);
            gather(
                &self.rows,
                d,
                from,
                g.place(lane, from.len(), h),
                factor,
                to,
            );
        }
    }

    /// Computes the weights.
    fn weigh(&mut self, g: &Geometry, inputs: &[&[f32]], bias: Option<&[f32]>, h: usize) {
        let (n, d) = (g.tokens(), g.head_size);
        self.weights.resize(n * n, 0.0);
        let start = match bias {
            Some(bias) => {
                self.weights.copy_from_slice(&bias[h * n * n..][..n * n]);
                Start::Destination
            }
            None => Start::Zero,
        };
        self.packed.pack(&self.k, [d, n], [1, d]);
        gemm::product(n, &self.q, d, &self.packed, start, &mut self.weights, n);
        if g.causal {
            for (t, row) in self.weights.chunks_exact_mut(n).enumerate() {
                row[t + 1..].fill(f32::NEG_INFINITY);
            }
        }
        if let Some(mask) = g.mask {
            for t in (0..n).filter(|&t| inputs[mask][self.rows[t]] == 0.0) {
                let column = self.weights[t..].iter_mut().step_by(n);
                column.for_each(|logit| *logit += BARRED);
            }
        }
        softmax(n, &mut self.weights);
    }
}

kernel! {
    /// `to[tokens, d] = factor · from`, where `from` has the tokens' values in `rows` of so many channels,
    /// from a first channel on.
    fn gather<'a, S, simd>(
        rows: &'a [usize],
        d: usize,
        from: &'a [f32],
        place: [usize; 2],
        factor: f32,
        to: &'a mut [f32],
    ) {
        for (row, to) in rows.iter().zip(to.chunks_exact_mut(d)) {
            for (to, from) in to.iter_mut().zip(&from[row * place[0] + place[1]..][..d]) {
                *to = factor * from;
            }
        }
    }
}

kernel! {
    /// The reverse of [`gather`].
    fn scatter<'a, S, simd>(
        rows: &'a [usize],
        d: usize,
        from: &'a [f32],
        factor: f32,
        place: [usize; 2],
        to: &'a mut [f32],
    ) {
        for (row, from) in rows.iter().zip(from.chunks_exact(d)) {
            for (to, from) in to[row * place[0] + place[1]..][..d].iter_mut().zip(from) {
                *to = factor * from;
            }
        }
    }
}

kernel! {
    /// Softmax of each row of `n`.
    pub fn softmax<'a, S, simd>(n: usize, x: &'a mut [f32]) {
        for row in x.chunks_exact_mut(n) {
            let most = isa::max(simd, row);
            for x in row.iter_mut() {
                *x = math::exp(simd, *x - most);
            }
            let share = 1.0 / isa::sum(simd, row);
            for x in row.iter_mut() {
                *x *= share;
            }
        }
    }
}

/// `Σ ln(1 + x²)` of values within ±1, with one logarithm for many: products of 64 factors up to 2 do not overflow.
fn log_one_plus_squares(x: &[f32]) -> f64 {
    let product = |x: &[f32]| {
        let factors = x.iter().map(|&x| 1.0 + f64::from(x) * f64::from(x));
        factors.product::<f64>()
    };
    x.chunks(64).map(|x| product(x).ln()).sum()
}

kernel! {
    /// Adds the gradient of `factor · Σ ln(1 + y²)` to `d`.
    fn sparsity_gradient<'a, S, simd>(factor: f32, y: &'a [f32], d: &'a mut [f32]) {
        for (y, d) in y.iter().zip(d) {
            *d += 2.0 * factor * y / simd.mul_add(*y, *y, 1.0);
        }
    }
}

kernel! {
    /// Gradient with respect to what the softmax got, in place of `d`, that with respect to its result `y`.
    fn softmax_gradient<'a, S, simd>(n: usize, y: &'a [f32], d: &'a mut [f32]) {
        for (y, d) in y.chunks_exact(n).zip(d.chunks_exact_mut(n)) {
            let along = isa::dot(simd, y, d);
            for i in 0..n {
                d[i] = y[i] * (d[i] - along);
            }
        }
    }
}
