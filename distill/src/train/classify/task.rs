//! The task.

use std::sync::Arc;

use ampoule_quantize::metrics::argmax;
use ampoule_runtime::preprocess::Preprocess;

use super::split::Split;
use super::targets::{Answer, Labels, Source, Weighting};
use crate::augment::{Augmentation, Generator, Purpose};
use crate::data::{
    Batch, Dataset, Loader, LoaderOptions, Pictures, Seeds, epoch_order, record_seed,
};
use crate::scalekd::{Comparison, Features, Parts, compare};
use crate::store::{Epoch, Kind, Store};
use crate::teacher::Desks;
use crate::train::{Evaluator, Inputs, Measures, Step, Task, TrainError};

/// How pictures are learnt from.
#[derive(Debug, Clone)]
pub struct ClassificationOptions {
    /// Samples in a step; even.
    pub batch: usize,
    /// How labels and teachers are weighed.
    pub weighting: Weighting,
    /// What order and seeds are made of.
    pub seed: u64,
    /// From pictures to the student's input.
    pub preprocess: Preprocess,
    /// Threads that decode and augment, or run teachers.
    pub threads: usize,
    /// How many pictures may be unreadable in an epoch.
    pub max_unreadable: usize,
}

/// Learning to classify pictures.
pub struct Classification {
    pictures: Pictures,
    split: Split,
    source: Source,
    /// What is measured: pictures and which of them.
    evaluation: (Pictures, Vec<u32>),
    classes: usize,
    options: ClassificationOptions,
    loader: Option<Loader>,
    epoch: Option<Arc<Epoch>>,
    desks: Vec<Desks>,
    mimicry: Option<Mimicry>,
    unreadable: Vec<String>,
}

/// A teacher whose maps the student learns, too.
pub struct Mimicry {
    /// The teacher.
    pub teacher: Features,
    /// How its maps are compared with the outputs of the student's graph but the first.
    pub comparisons: Vec<Comparison>,
    /// What counts how much.
    pub parts: Parts,
}

/// A batch with what the teacher says of it, and its maps if they are learnt.
pub struct Lesson {
    batch: Batch,
    answers: Vec<Answer>,
    maps: Option<[Vec<f32>; 2]>,
}

/// Right and wrong answers on the samples that are measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Confusion {
    /// In the order of the measured samples; those that can't be read are left out.
    pub answers: Vec<Answered>,
    /// Mean cross-entropy with the labels.
    pub loss: f64,
}

/// A measured sample and what the network says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answered {
    /// Its number in the measured set.
    pub sample: usize,
    /// Its class, where known.
    pub class: Option<u32>,
    /// The class that the network finds most probable.
    pub best: usize,
    /// Its probability.
    pub probability: f32,
}

impl Answered {
    /// Whether the class is known, and another one.
    pub fn is_wrong(&self) -> bool {
        self.class.is_some_and(|class| class as usize != self.best)
    }
}

impl Confusion {
    /// Labelled samples, and how many of them are right.
    pub fn right(&self) -> (usize, usize) {
        let labelled = self.answers.iter().filter(|a| a.class.is_some());
        let right = labelled.clone().filter(|a| !a.is_wrong());
        (right.count(), labelled.count())
    }
}

impl Classification {
    /// Samples of `pictures` as `split` says. `evaluation` is another set to be measured; the samples that
    /// are held out without.
    ///
    /// # Errors
    ///
    /// [`TrainError`] when there is nothing to learn from, or store, teachers, classes and labels do not go
    /// together.
    pub fn new(
        pictures: Pictures,
        split: Split,
        source: Source,
        evaluation: Option<Arc<Dataset>>,
        classes: usize,
        options: ClassificationOptions,
    ) -> Result<Self, TrainError> {
        pictures.data.check_classes(classes)?;
        let own = &pictures.data;
        let evaluation = match evaluation {
            Some(data) => {
                data.check_classes(classes)?;
                own.check_names(&data)?;
                let all = 0..data.len() as u32;
                (data, all.collect())
            }
            None => {
                let held_out = (0..own.len() as u32).filter(|&s| split.held_out[s as usize]);
                (own.clone(), held_out.collect::<Vec<u32>>())
            }
        };
        let p = &options.preprocess;
        let measured = Augmentation {
            filter: p.filter,
            ..Augmentation::none([p.width, p.height], p.resize)
        };
        let task = Classification {
            evaluation: (
                Pictures {
                    data: evaluation.0,
                    augmentation: measured,
                },
                evaluation.1,
            ),
            desks: match &source {
                Source::Teachers(panel) => {
                    (0..options.threads.max(1)).map(|_| panel.desks()).collect()
                }
                _ => Vec::new(),
            },
            pictures,
            split,
            source,
            classes,
            options,
            loader: None,
            epoch: None,
            mimicry: None,
            unreadable: Vec::new(),
        };
        task.check()?;
        Ok(task)
    }

