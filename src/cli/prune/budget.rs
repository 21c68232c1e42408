//! `--budget-ms`: cutting until a run takes so long.

use ampoule_quantize::graph::Graph;
use ampoule_quantize::prune::{Coupling, GroupCut, Importance, StructuredOptions, cut, structured};

use super::Prune;
use super::measure::Few;
use crate::cli::error::Failure;
use crate::cli::output::{micros, note};
use crate::cli::samples::Loaded;

/// How near the measured time has to come to --budget-ms.
const NEAR: f64 = 0.05;
/// How far from it the nearest cut may be; above is an error, below a warning.
const FAR: f64 = 0.1;
/// Most ratios that --budget-ms tries.
const TRIES: usize = 10;
/// Largest share that --budget-ms tries.
const MOST: f32 = 0.99;

impl Prune {
    /// Tries shares of the multiply-accumulates until a run takes as long as the budget.
    pub(super) fn within(
        &self,
        cutter: &Cutter<'_>,
        budget_ms: f64,
        samples: &Loaded,
    ) -> Result<(Graph, Vec<GroupCut>), Failure> {
        let budget = budget_ms * 1e3;
        let few = Few(samples);
        let time = |graph: &Graph| -> Result<f64, Failure> {
            let mut model = self.int8(graph, &few)?.0;
            Ok(self.turns(&mut [&mut model])?[0].median_us)
        };
        let whole = time(cutter.graph)?;
        if whole <= budget {
            return Err(self.out_of_reach(format!(
                "takes {} a run as it is, which --budget-ms {budget_ms} allows",
                micros(whole)
            )));
        }
        let (mut low, mut high) = (0.0f32, 1.0f32);
        let mut best: Option<(f64, Graph, Vec<GroupCut>)> = None;
        let mut share = (1.0 - budget / whole) as f32;
        for _ in 0..TRIES {
            let share_now = share.clamp(0.01, MOST);
            let (graph, cuts) = cutter.cut(share_now)?;
            let us = time(&graph)?;
            let left = graph.macs() as f64 / cutter.graph.macs().max(1) as f64;
            note(&format!(
                "{:.1} % less work: {}",
                100.0 * (1.0 - left),
                micros(us)
            ));
            let distance = |us: f64| (us / budget - 1.0).abs();
            if best
                .as_ref()
                .is_none_or(|(b, ..)| distance(us) < distance(*b))
            {
                best = Some((us, graph, cuts));
            }
            if distance(us) < NEAR || (us > budget && share_now == MOST) {
                break;
            }
            match us > budget {
                true => low = share_now,
                false => high = share_now,
            }
            share = (low + high) / 2.0;
        }
        match best {
            Some((us, graph, cuts)) if us <= budget * (1.0 + FAR) => {
                if us < budget * (1.0 - FAR) {
                    note(&format!(
                        "warning: channels go {} at a time: the nearest cut takes {}, not {budget_ms} ms",
                        self.step,
                        micros(us)
                    ));
                }
                Ok((graph, cuts))
            }
            best => Err(self.out_of_reach(format!(
                "can't be cut down to {budget_ms} ms: the fastest that is left takes {}",
                micros(best.map_or(whole, |b| b.0))
            ))),
        }
    }

    fn out_of_reach(&self, what: String) -> Failure {
        Failure::Unfit {
            path: self.model.clone(),
            what,
            hint: "another --budget-ms, or another --isa or --threads",
        }
    }
}

/// Everything a cut is made from.
pub(super) struct Cutter<'a> {
    pub graph: &'a Graph,
    pub coupling: &'a Coupling,
    pub importance: &'a Importance,
    pub options: StructuredOptions,
}

impl Cutter<'_> {
    pub(super) fn cut(&self, share: f32) -> Result<(Graph, Vec<GroupCut>), Failure> {
        let options = StructuredOptions {
            share,
            ..self.options.clone()
        };
        let (gone, cuts) = structured(self.graph, self.coupling, self.importance, &options)?;
        Ok((cut(self.graph, self.coupling, &gone)?, cuts))
    }
}
