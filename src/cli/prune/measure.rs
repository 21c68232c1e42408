//! Times of models that take turns, and what their answers are worth.

use std::time::Duration;

use ampoule_quantize::graph::Graph;
use ampoule_quantize::metrics::{Difference, Rate, argmax, classes};
use ampoule_quantize::model::Model;
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::{self, Progress, QuantizeOptions, Silent};

use super::Prune;
use super::budget::Cutter;
use super::summary::{Point, Size};
use crate::cli::error::Failure;
use crate::cli::progress::Bars;
use crate::cli::samples::Loaded;
use crate::cli::timing::{Times, Until, measure};

/// Rounds in which models take turns.
const ROUNDS: usize = 9;
/// How long each turn is.
const TURN: Duration = Duration::from_millis(60);
/// Samples that models are calibrated with for measuring alone.
const FEW: usize = 16;

impl Prune {
    /// The model in int8, and the sizes of artifact and arena.
    pub(super) fn int8(
        &self,
        graph: &Graph,
        samples: &dyn Samples,
    ) -> Result<(Model, usize, usize), Failure> {
        let mut graph = graph.clone();
        pipeline::prepare(&mut graph, false)?;
        let mut options = QuantizeOptions::default();
        options.lowering.sparse = Some(self.exec.isa());
        let q = pipeline::quantize(graph, samples, &options, &Silent)?;
        let (bytes, arena) = (q.compiled.bytes.len(), q.compiled.plan.total());
        Ok((Model::from_bytes(q.compiled.bytes)?, bytes, arena))
    }

    /// Times of models that take turns.
    pub(super) fn turns(&self, models: &mut [&mut Model]) -> Result<Vec<Times>, Failure> {
        let pool = self.exec.pool();
        let mut times = vec![Vec::new(); models.len()];
        for round in 0..ROUNDS {
            for (model, times) in models.iter_mut().zip(&mut times) {
                let mut session = self.exec.session(model, pool.as_ref())?;
                let turn = measure(&mut session, Until::Elapsed(TURN))?;
                // The first is for warming up.
                if round > 0 {
                    times.extend(turn);
                }
            }
        }
        Ok(times.into_iter().map(Times::of).collect())
    }

    pub(super) fn measure(
        &self,
        whole: &Graph,
        pruned: &Graph,
        samples: &Loaded,
        [before, after]: [&mut Size; 2],
        bars: &Bars,
    ) -> Result<[Model; 2], Failure> {
        bars.begin("measure", 2);
        let (mut a, bytes, arena) = self.int8(whole, samples)?;
        (before.int8_bytes, before.arena_bytes) = (Some(bytes), Some(arena));
        bars.advance(1);
        let (mut b, bytes, arena) = self.int8(pruned, samples)?;
        (after.int8_bytes, after.arena_bytes) = (Some(bytes), Some(arena));
        let mut times = self.turns(&mut [&mut a, &mut b])?;
        after.times = times.pop();
        before.times = times.pop();
        bars.end();
        Ok([a, b])
    }

    /// Cuts other shares, and measures each in turns with the whole model.
    pub(super) fn sweep(
        &self,
        cutter: &Cutter<'_>,
        shares: &[f32],
        samples: &Loaded,
        bars: &Bars,
    ) -> Result<Vec<Point>, Failure> {
        let few = Few(samples);
        let mut whole = self.int8(cutter.graph, &few)?.0;
        let mut points: Vec<Point> = Vec::new();
        bars.begin("sweep", shares.len());
        for &share in shares {
            let (graph, _) = cutter.cut(share)?;
            let mut model = self.int8(&graph, &few)?.0;
            let times = self.turns(&mut [&mut whole, &mut model])?;
            let [mut before, mut after] = [cutter.graph, &graph].map(|g| Size::of(g, 0));
            let min_cosine =
                self.quality(cutter.graph, &graph, samples, [&mut before, &mut after])?;
            let whole_us = times[0].median_us;
            let point = |share, us, size: Size, min_cosine| Point {
                share,
                parameters: size.parameters,
                macs: size.macs,
                us,
                whole_us,
                top1: size.top1,
                min_cosine,
            };
            if points.is_empty() {
                points.push(point(0.0, whole_us, before, Some(1.0)));
            }
            points.push(point(share, times[1].median_us, after, min_cosine));
            bars.advance(1);
        }
        bars.end();
        points.sort_by(|a, b| a.share.total_cmp(&b.share));
        Ok(points)
    }

    /// Accuracy of the float models where there are labels; smallest cosine between their outputs.
    pub(super) fn quality(
        &self,
        whole: &Graph,
        pruned: &Graph,
        samples: &Loaded,
        [before, after]: [&mut Size; 2],
    ) -> Result<Option<f64>, Failure> {
        let float = |graph: &Graph| -> Result<Model, Failure> {
            let mut graph = graph.clone();
            pipeline::prepare(&mut graph, false)?;
            Ok(Model::float(&graph)?)
        };
        let (mut a, mut b) = (float(whole)?, float(pruned)?);
        let first = whole.outputs.first().map(|p| whole.shape(p.value));
        let is_classes = first.and_then(classes).is_some();
        let mut rates = [Rate::default(), Rate::default()];
        let mut least: Option<f64> = None;
        for index in 0..samples.len() {
            let inputs = samples.sample(index).map_err(Failure::Usage)?;
            let (x, y) = (a.run_f32(&inputs)?, b.run_f32(&inputs)?);
            for (x, y) in x.iter().zip(&y) {
                let mut difference = Difference::default();
                if difference.update(x, y).is_ok() {
                    let cosine = difference.cosine();
                    least = Some(least.map_or(cosine, |l| l.min(cosine)));
                }
            }
            if let (true, Some(label)) = (is_classes, samples.label(index)) {
                for (rate, output) in rates.iter_mut().zip([&x, &y]) {
                    rate.add(output.first().and_then(|o| argmax(o)) == Some(label));
                }
            }
        }
        let labelled = (0..samples.len()).any(|i| samples.label(i).is_some());
        if is_classes && labelled {
            [before.top1, after.top1] = rates.map(Some);
        }
        Ok(least)
    }
}

/// The first samples.
pub(super) struct Few<'s>(pub &'s Loaded);

impl Samples for Few<'_> {
    fn len(&self) -> usize {
        self.0.len().min(FEW)
    }

    fn sample(&self, index: usize) -> Result<Vec<Vec<f32>>, String> {
        self.0.sample(index)
    }
}
