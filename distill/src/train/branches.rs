//! The smaller sizes of an elastic network, in training.

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::{Graph, Kind};

use super::task::outputs;
use super::{Step, Task, TrainError};
use crate::elastic::{Elastic, Order, Slices};
use crate::loss::dense_distillation;

/// Share of the whole network's answers in a size's loss; the task has the rest.
const SHARE_OF_WHOLE: f32 = 0.5;

/// All sizes but the whole network.
pub(super) struct Branches {
    order: Order,
    all: Vec<Branch>,
}

/// A size.
struct Branch {
    engine: Engine,
    slices: Slices,
    parameters: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    output_gradients: Vec<Vec<f32>>,
    /// Its statistics, and where the trainer keeps them.
    statistics: Vec<[usize; 2]>,
}

/// What a size learns with.
pub(super) struct Branching<'s> {
    pub number: u64,
    pub samples: usize,
    pub inputs: &'s [&'s [f32]],
    pub mode: Mode,
    /// What the whole network answers.
    pub whole: &'s [f32],
    /// The trainer's; a size's statistics change.
    pub parameters: &'s mut [Vec<f32>],
    /// Those of the whole network, to which a size's are added.
    pub gradients: &'s mut [Vec<f32>],
}

impl Branches {
    /// Of a network whose graph and first parameters get the statistics of all sizes.
    pub fn new(
        elastic: &Elastic,
        graph: &mut Graph,
        parameters: &mut Vec<Vec<f32>>,
        [threads, seed]: [u64; 2],
    ) -> Result<Self, TrainError> {
        let mut all = Vec::new();
        let mut names = elastic.names().into_iter().skip(parameters.len());
        for size in &elastic.sizes()[..elastic.sizes().len() - 1] {
            let slices = Slices::new(elastic.whole(), size)?;
            let mut own = slices.room();
            slices.gather(parameters, &mut own);
            let mut statistics = Vec::new();
            for (statistic, (name, shape)) in size.statistics().zip(&mut names) {
                graph.parameter(name, &shape, Kind::Statistic);
                statistics.push([statistic, parameters.len()]);
                parameters.push(own[statistic].clone());
            }
            let network = size.network().graph().clone();
            all.push(Branch {
                output_gradients: vec![Vec::new(); network.outputs().len()],
                engine: Engine::new(network, threads as usize)?,
                slices,
                gradients: own.clone(),
                parameters: own,
                statistics,
            });
        }
        let order = Order::new(elastic, seed);
        Ok(Branches { order, all })
    }

