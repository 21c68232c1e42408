//! Working memory for several threads where the arena has room for it.

use ampoule_runtime::Shape;
use ampoule_runtime::artifact::Step;
use ampoule_runtime::artifact::layout::ALIGN;

use super::{Plan, PlanOptions, plan};
use crate::program::Program;

/// Most threads that an attention gets working memory for.
const THREADS: usize = 4;

/// Widens the working memory of attention for as many threads, up to four, as the arena holds without growing.
pub fn widen_scratch(program: &mut Program, mut best: Plan, options: &PlanOptions) -> Plan {
    let scratch: Vec<(usize, Shape)> = program
        .steps
        .iter()
        .filter(|step| matches!(step, Step::Attention(_)))
        .filter_map(|step| step.scratch().map(usize::from))
        .map(|id| (id, program.tensors[id].shape))
        .collect();
    let resize = |program: &mut Program, threads: usize| {
        for (id, one) in &scratch {
            let share = one.elements().next_multiple_of(ALIGN);
            let shape = match threads {
                1 => Some(*one),
                n => Shape::new(&[n * share]),
            };
            program.tensors[*id].shape = shape.unwrap_or(*one);
        }
    };
    for threads in 2..=THREADS {
        if scratch.is_empty() {
            break;
        }
        resize(program, threads);
        let wider = plan(program, options);
        if wider.total() > best.total() {
            resize(program, threads - 1);
            break;
        }
        best = wider;
    }
    best
}
