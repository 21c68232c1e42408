//! The scalar truth.

use super::{Matching, Token};

/// Pairs tokens by definition. Keys are real numbers, or codes less their zero point. `best` gets each
/// token's partner and score.
pub fn match_tokens(
    m: &Matching,
    key: impl Fn(usize) -> f64,
    best: &mut [(usize, f32)],
    places: &mut [i32],
) {
    let metric =
        |i: usize, d: usize| -> f64 { (0..m.heads as usize).map(|h| key(m.key(h, i) + d)).sum() };
    let dot = |i: usize, j: usize| -> f32 {
        let products = (0..m.depth as usize).map(|d| metric(i, d) * metric(j, d));
        products.sum::<f64>() as f32
    };
    let inverse = |i: usize| match dot(i, i) {
        square if square > 0.0 => 1.0 / libm::sqrtf(square),
        _ => 0.0,
    };
    for i in m.movers() {
        let (partner, t) = m.partners().fold((0, f32::NEG_INFINITY), |best, j| {
            let t = dot(i, j) * inverse(j);
            if t > best.1 { (j, t) } else { best }
        });
        best[i] = (partner, t * inverse(i));
    }
    // A token joins when fewer than `merged` come before it.
    let joins = |i: usize| {
        let before = |other: &usize| {
            let (mine, theirs) = (best[i].1, best[*other].1);
            theirs > mine || (theirs == mine && *other < i)
        };
        m.movers().filter(before).count() < m.merged as usize
    };
    let left = m.movers().filter(|&i| !joins(i)).chain(m.partners());
    for (place, i) in (0..).zip((0..m.protected as usize).chain(left)) {
        places[i] = place;
    }
    for i in m.movers().filter(|&i| joins(i)) {
        places[i] = places[best[i].0];
    }
}

/// Averages operands that fit.
pub fn merge<T: Token>(
    channels: usize,
    zero: i32,
    x: &[T],
    places: &[i32],
    sizes: &[i32],
    y: &mut [T],
) {
    for (at, y) in y.iter_mut().enumerate() {
        let members = (0..places.len()).filter(|&i| places[i] as usize == at / channels);
        let value = |i: usize| x[i * channels + at % channels];
        *y = match members.clone().count() {
            1 => members.map(value).fold(*y, |_, x| x),
            _ => {
                let total: i32 = members.clone().map(|i| sizes[i]).sum();
                let add = |sum, i| T::add(sum, value(i), zero, sizes[i]);
                T::mean(members.fold(T::Sum::default(), add), total as f32, zero)
            }
        };
    }
}

/// Sums sizes that fit.
pub fn merge_sizes(sizes: &[i32], places: &[i32], y: &mut [i32]) {
    for (place, y) in (0..).zip(y) {
        let members = places.iter().zip(sizes).filter(|&(&p, _)| p == place);
        *y = members.map(|(_, &size)| size).sum();
    }
}
