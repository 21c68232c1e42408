//! Tokens: rows of tables, and averages without padding.

use crate::isa::{self, kernel};

/// `y[tokens, C]`: the row of `table[rows, C]` for each of `ids[tokens]`, which are rows.
pub fn rows(table: &[f32], ids: &[f32], y: &mut [f32]) {
    let c = y.len() / ids.len().max(1);
    for (&id, y) in ids.iter().zip(y.chunks_exact_mut(c.max(1))) {
        y.copy_from_slice(&table[id as usize * c..][..c]);
    }
}

/// Adds the gradient `d` with respect to the result of [`rows`] to that of the table.
pub fn add_rows(ids: &[f32], d: &[f32], of_table: &mut [f32]) {
    let c = d.len() / ids.len().max(1);
    for (&id, d) in ids.iter().zip(d.chunks_exact(c.max(1))) {
        let row = &mut of_table[id as usize * c..][..c];
        row.iter_mut().zip(d).for_each(|(g, d)| *g += d);
    }
}

/// Mean of those rows of `x[tokens, C]` whose `mask[tokens]` is not 0, each times its weight.
pub fn masked_mean(x: &[f32], mask: &[f32], weights: Option<&[f32]>, y: &mut [f32]) {
    y.fill(0.0);
    each_token(mask, weights, |t, factor| add(x, y.len(), t, factor, y));
}

/// Gradient of [`masked_mean`] with respect to `x`, from `d`, that with respect to `y`.
pub fn masked_mean_gradient(mask: &[f32], weights: Option<&[f32]>, d: &[f32], of_x: &mut [f32]) {
    of_x.fill(0.0);
    let c = d.len();
    each_token(mask, weights, |t, factor| {
        add(d, c, 0, factor, &mut of_x[t * c..][..c]);
    });
}

/// Gradient of [`masked_mean`] with respect to the weights.
pub fn weights_gradient(x: &[f32], mask: &[f32], d: &[f32], of_weights: &mut [f32]) {
    of_weights.fill(0.0);
    each_token(mask, None, |t, share| {
        project(x, d, t, share, &mut of_weights[t..][..1]);
    });
}

/// Calls `visit` with each token that counts, and its weight over their number.
fn each_token(mask: &[f32], weights: Option<&[f32]>, mut visit: impl FnMut(usize, f32)) {
    let share = 1.0 / mask.iter().filter(|&&m| m != 0.0).count().max(1) as f32;
    for t in (0..mask.len()).filter(|&t| mask[t] != 0.0) {
        visit(t, share * weights.map_or(1.0, |w| w[t]));
    }
}

kernel! {
    /// Adds a multiple of row `t` of `x[.., c]` to `y[c]`.
    fn add<'a, S, simd>(x: &'a [f32], c: usize, t: usize, factor: f32, y: &'a mut [f32]) {
        for (y, x) in y.iter_mut().zip(&x[t * c..][..c]) {
            *y = simd.mul_add(factor, *x, *y);
        }
    }
}

kernel! {
    /// `y[0]`: a multiple of the product of row `t` of `x` with `d`.
    fn project<'a, S, simd>(x: &'a [f32], d: &'a [f32], t: usize, factor: f32, y: &'a mut [f32]) {
        y[0] = factor * isa::dot(simd, &x[t * d.len()..][..d.len()], d);
    }
}
