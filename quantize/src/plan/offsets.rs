//! Offset assignment for buffers with fixed life spans (dynamic storage allocation).
//!
//! First fit over several orders; see Pisarchyk and Lee, "Efficient Memory Management for Deep
//! Neural Net Inference", 2020, section 5 ("greedy by size" and "greedy by breadth"), then a
//! bounded, seeded local search that swaps buffers in the best order until the bound is met.

use super::Buffer;

/// Attempts of the local search.
const ATTEMPTS: usize = 2000;

/// An offset per buffer and the total; stops early when `bound` is reached.
pub(super) fn assign(buffers: &[Buffer], bound: usize) -> (Vec<usize>, usize) {
    let n = buffers.len();
    let key = |f: &dyn Fn(&Buffer) -> (usize, usize)| {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| f(&buffers[i]));
        order
    };
    let orders = [
        key(&|b| (usize::MAX - b.size, b.first)),
        key(&|b| (usize::MAX - (b.last - b.first), usize::MAX - b.size)),
        key(&|b| (usize::MAX - b.size * (b.last - b.first + 1), b.first)),
        key(&|b| (b.first, usize::MAX - b.size)),
    ];
    let mut best: Option<(Vec<usize>, usize, Vec<usize>)> = None;
    for order in orders {
        let (offsets, total) = first_fit(buffers, &order);
        if best.as_ref().is_none_or(|b| total < b.1) {
            best = Some((offsets, total, order));
        }
    }
    let Some((mut offsets, mut total, mut order)) = best else {
        return (Vec::new(), 0);
    };
    let mut state = 0x9e37_79b9u32;
    let mut random = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % n
    };
    let attempts = if n > 400 { ATTEMPTS / 10 } else { ATTEMPTS };
    for _ in 0..attempts {
        if total <= bound || n < 2 {
            break;
        }
        let (a, b) = (random(n), random(n));
        order.swap(a, b);
        let (o, t) = first_fit(buffers, &order);
        if t <= total {
            (offsets, total) = (o, t);
        } else {
            order.swap(a, b);
        }
    }
    (offsets, total)
}

/// Places buffers in the given order, each at the lowest offset free during its whole life.
fn first_fit(buffers: &[Buffer], order: &[usize]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    let mut total = 0;
    for &i in order {
        let b = &buffers[i];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| buffers[j].first <= b.last && b.first <= buffers[j].last)
            .map(|&j| (offsets[j], offsets[j] + buffers[j].size))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if at + b.size <= start {
                break;
            }
            at = at.max(end);
        }
        offsets[i] = at;
        total = total.max(at + b.size);
        placed.push(i);
    }
    (offsets, total)
}
