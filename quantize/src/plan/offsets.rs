//! Offset assignment for buffers with fixed life spans (dynamic storage allocation).
//!
//! First fit over several orders; see Pisarchyk and Lee, "Efficient Memory Management for Deep
//! Neural Net Inference", 2020, section 5 ("greedy by size" and "greedy by breadth"), then a
//! bounded, seeded local search that swaps buffers in the best order until the bound is met.

use ampoule_runtime::artifact::layout::ALIGN;

use super::Buffer;

/// An offset per buffer and the total, after at most `effort` attempts of the local search; stops early when
/// `bound` is reached.
pub(super) fn assign(buffers: &[Buffer], bound: usize, effort: usize) -> (Vec<usize>, usize) {
    let n = buffers.len();
    let key = |f: &dyn Fn(&Buffer) -> (usize, usize)| {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| f(&buffers[i]));
        order
    };
    let span = |b: &Buffer| b.life().1 - b.life().0;
    let orders = [
        key(&|b| (usize::MAX - b.size, b.life().0)),
        key(&|b| (usize::MAX - span(b), usize::MAX - b.size)),
        key(&|b| (usize::MAX - b.size * (span(b) + 1), b.life().0)),
        key(&|b| (b.life().0, usize::MAX - b.size)),
        // A map in rows lies behind the one that is made of it, whose rows follow into its place.
        key(&|b| (usize::MAX - b.life().1, usize::MAX - b.size)),
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
    let attempts = if n > 400 { effort / 10 } else { effort };
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

/// Places buffers in the given order, each at the lowest offset where all its parts are free while they live.
fn first_fit(buffers: &[Buffer], order: &[usize]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; buffers.len()];
    let lives: Vec<(usize, usize)> = buffers.iter().map(Buffer::life).collect();
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    let mut total = 0;
    for &i in order {
        offsets[i] = lowest_free(buffers, &lives, &placed, &offsets, i);
        total = total.max(offsets[i] + buffers[i].size);
        placed.push(i);
    }
    (offsets, total)
}

/// The lowest offset of buffer `i` beside those that are placed.
pub(super) fn lowest_free(
    buffers: &[Buffer],
    lives: &[(usize, usize)],
    placed: &[usize],
    offsets: &[usize],
    i: usize,
) -> usize {
    let mut taken: Vec<(usize, usize)> = Vec::new();
    for &j in placed.iter().filter(|&&j| meet(lives[i], lives[j])) {
        for p in &buffers[i].parts {
            let others = buffers[j].parts.iter();
            for q in others.filter(|q| meet((p.first, p.last), (q.first, q.last))) {
                // Offsets of the buffer at which the two parts would share a byte.
                let (start, end) = (offsets[j] + q.offset, offsets[j] + q.offset + q.size);
                let from = (start + 1).saturating_sub(p.offset + p.size);
                if let Some(to) = end.checked_sub(p.offset).filter(|&to| to > 0) {
                    taken.push((from, to));
                }
            }
        }
    }
    taken.sort_unstable();
    let mut at = 0;
    for (from, to) in taken {
        if at < from {
            break;
        }
        at = at.max(to.next_multiple_of(ALIGN));
    }
    at
}

fn meet(a: (usize, usize), b: (usize, usize)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}
