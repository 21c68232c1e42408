//! Memory planning: every tensor gets a bank and an offset such that tensors alive at the same step
//! never share memory, except where a step works in place.
//!
//! The result is deterministic. Several greedy orders are tried and the smallest arena wins; the
//! bound that no plan can beat (the most bytes alive at one step) is reported beside it.

mod lifetimes;
mod offsets;

use ampoule_runtime::artifact::Step;
use ampoule_runtime::artifact::layout::ALIGN;
use ampoule_runtime::{Shape, TensorId};

use crate::program::Program;
pub use lifetimes::{Lifetime, lifetimes};

/// How tensors may be placed.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Let steps overwrite an input that nobody reads later.
    pub in_place: bool,
    /// Keep every tensor for the whole run, so that an observer can read all of them.
    pub keep_all: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            in_place: true,
            keep_all: false,
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
        .map(|s| {
            buffers
                .iter()
                .filter(|b| b.first <= s && s <= b.last)
                .map(|b| b.size)
                .sum()
        })
        .collect();
    let (peak_step, lower_bound) = live_bytes
        .iter()
        .copied()
        .enumerate()
        .max_by_key(|&(i, n)| (n, usize::MAX - i))
        .unwrap_or_default();
    let (offsets, total) = offsets::assign(&buffers, lower_bound);
    let mut places = vec![None; program.tensors.len()];
    for (buffer, offset) in buffers.iter().zip(offsets) {
        for &t in &buffer.tensors {
            let life = &lives[usize::from(t)];
            places[usize::from(t)] = life.as_ref().map(|l| Place {
                bank: 0,
                offset,
                first: l.first as u16,
                last: l.last as u16,
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

/// Most threads that an attention gets working memory for.
const THREADS: usize = 4;

/// [`plan`], with working memory of attention for as many threads, up to four, as the arena holds
/// without growing.
pub fn plan_for_threads(program: &mut Program, options: &PlanOptions) -> Plan {
    let mut best = plan(program, options);
    let scratch: Vec<(usize, Shape)> = program
        .steps
        .iter()
        .filter(|step| matches!(step, Step::Attention(_)))
        .filter_map(|step| step.scratch().map(usize::from))
        .map(|id| (id, program.tensors[id].shape))
        .collect();
    for threads in 2..=THREADS {
        let before: Vec<Shape> = scratch
            .iter()
            .map(|&(id, _)| program.tensors[id].shape)
            .collect();
        for (id, one) in &scratch {
            let share = one.elements().next_multiple_of(ALIGN);
            if let Some(shape) = Shape::new(&[threads * share]) {
                program.tensors[*id].shape = shape;
            }
        }
        let wider = plan(program, options);
        if wider.bank_bytes > best.bank_bytes {
            for ((id, _), shape) in scratch.iter().zip(before) {
                program.tensors[*id].shape = shape;
            }
            break;
        }
        best = wider;
    }
    best
}

/// A piece of memory shared by one tensor, or by several that replace each other in place.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    pub tensors: Vec<TensorId>,
    pub size: usize,
    pub first: usize,
    pub last: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(size: usize, first: usize, last: usize) -> Buffer {
        Buffer {
            tensors: vec![],
            size,
            first,
            last,
        }
    }

    fn check(buffers: &[Buffer], bound: usize) -> usize {
        let (offsets, total) = offsets::assign(buffers, bound);
        for (i, a) in buffers.iter().enumerate() {
            assert!(offsets[i] + a.size <= total);
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                let in_time = a.first <= b.last && b.first <= a.last;
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
                .map(|s| {
                    buffers
                        .iter()
                        .filter(|b| b.first <= s && s <= b.last)
                        .map(|b| b.size)
                        .sum()
                })
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
