//! Tiled execution: the rows of the first layers are computed in bands, so that no map of theirs is ever
//! whole and the arena shrinks.
//!
//! After "MCUNetV2: Memory-efficient Patch-based Inference for Tiny Deep Learning" (Lin et al., 2021), with bands of
//! whole rows in place of patches, and rows that are needed again kept in place of computed again: the work
//! stays the same but for the copies of those rows. A band's steps are ordinary steps on views of
//! rows; results are the same bits as without.

mod rows;
mod search;
mod stream;

use std::collections::HashSet;

use ampoule_runtime::TensorId;
use serde::{Deserialize, Serialize};

use super::{Plan, PlanOptions, plan_in_place};
use crate::program::Program;
use rows::{Reach, operands};

/// Consecutive steps in bands of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiling {
    /// First step of the segment in the plan without bands.
    pub first: usize,
    /// Last step.
    pub last: usize,
    /// Name of the last step.
    pub upto: String,
    /// Bands that the rows of its result appear in.
    pub bands: usize,
    /// Whether convolutions have working memory for patches; without it they gather fewer at once.
    pub panels: bool,
}

/// Segments in bands, and what they cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Banding {
    /// In order of execution.
    pub segments: Vec<Tiling>,
    /// Bytes of arena.
    pub arena: usize,
    /// Steps more than without bands.
    pub steps: usize,
    /// Bytes of rows copied in a run.
    pub copied: usize,
}

/// What bands can do for an arena.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiled {
    /// What was chosen; `None` when the budget holds without bands.
    pub chosen: Option<Banding>,
    /// Arena without bands.
    pub untiled: usize,
    /// What was found on the way to the budget and no other beats in arena and in steps, largest arena first.
    pub curve: Vec<Banding>,
}

/// Plans a program so that its arena is at most `budget` bytes, with as few more steps as possible; where none
/// fits, the smallest. The program gets the bands.
pub fn plan_within(program: &mut Program, budget: usize, options: &PlanOptions) -> (Plan, Tiled) {
    // Candidates do without the constants, which may be large.
    let constants = std::mem::take(&mut program.constants);
    let mut plain = program.clone();
    let plan = plan_in_place(&mut plain, options);
    let untiled = plan.total();
    let found = search::search(program, budget, options);
    let curve = pareto(found.into_iter().filter(|b| b.arena < untiled).collect());
    let fits = curve.iter().find(|b| b.arena <= budget).or(curve.last());
    let chosen = fits.filter(|_| untiled > budget).cloned();
    let made = chosen.as_ref().and_then(|b| tile(program, &b.segments));
    let (plan, chosen) = match made {
        Some(tiled) => {
            *program = tiled.program;
            (plan_in_place(program, options), chosen)
        }
        None => {
            *program = plain;
            (plan, None)
        }
    };
    program.constants = constants;
    let tiled = Tiled {
        chosen,
        untiled,
        curve,
    };
    (plan, tiled)
}

/// Those that no other beats in arena and steps.
fn pareto(mut all: Vec<Banding>) -> Vec<Banding> {
    let exact = |b: &Banding| {
        let choice = |t: &Tiling| (t.first, t.last, t.bands, !t.panels);
        b.segments.iter().map(choice).collect::<Vec<_>>()
    };
    all.sort_by_cached_key(|b| (b.steps, b.arena, b.copied, exact(b)));
    let mut least = usize::MAX;
    all.retain(|b| {
        let better = b.arena < least;
        least = least.min(b.arena);
        better
    });
    all
}

/// A program with bands.
struct Banded {
    program: Program,
    /// Per step the one without bands that it comes from; a segment's come from its first.
    origins: Vec<usize>,
    /// Bytes copied in a run.
    copied: usize,
}

/// The program with segments, in order and disjoint, in bands.
fn tile(program: &Program, segments: &[Tiling]) -> Option<Banded> {
    let mut out = Program {
        steps: Vec::new(),
        step_names: Vec::new(),
        step_macs: Vec::new(),
        ..program.clone()
    };
    let (mut origins, mut copied, mut next) = (Vec::new(), 0, 0);
    let whole = |out: &mut Program, steps: std::ops::Range<usize>| {
        for s in steps {
            out.push(
                &program.step_names[s],
                program.step_macs[s],
                program.steps[s],
            );
        }
    };
    for tiling in segments {
        whole(&mut out, next..tiling.first);
        origins.extend(next..tiling.first);
        let segment = Segment::new(program, tiling.first, tiling.last)?;
        copied += stream::emit(&segment, tiling, &mut out)?.copied;
        origins.resize(out.steps.len(), tiling.first);
        next = tiling.last + 1;
    }
    whole(&mut out, next..program.steps.len());
    origins.extend(next..program.steps.len());
    let numbered = out.tensors.len() <= usize::from(TensorId::MAX);
    numbered.then_some(Banded {
        program: out,
        origins,
        copied,
    })
}

/// Consecutive steps that make one map.
struct Segment<'p> {
    program: &'p Program,
    first: usize,
    last: usize,
    operands: Vec<Vec<(TensorId, Reach)>>,
}

impl<'p> Segment<'p> {
    /// `None` when other steps use what is inside.
    fn new(program: &'p Program, first: usize, last: usize) -> Option<Self> {
        let steps = program.steps.get(first..=last)?;
        let operands: Vec<_> = steps
            .iter()
            .map(|s| operands(program, s))
            .collect::<Option<_>>()?;
        let made: HashSet<TensorId> = steps.iter().map(|s| s.output()).collect();
        let result = steps.last()?.output();
        let inner = |t: TensorId| made.contains(&t) && t != result;
        let outside = program.steps[..first]
            .iter()
            .chain(&program.steps[last + 1..]);
        let used = outside.flat_map(|s| s.inputs()).flatten().any(inner)
            || program.outputs.iter().any(|p| inner(p.tensor));
        let read = || operands.iter().flatten().map(|o| o.0);
        let incoming: HashSet<TensorId> = read().filter(|t| !made.contains(t)).collect();
        let whole = made.len() == steps.len()
            && !read().any(|t| t == result)
            && made
                .iter()
                .chain(&incoming)
                .all(|&t| program.tensor(t).view.is_none());
        (!used && !incoming.is_empty() && whole).then_some(Segment {
            program,
            first,
            last,
            operands,
        })
    }

    /// Operands of a step of the segment.
    fn operands(&self, step: usize) -> &[(TensorId, Reach)] {
        &self.operands[step - self.first]
    }
}
