//! Memory planning: every tensor gets a bank and an offset such that tensors alive at the same step
//! never share memory, except where a step works in place.
//!
//! The result is deterministic. Several greedy orders are tried and the smallest arena wins; the
//! bound that no plan can beat (the most bytes alive at one step) is reported beside it.

mod banks;
mod in_place;
mod lifetimes;
mod offsets;
mod target;
mod threads;
mod tile;

use ampoule_runtime::TensorId;

use crate::program::Program;
pub use banks::place;
pub use in_place::plan_in_place;
pub use lifetimes::{Lifetime, lifetimes};
pub use target::{Bank, BankError, BankKind, Target};
pub use threads::widen_scratch;
pub use tile::{Banding, Tiled, Tiling, plan_within};

/// How tensors may be placed.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Let steps overwrite an input that nobody reads later.
    pub in_place: bool,
    /// Keep every tensor for the whole run, so that an observer can read all of them.
    pub keep_all: bool,
    /// Most bytes of arena: with it the first layers run in bands of rows where that is needed.
    pub arena_budget: Option<usize>,
    /// Banks of memory to place tensors in; one arena without.
    pub target: Option<Target>,
    /// Attempts of the local search for a smaller arena; 0 takes the best of a few simple orders.
    pub effort: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            in_place: true,
            keep_all: false,
            arena_budget: None,
            target: None,
            effort: 2000,
        }
    }
}

/// Where the tensors are.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Per tensor: bank, byte offset, first and last step; `None` for constants and unused tensors.
    pub places: Vec<Option<Place>>,
    /// Bytes per bank.
    pub bank_bytes: Vec<usize>,
    /// Most bytes alive at one step (each aligned): no plan with the same order can need less.
    pub lower_bound: usize,
    /// The step with the most bytes alive.
    pub peak_step: usize,
    /// Bytes alive at every step.
    pub live_bytes: Vec<usize>,
}

impl Plan {
    /// Bytes of all banks together.
    pub fn total(&self) -> usize {
        self.bank_bytes.iter().sum()
    }
}

/// Where a tensor is, and when its memory is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Arena bank.
    pub bank: u8,
    /// Byte offset in the bank.
    pub offset: usize,
    /// First step.
    pub first: u16,
    /// Last step.
    pub last: u16,
}

/// Plans the arena of a program.
pub fn plan(program: &Program, options: &PlanOptions) -> Plan {
    let lives = lifetimes(program, options.keep_all);
    let buffers = lifetimes::buffers(program, &lives, options.in_place && !options.keep_all);
    let steps = program.steps.len().max(1);
    let live_bytes: Vec<usize> = (0..steps)
        .map(|step| buffers.iter().map(|b| b.alive(step)).sum())
        .collect();
    let (peak_step, lower_bound) = live_bytes
        .iter()
        .copied()
        .enumerate()
        .max_by_key(|&(i, n)| (n, usize::MAX - i))
        .unwrap_or_default();
    let (offsets, total) = offsets::assign(&buffers, lower_bound, options.effort);
    let mut places = vec![None; program.tensors.len()];
    for (buffer, offset) in buffers.iter().zip(offsets) {
        for part in &buffer.parts {
            places[usize::from(part.tensor)] = Some(Place {
                bank: 0,
                offset: offset + part.offset,
                first: part.first as u16,
                last: part.last as u16,
            });
        }
    }
    Plan {
        places,
        bank_bytes: vec![total],
        lower_bound,
        peak_step,
        live_bytes,
    }
}

/// A piece of memory: one tensor, several that replace each other in place, or the views of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffer {
    pub size: usize,
    pub parts: Vec<Part>,
}

/// A tensor's place in its buffer.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub tensor: TensorId,
    pub offset: usize,
    pub size: usize,
    pub first: usize,
    pub last: usize,
}

impl Buffer {
    /// First and last step of all parts.
    fn life(&self) -> (usize, usize) {
        let first = self.parts.iter().map(|p| p.first).min();
        let last = self.parts.iter().map(|p| p.last).max();
        (first.unwrap_or(0), last.unwrap_or(0))
    }

    /// Bytes that are some part's at a step.
    fn alive(&self, step: usize) -> usize {
        let alive = self
            .parts
            .iter()
            .filter(|p| p.first <= step && step <= p.last);
        let mut ranges: Vec<(usize, usize)> =
            alive.map(|p| (p.offset, p.offset + p.size)).collect();
        ranges.sort_unstable();
        let (mut bytes, mut end) = (0, 0);
        for (from, to) in ranges {
            bytes += to.saturating_sub(from.max(end));
            end = end.max(to);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(size: usize, first: usize, last: usize) -> Buffer {
        let part = Part {
            tensor: 0,
            offset: 0,
            size,
            first,
            last,
        };
        Buffer {
            size,
            parts: vec![part],
        }
    }

    fn check(buffers: &[Buffer], bound: usize) -> usize {
        let (offsets, total) = offsets::assign(buffers, bound, 2000);
        for (i, a) in buffers.iter().enumerate() {
            assert!(offsets[i] + a.size <= total);
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                let (a_life, b_life) = (a.life(), b.life());
                let in_time = a_life.0 <= b_life.1 && b_life.0 <= a_life.1;
                let in_space = offsets[i] < offsets[j] + b.size && offsets[j] < offsets[i] + a.size;
                assert!(!(in_time && in_space), "{i} and {j} overlap");
            }
        }
        total
    }

    #[test]
    fn random_plans_never_overlap_and_stay_near_the_bound() {
        let mut state = 7u32;
        let mut next = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % n
        };
        for _ in 0..200 {
            let buffers: Vec<Buffer> = (0..1 + next(40))
                .map(|_| {
                    let first = next(30) as usize;
                    buffer(
                        64 * (1 + next(100) as usize),
                        first,
                        first + next(6) as usize,
                    )
                })
                .collect();
            let bound = (0..40)
                .map(|s| buffers.iter().map(|b| b.alive(s)).sum())
                .max()
                .unwrap();
            assert!(check(&buffers, bound) <= bound * 3 / 2);
        }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let chain = [
            buffer(640, 0, 0),
            buffer(1280, 0, 1),
            buffer(640, 1, 2),
            buffer(64, 2, 3),
        ];
        assert_eq!(check(&chain, 1920), 1920);
    }
}