    /// The same with a teacher's maps to be learnt, for a student that [`extend`](crate::scalekd::extend) has
    /// extended.
    pub fn with_mimicry(self, mimicry: Mimicry) -> Self {
        Classification {
            mimicry: Some(mimicry),
            ..self
        }
    }

    fn check(&self) -> Result<(), TrainError> {
        let mismatch = |what, expected: String, got: String| {
            Err(TrainError::Mismatch {
                what,
                expected,
                got,
            })
        };
        let answered = match &self.source {
            Source::Labels => None,
            Source::Store(store) => Some((store.header().kind.clone(), "the store")),
            Source::Teachers(panel) => Some((panel.kind().clone(), "the teacher")),
        };
        match answered {
            None if self.samples() == 0 => {
                let what = "no picture has a label that may be used";
                return Err(TrainError::Nothing(what.to_owned()));
            }
            None => {}
            Some((Kind::SparseLogits { classes, .. }, _)) if classes == self.classes => {}
            Some((Kind::SparseLogits { classes, .. }, "the store")) => {
                let expected = format!("the student's {}", self.classes);
                return mismatch("classes of the store", expected, classes.to_string());
            }
            Some((Kind::SparseLogits { classes, .. }, _)) => {
                let expected = format!("the student's {}", self.classes);
                return mismatch("classes of the teacher", expected, classes.to_string());
            }
            Some((kind, _)) => {
                let expected = "probabilities (`--kind logits`)".to_owned();
                return mismatch("what the store holds", expected, format!("{kind:?}"));
            }
        }
        if self.samples() == 0 {
            let what = "all pictures are held out".to_owned();
            return Err(TrainError::Nothing(what));
        }
        Ok(())
    }

    /// How many samples are learnt from.
    pub fn samples(&self) -> usize {
        (0..self.pictures.data.len())
            .filter(|&s| self.is_used(s))
            .count()
    }

    /// How many labels are learnt from.
    pub fn labels(&self) -> usize {
        self.split.labels.iter().flatten().count()
    }

    /// The files that are learnt from.
    pub fn learnt(&self) -> Vec<std::path::PathBuf> {
        let samples = self.pictures.data.samples().iter().enumerate();
        let used = samples.filter(|(i, _)| self.is_used(*i));
        used.map(|(_, sample)| sample.path.clone()).collect()
    }

    /// The set that is measured, and which of its samples.
    pub fn measured(&self) -> (&Arc<Dataset>, &[u32]) {
        (&self.evaluation.0.data, &self.evaluation.1)
    }

    /// Why pictures were left out, in the epochs so far.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// The network's answers on the measured samples.
    ///
    /// # Errors
    ///
    /// [`TrainError`] when more pictures can't be read than allowed, or inputs are not the graph's.
    pub fn confusion(&self, network: &mut Evaluator<'_>) -> Result<Confusion, TrainError> {
        let (pictures, samples) = &self.evaluation;
        let mut confusion = Confusion::default();
        let seeds: Seeds = Arc::new(|_| 0);
        let options = LoaderOptions {
            keep_pixels: false,
            ..self.loader_options()
        };
        let classes = self.classes;
        let mut loss = 0.0;
        for batch in Loader::new(pictures.clone(), samples, seeds, options) {
            let batch = batch?;
            let inputs = Inputs {
                samples: batch.samples.len(),
                values: vec![&batch.images],
            };
            let outputs = network.run(&inputs)?;
            for (row, &sample) in outputs[0].chunks_exact(classes).zip(&batch.samples) {
                let class = pictures.data.samples()[sample].class;
                let best = argmax(row).unwrap_or(0);
                let sum: f64 = row.iter().map(|&x| f64::from(x - row[best]).exp()).sum();
                if let Some(class) = class {
                    loss += sum.ln() - f64::from(row[class as usize] - row[best]);
                }
                confusion.answers.push(Answered {
                    sample,
                    class,
                    best,
                    probability: (1.0 / sum) as f32,
                });
            }
        }
        let (_, labelled) = confusion.right();
        confusion.loss = loss / labelled.max(1) as f64;
        Ok(confusion)
    }