    /// The size whose turn it is learns from the task and from the whole network; gives its loss.
    pub fn step<T: Task>(
        &mut self,
        task: &mut T,
        batch: &T::Batch,
        at: Branching<'_>,
    ) -> Result<f64, TrainError> {
        let branch = &mut self.all[self.order.at(at.number)];
        branch.slices.gather(at.parameters, &mut branch.parameters);
        for &[own, kept] in &branch.statistics {
            branch.parameters[own].clone_from(&at.parameters[kept]);
        }
        let (parameters, engine) = (&mut branch.parameters, &mut branch.engine);
        engine.forward(parameters, at.inputs, at.samples, at.mode)?;
        for &[own, kept] in &branch.statistics {
            at.parameters[kept].clone_from(&parameters[own]);
        }
        for gradient in &mut branch.gradients {
            gradient.fill(0.0);
        }
        let outputs = outputs(engine);
        for (gradient, output) in branch.output_gradients.iter_mut().zip(&outputs) {
            gradient.clear();
            gradient.resize(output.len(), 0.0);
        }
        let answers = outputs[0];
        let measures = task.loss(
            batch,
            Step {
                number: at.number,
                outputs,
                output_gradients: &mut branch.output_gradients,
                parameters,
                gradients: &mut branch.gradients,
            },
        )?;
        let classes = (answers.len() / at.samples.max(1)).max(1);
        let mut own = vec![0.0; classes];
        let mut unlike = 0.0;
        let gradients = branch.output_gradients[0].chunks_exact_mut(classes);
        let rows = answers.chunks_exact(classes);
        let rows = rows.zip(at.whole.chunks_exact(classes)).zip(gradients);
        for ((row, whole), gradient) in rows {
            unlike += dense_distillation(row, whole, 1.0, &mut own)?;
            let share = SHARE_OF_WHOLE / at.samples as f32;
            for (g, own) in gradient.iter_mut().zip(&own) {
                *g = (1.0 - SHARE_OF_WHOLE) * *g + share * own;
            }
        }
        let by_output: Vec<&[f32]> = branch.output_gradients.iter().map(|g| &g[..]).collect();
        let gradients = &mut branch.gradients;
        engine.backward(parameters, &by_output, gradients)?;
        branch.slices.scatter(gradients, at.gradients);
        let share = f64::from(SHARE_OF_WHOLE);
        let of_task = measures.loss.unwrap_or(0.0);
        Ok((1.0 - share) * of_task + share * unlike / at.samples.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::*;
    use super::*;
    use crate::augment::{Generator, Purpose};
    use crate::loss::label_cross_entropy;
    use crate::zoo::{self, Config, Weights};

    /// Two classes of bright and dark pictures, two to a step.
    struct Bright(u64);

    impl Task for Bright {
        type Batch = Vec<f32>;

        fn steps(&self) -> u64 {
            6
        }
        fn start(&mut self, _: usize, position: u64) -> Result<(), TrainError> {
            self.0 = position;
            Ok(())
        }
        fn batch(&mut self) -> Result<Option<Vec<f32>>, TrainError> {
            self.0 += 1;
            let mut random = Generator::new([self.0, 0, 0], Purpose::Picture);
            let mut picture = |bright: f32| -> Vec<f32> {
                let pixels = (0..32 * 32 * 3).map(|_| bright + random.unit() as f32);
                pixels.collect()
            };
            let both = [picture(-0.5), picture(0.5)].concat();
            Ok((self.0 <= 6).then_some(both))
        }
        fn position(&self) -> u64 {
            self.0
        }
        fn inputs<'b>(&self, batch: &'b Vec<f32>) -> Inputs<'b> {
            Inputs {
                samples: 2,
                values: vec![batch],
            }
        }
        fn loss(&mut self, _: &Vec<f32>, step: Step<'_>) -> Result<Measures, TrainError> {
            let gradients = step.output_gradients[0].chunks_exact_mut(2);
            let mut total = 0.0;
            for (i, (row, g)) in step.outputs[0].chunks_exact(2).zip(gradients).enumerate() {
                total += label_cross_entropy(row, i, 0.0, g)? / 2.0;
                g.iter_mut().for_each(|g| *g /= 2.0);
            }
            Ok(Measures::of_loss(total))
        }
    }

    fn trainer(epochs: usize) -> Trainer {
        let config = zoo::find("tinyvit-mini").unwrap().config.clone();
        let config = config.with_classes(2).with_size(32).unwrap();
        let Config::TinyVit(config) = config else {
            unreachable!("a TinyViT")
        };
        let elastic = Elastic::new(config, &[0.34]).unwrap();
        let first = Weights::initial(elastic.whole(), 1).into_values();
        let options = TrainOptions {
            epochs,
            rate: 2e-3,
            ema: Some(0.8),
            ..TrainOptions::default()
        };
        Trainer::elastic(&elastic, first, options).unwrap()
    }

    /// Stops after some steps, and notes the losses of the smaller sizes.
    #[derive(Default)]
    struct Watch {
        stop: Option<u64>,
        step: u64,
        losses: Vec<f64>,
    }

    impl Observer for Watch {
        fn step(&mut self, report: &StepReport) {
            self.step = report.step;
            self.losses.extend(report.measures.get("smaller_size"));
        }
        fn stops(&mut self) -> bool {
            self.stop == Some(self.step)
        }
    }

    #[test]
    fn all_sizes_learn_and_runs_go_on() {
        let mut whole = trainer(5);
        let mut watch = Watch::default();
        let end = whole.train(&mut Bright(0), None, &mut watch);
        assert_eq!(end.unwrap(), End::Done);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (mean(&watch.losses[..6]), mean(&watch.losses[24..]));
        assert!(last < 0.7 * first, "{first} {last}");
        let bits = |t: &Trainer| -> Vec<u32> {
            let values = t.values().iter().flatten();
            values.map(|v| v.to_bits()).collect()
        };
        for stop in [6, 17] {
            let folder = tempfile::tempdir().unwrap();
            let mut run = Run::open(folder.path(), json!({})).unwrap();
            let mut watch = Watch {
                stop: Some(stop),
                ..Watch::default()
            };
            let end = trainer(5).train(&mut Bright(0), Some(&mut run), &mut watch);
            assert_eq!(end.unwrap(), End::Stopped(stop));
            drop(run);
            let mut run = Run::open(folder.path(), json!({})).unwrap();
            let mut second = trainer(5);
            second
                .train(&mut Bright(0), Some(&mut run), &mut Silent)
                .unwrap();
            assert!(bits(&second) == bits(&whole), "stopped after {stop}");
        }
    }
}
