//! Tiled execution: the rows of the first layers are computed in bands, so that no map of theirs is ever
//! whole and the arena shrinks.
//!
//! After "MCUNetV2: Memory-efficient Patch-based Inference for Tiny Deep Learning" (Lin et al., 2021), with bands of
//! whole rows in place of patches, and rows that are needed again kept in place of computed again: the work
//! stays the same but for the copies of those rows. A band's steps are ordinary steps on views of
//! rows; results are the same bits as without.

mod rows;
mod stream;

use std::collections::HashSet;

use ampoule_runtime::TensorId;
use serde::{Deserialize, Serialize};

use super::{Plan, PlanOptions, plan_in_place};
use crate::program::Program;
use rows::{Reach, operands};

/// Numbers of bands that are tried.
const BANDS: [usize; 14] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64];

/// Steps `first..=last` in bands of rows, and what that costs.
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
    pub chosen: Option<Tiling>,
    /// Arena without bands.
    pub untiled: usize,
    /// Tilings that no other beats in arena and in steps, largest arena first.
    pub curve: Vec<Tiling>,
}

/// Plans a program so that its arena is at most `budget` bytes, with as few more steps as possible; where none
/// fits, the smallest. The program gets the bands.
pub fn plan_within(program: &mut Program, budget: usize, options: &PlanOptions) -> (Plan, Tiled) {
    // Candidates do without the constants, which may be large.
    let constants = std::mem::take(&mut program.constants);
    let mut plain = program.clone();
    let plan = plan_in_place(&mut plain, options);
    let untiled = plan.total();
    let curve = pareto(candidates(program, untiled, options));
    let fits = curve.iter().find(|t| t.arena <= budget).or(curve.last());
    let chosen = fits.filter(|_| untiled > budget).cloned();
    let made = chosen.as_ref().and_then(|t| tile(program, t));
    let (plan, chosen) = match made {
        Some((tiled, _)) => {
            *program = tiled;
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

/// Every tiling that needs less than without bands.
fn candidates(program: &Program, untiled: usize, options: &PlanOptions) -> Vec<Tiling> {
    let quick = PlanOptions {
        effort: 0,
        ..options.clone()
    };
    let mut found = Vec::new();
    let Some(first) =
        (0..program.steps.len()).find(|&s| operands(program, &program.steps[s]).is_some())
    else {
        return found;
    };
    for last in first + 1..program.steps.len() {
        if operands(program, &program.steps[last]).is_none() {
            break;
        }
        let height = program.tensor(program.steps[last].output()).shape.dim(1);
        for bands in BANDS.into_iter().filter(|&n| n <= height) {
            for panels in [true, false] {
                let mut tiling = Tiling {
                    first,
                    last,
                    upto: program.step_names[last].clone(),
                    bands,
                    panels,
                    arena: 0,
                    steps: 0,
                    copied: 0,
                };
                let Some((mut tiled, copied)) = tile(program, &tiling) else {
                    break;
                };
                tiling.arena = plan_in_place(&mut tiled, &quick).total();
                if tiling.arena < untiled {
                    (tiling.steps, tiling.copied) =
                        (tiled.steps.len() - program.steps.len(), copied);
                    found.push(tiling);
                }
            }
        }
    }
    found
}

/// Those that no other beats in arena and steps.
fn pareto(mut all: Vec<Tiling>) -> Vec<Tiling> {
    all.sort_by_key(|t| (t.steps, !t.panels, t.arena, t.copied));
    let mut least = usize::MAX;
    all.retain(|t| {
        let better = t.arena < least;
        least = least.min(t.arena);
        better
    });
    all
}

/// The program with a segment in bands, and the bytes that this copies in a run.
fn tile(program: &Program, tiling: &Tiling) -> Option<(Program, usize)> {
    let (first, last) = (tiling.first, tiling.last);
    let segment = Segment::new(program, first, last)?;
    let mut out = Program {
        steps: Vec::new(),
        step_names: Vec::new(),
        step_macs: Vec::new(),
        ..program.clone()
    };
    let whole = |out: &mut Program, steps: std::ops::Range<usize>| {
        for s in steps {
            out.push(
                &program.step_names[s],
                program.step_macs[s],
                program.steps[s],
            );
        }
    };
    whole(&mut out, 0..first);
    let work = stream::emit(&segment, tiling, &mut out)?;
    whole(&mut out, last + 1..program.steps.len());
    (out.tensors.len() <= usize::from(TensorId::MAX)).then_some((out, work.copied))
}

/// Consecutive steps between two maps.
struct Segment<'p> {
    program: &'p Program,
    first: usize,
    last: usize,
    operands: Vec<Vec<(TensorId, Reach)>>,
}

impl<'p> Segment<'p> {
    /// `None` when other steps use what is inside, or more than one map comes in.
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
        (!used && incoming.len() == 1 && whole).then_some(Segment {
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
