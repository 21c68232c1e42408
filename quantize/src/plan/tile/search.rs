//! Which steps run in bands, and in how many.

use std::collections::HashMap;

use super::{Banding, Tiling, tile};
use crate::plan::{PlanOptions, plan};
use crate::program::Program;

/// Numbers of bands that a segment starts with.
const COARSE: [usize; 6] = [2, 4, 8, 16, 32, 64];
/// Numbers of bands that are tried in the end.
const FINE: [usize; 15] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64];
/// Most steps that a segment starts with before and after the peak.
const REACH: usize = 7;
/// An arena's next goal, as parts of a hundred: far first, then near.
const GOALS: [usize; 3] = [88, 95, 99];

/// Searches from no bands towards the budget: each move puts the steps around the peak into bands, or changes
/// those that are, so that less lies above the goal. Gives all that were tried and save memory.
pub(super) fn search(program: &Program, budget: usize, options: &PlanOptions) -> Vec<Banding> {
    let mut search = Search {
        program,
        options: PlanOptions {
            effort: 0,
            ..options.clone()
        },
        tried: HashMap::new(),
    };
    let Some(mut here) = search.state(Vec::new()) else {
        return Vec::new();
    };
    let mut goals = GOALS.iter();
    let mut goal = *goals.next().unwrap_or(&100);
    while here.banding.arena > budget {
        let target = budget.max(here.banding.arena * goal / 100);
        match search.towards(target, &here) {
            Some(better) => here = better,
            None => match goals.next() {
                Some(&nearer) => goal = nearer,
                None => break,
            },
        }
    }
    let untiled = |s: &State| s.banding.segments.is_empty();
    let states = search.tried.into_values().flatten();
    states.filter(|s| !untiled(s)).map(|s| s.banding).collect()
}

/// Some segments, and what they make of the plan.
#[derive(Debug, Clone)]
struct State {
    banding: Banding,
    /// Most bytes alive during each step of the program without bands.
    live: Vec<usize>,
}

type Choice = (usize, usize, usize, bool);

struct Search<'p> {
    program: &'p Program,
    options: PlanOptions,
    tried: HashMap<Vec<Choice>, Option<State>>,
}

impl Search<'_> {
    /// The state whose arena is at most `target`; `None` when moves that lessen the bytes above it end before.
    fn towards(&mut self, target: usize, from: &State) -> Option<State> {
        let mut here = from.clone();
        while here.banding.arena > target {
            let cost = |s: &State| (s.excess(target), s.banding.steps, s.banding.copied);
            let moves = self.moves(&here);
            let states = moves.into_iter().filter_map(|m| self.state(m));
            let best = states.min_by_key(cost)?;
            if best.excess(target) >= here.excess(target) {
                return None;
            }
            here = best;
        }
        Some(here)
    }

    /// Other segments around the peak.
    fn moves(&self, here: &State) -> Vec<Vec<Tiling>> {
        let peak = here.peak();
        let last = self.program.steps.len() - 1;
        let mut moves = Vec::new();
        let mut add = |first: usize, last: usize, bands: usize, panels: bool| {
            let apart = |t: &&Tiling| t.last < first || last < t.first;
            let mut segments: Vec<Tiling> = here
                .banding
                .segments
                .iter()
                .filter(apart)
                .cloned()
                .collect();
            segments.push(Tiling {
                first,
                last,
                upto: self.program.step_names[last].clone(),
                bands,
                panels,
            });
            segments.sort_by_key(|t| t.first);
            moves.push(segments);
        };
        let segments = &here.banding.segments;
        match segments.iter().find(|t| t.first <= peak && peak <= t.last) {
            Some(t) => {
                let others: Vec<Tiling> = segments
                    .iter()
                    .filter(|s| s.first != t.first)
                    .cloned()
                    .collect();
                for bands in FINE {
                    add(t.first, t.last, bands, t.panels);
                    add(t.first, t.last, bands, false);
                }
                for first in t.first.saturating_sub(3)..=(t.first + 2).min(t.last) {
                    for last in t.last.saturating_sub(2).max(first)..=(t.last + 4).min(last) {
                        for bands in [t.bands, t.bands * 3 / 2, t.bands * 2] {
                            add(first, last, bands, t.panels);
                        }
                    }
                }
                moves.push(others);
            }
            None => {
                for first in peak.saturating_sub(REACH)..=peak {
                    for last in peak..=(peak + REACH).min(last) {
                        for bands in COARSE {
                            add(first, last, bands, true);
                            add(first, last, bands, false);
                        }
                        add(first, last, 1, false);
                    }
                }
            }
        }
        moves
    }

    /// What those segments make of the plan; `None` where they can't run in bands.
    fn state(&mut self, segments: Vec<Tiling>) -> Option<State> {
        let choice = |t: &Tiling| (t.first, t.last, t.bands, t.panels);
        let key: Vec<Choice> = segments.iter().map(choice).collect();
        if let Some(known) = self.tried.get(&key) {
            return known.clone();
        }
        let state = self.evaluate(segments);
        self.tried.insert(key, state.clone());
        state
    }

    fn evaluate(&self, segments: Vec<Tiling>) -> Option<State> {
        let tiled = tile(self.program, &segments)?;
        let plan = plan(&tiled.program, &self.options);
        let mut live = vec![0; self.program.steps.len()];
        for (&origin, &bytes) in tiled.origins.iter().zip(&plan.live_bytes) {
            live[origin] = bytes.max(live[origin]);
        }
        Some(State {
            banding: Banding {
                segments,
                arena: plan.total(),
                steps: tiled.program.steps.len() - self.program.steps.len(),
                copied: tiled.copied,
            },
            live,
        })
    }
}

impl State {
    /// Bytes above a target: of all steps, and of the arena.
    fn excess(&self, target: usize) -> usize {
        let above = |bytes: usize| bytes.saturating_sub(target);
        let steps: usize = self.live.iter().map(|&bytes| above(bytes)).sum();
        steps + above(self.banding.arena)
    }

    /// The step with the most bytes.
    fn peak(&self) -> usize {
        let steps = self.live.iter().enumerate();
        steps
            .max_by_key(|&(i, &bytes)| (bytes, usize::MAX - i))
            .map_or(0, |(i, _)| i)
    }
}
