//! The scalar truth.

use super::{AttentionI8, Bias, Geometry, exp2_code, size_bias};
use crate::numerics::round_to_code;

/// Int8 attention of operands that fit, by definition.
pub fn attention_i8(op: &AttentionI8<'_>, q: &[i8], k: &[i8], v: &[i8], y: &mut [i8]) {
    let g = &op.geometry;
    each_query(g, |index, i| {
        let query = &q[g.q.row(index, g.query(i))..][..g.depth as usize];
        let score = |j: usize| {
            let key = &k[g.k.row(index, g.key(j))..];
            let products = query.iter().zip(key);
            let sum: i32 = products
                .map(|(&q, &k)| (i32::from(q) - i32::from(op.q_zero)) * i32::from(k))
                .sum();
            let size = op.sizes.map_or(0.0, |sizes| size_bias(sizes[j]));
            let bias = op.bias.map_or(size, |b| b.at(g, index, i, j));
            sum as f32 * op.multiplier + bias
        };
        let keys = 0..g.key_count();
        let max = keys.clone().map(score).fold(f32::NEG_INFINITY, f32::max);
        let weight = |j: usize| i32::from(exp2_code(score(j) - max));
        let total: i32 = keys.clone().map(weight).sum();
        let at = g.y.row(index, g.query(i));
        for d in 0..g.width as usize {
            let sum: i32 = keys
                .clone()
                .map(|j| {
                    let value = v[g.v.row(index, g.key(j)) + d];
                    weight(j) * (i32::from(value) - i32::from(op.v_zero))
                })
                .sum();
            let t = sum as f32 * (op.ratio / total as f32);
            y[at + d] = round_to_code(t, op.y_zero, -128, 127) as i8;
        }
    });
}

/// Float attention of operands that fit, in double precision; multiplier and bias in octaves.
pub fn attention_f32(
    g: &Geometry,
    multiplier: f32,
    bias: Option<Bias<'_>>,
    sizes: Option<&[i32]>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    y: &mut [f32],
) {
    each_query(g, |index, i| {
        let query = &q[g.q.row(index, g.query(i))..][..g.depth as usize];
        let score = |j: usize| {
            let key = &k[g.k.row(index, g.key(j))..];
            let sum: f64 = query
                .iter()
                .zip(key)
                .map(|(&q, &k)| f64::from(q) * f64::from(k))
                .sum();
            let size = sizes.map_or(0.0, |sizes| size_bias(sizes[j]));
            let bias = bias.map_or(size, |b| b.at(g, index, i, j));
            sum * f64::from(multiplier) + f64::from(bias)
        };
        let keys = 0..g.key_count();
        let max = keys.clone().map(score).fold(f64::NEG_INFINITY, f64::max);
        let weight = |j: usize| libm::exp2(score(j) - max);
        let total: f64 = keys.clone().map(weight).sum();
        let at = g.y.row(index, g.query(i));
        for d in 0..g.width as usize {
            let value = |j: usize| f64::from(v[g.v.row(index, g.key(j)) + d]);
            let sum: f64 = keys.clone().map(|j| weight(j) * value(j)).sum();
            y[at + d] = (sum / total) as f32;
        }
    });
}

/// Calls `f` with the outer index and the number of every query.
fn each_query(g: &Geometry, mut f: impl FnMut([u32; 4], usize)) {
    for number in 0..g.outer_count() {
        for i in 0..g.query_count() {
            f(g.outer_index(number), i);
        }
    }
}