    /// Whether a sample is learnt from.
    fn is_used(&self, sample: usize) -> bool {
        match self.source {
            Source::Labels => self.split.labels[sample].is_some(),
            _ => !self.split.held_out[sample],
        }
    }

    fn loader_options(&self) -> LoaderOptions {
        LoaderOptions {
            batch: self.options.batch,
            threads: self.options.threads.max(1),
            ahead: 2,
            preprocess: self.options.preprocess,
            max_unreadable: self.options.max_unreadable,
            keep_pixels: matches!(self.source, Source::Teachers(_)) || self.mimicry.is_some(),
        }
    }

    /// The samples of an epoch that are learnt from, pairs side by side where they are mixed.
    fn order(&self, epoch: usize) -> Vec<u32> {
        let (seed, all) = (self.options.seed, self.pictures.data.len());
        let used = |sample: &u32| self.is_used(*sample as usize);
        if self.pictures.augmentation.mix.is_none() {
            let mut order = epoch_order(seed, epoch, all);
            order.retain(used);
            return order;
        }
        // The teacher saw these pairs; both have to be used.
        let pairs = match &self.source {
            Source::Store(store) => epoch_order(store.header().seed, stored(store, epoch), all),
            _ => epoch_order(seed, epoch, all),
        };
        let pairs: Vec<&[u32]> = pairs.chunks(2).filter(|p| p.iter().all(used)).collect();
        let (whole, single): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|p| p.len() == 2);
        let mut random = Generator::new([seed, epoch as u64, 1], Purpose::Order);
        let order = random.permutation(whole.len() as u32).into_iter();
        let pairs = order.flat_map(|i| whole[i as usize]);
        pairs.chain(single.into_iter().flatten()).copied().collect()
    }

    /// What teachers say of a batch's pictures, on all threads.
    fn ask(&mut self, batch: &Batch) -> Result<Vec<Answer>, TrainError> {
        let size = self.pictures.augmentation.size;
        let lanes = self.desks.len();
        let lane = |(number, desks): (usize, &mut Desks)| {
            let mine = batch.pixels.iter().skip(number).step_by(lanes);
            let answers = mine.map(|pixels| desks.distribution(pixels, size));
            answers.collect::<Result<Vec<_>, _>>()
        };
        let answers = std::thread::scope(|scope| {
            let lanes = self.desks.iter_mut().enumerate();
            let handles: Vec<_> = lanes.map(|l| scope.spawn(move || lane(l))).collect();
            let joined = handles.into_iter().map(|h| {
                h.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect::<Result<Vec<_>, _>>()
        })?;
        let mut lanes: Vec<_> = answers.into_iter().map(Vec::into_iter).collect();
        let count = lanes.len();
        let in_order = (0..batch.pixels.len()).filter_map(|i| lanes[i % count].next());
        Ok(in_order.map(Answer::Dense).collect())
    }

    /// What the store says of a batch's pictures.
    fn look_up(&self, batch: &Batch) -> Result<Vec<Answer>, TrainError> {
        let Some(epoch) = &self.epoch else {
            return Ok(Vec::new());
        };
        let samples = batch.samples.iter();
        let answers = samples.map(|&sample| {
            let record = epoch.record(sample)?;
            let (indices, values) = (record.indices(), record.values());
            Ok(Answer::Sparse(indices.collect(), values.collect()))
        });
        answers.collect()
    }

    /// The labels of a sample in a batch: none unless all that are mixed have one.
    fn labels_of(&self, batch: &Batch, i: usize) -> Labels {
        let label = |sample: usize| self.split.labels[sample];
        let (share, other) = batch.shares[i];
        match (label(batch.samples[i]), other) {
            (Some(own), None) => [Some((own, 1.0)), None],
            (Some(own), Some(other)) => match label(other) {
                Some(other) => [Some((own, share)), Some((other, 1.0 - share))],
                None => [None, None],
            },
            (None, _) => [None, None],
        }
    }
}

/// The epoch of the store that serves an epoch of training.
fn stored(store: &Store, epoch: usize) -> usize {
    epoch % store.header().epochs
}

impl Task for Classification {
    type Batch = Lesson;

    fn steps(&self) -> u64 {
        self.samples().div_ceil(self.options.batch.max(1)) as u64
    }

    fn start(&mut self, epoch: usize, position: u64) -> Result<(), TrainError> {
        let seeds: Seeds = match &self.source {
            Source::Store(store) => {
                let of_store = Arc::new(store.epoch(stored(store, epoch))?);
                self.epoch = Some(of_store.clone());
                of_store.seeds()
            }
            _ => {
                let seed = self.options.seed;
                Arc::new(move |sample| record_seed(seed, epoch, sample))
            }
        };
        self.loader = Some(Loader::starting_at(
            position as usize,
            self.pictures.clone(),
            &self.order(epoch),
            seeds,
            self.loader_options(),
        ));
        Ok(())
    }

    fn batch(&mut self) -> Result<Option<Lesson>, TrainError> {
        let Some(loader) = &mut self.loader else {
            return Ok(None);
        };
        let Some(batch) = loader.next().transpose()? else {
            for reason in loader.unreadable() {
                if !self.unreadable.contains(reason) {
                    self.unreadable.push(reason.clone());
                }
            }
            return Ok(None);
        };
        let answers = match self.source {
            Source::Labels => Vec::new(),
            Source::Store(_) => self.look_up(&batch)?,
            Source::Teachers(_) => self.ask(&batch)?,
        };
        let size = self.pictures.augmentation.size;
        let maps = match &mut self.mimicry {
            Some(mimicry) => Some(mimicry.teacher.see(&batch.pixels, size)?),
            None => None,
        };
        Ok(Some(Lesson {
            batch,
            answers,
            maps,
        }))
    }

    fn position(&self) -> u64 {
        self.loader.as_ref().map_or(0, |l| l.position() as u64)
    }

    fn inputs<'b>(&self, lesson: &'b Lesson) -> Inputs<'b> {
        Inputs {
            samples: lesson.batch.samples.len(),
            values: vec![&lesson.batch.images],
        }
    }

    fn loss(&mut self, lesson: &Lesson, step: Step<'_>) -> Result<Measures, TrainError> {
        let Lesson {
            batch,
            answers,
            maps,
        } = lesson;
        let samples = batch.samples.len();
        let rows = step.outputs[0].chunks_exact(self.classes);
        let (of_classes, of_maps) = step.output_gradients.split_at_mut(1);
        let gradients = of_classes[0].chunks_exact_mut(self.classes);
        let (mut total, mut right, mut agreed) = (0.0, (0, 0), 0);
        for (i, (row, gradient)) in rows.zip(gradients).enumerate() {
            let (answer, labels) = (answers.get(i), self.labels_of(batch, i));
            let factor = 1.0 / samples as f32;
            let weighting = &self.options.weighting;
            total += weighting.loss(row, answer, &labels, factor, gradient)?;
            let best = argmax(row);
            if let [Some((label, _)), _] = labels {
                right.0 += usize::from(best == Some(label as usize));
                right.1 += 1;
            }
            agreed += usize::from(answer.is_some_and(|a| a.best() == best));
        }
        let mut measures = Measures::of_loss(total / samples as f64);
        if let (Some(mimicry), Some(maps)) = (&self.mimicry, maps) {
            let Mimicry {
                comparisons, parts, ..
            } = mimicry;
            let outputs = &step.outputs[1..];
            let unlike = compare(comparisons, parts, samples, outputs, maps, of_maps)?;
            measures.loss = measures.loss.map(|loss| loss + unlike);
            measures = measures.and("features", unlike);
        }
        if right.1 > 0 {
            measures = measures.and("accuracy", right.0 as f64 / right.1 as f64);
        }
        if !answers.is_empty() {
            measures = measures.and("agreement", agreed as f64 / samples as f64);
        }
        Ok(measures)
    }

    fn evaluate(&mut self, network: &mut Evaluator<'_>) -> Result<Measures, TrainError> {
        let confusion = self.confusion(network)?;
        Ok(match confusion.right() {
            (_, 0) => Measures::default(),
            (right, labelled) => {
                Measures::of_loss(confusion.loss).and("accuracy", right as f64 / labelled as f64)
            }
        })
    }
}
