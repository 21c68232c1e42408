//! The task.

use std::sync::Arc;

use ampoule_runtime::preprocess::Preprocess;
use serde::{Deserialize, Serialize};

use super::{Captions, Retrieval};
use crate::augment::{Augmentation, Generator, Purpose};
use crate::data::{Batch, Loader, LoaderOptions, Pictures, Seeds, epoch_order, record_seed};
use crate::loss::{Contrast, TeacherPairs, cosine_distance, grouped_info_nce, relational};
use crate::text::WordPiece;
use crate::train::{Evaluator, Inputs, Measures, Step, Task, TrainError};

/// Largest factor of cosines (CLIP).
const LARGEST_SCALE: f32 = 100.0;
/// Factor of the teachers' cosines (MobileCLIP).
const TEACHER_SCALE: f64 = 100.0;

/// How pairs are learnt from.
#[derive(Debug, Clone)]
pub struct PairsOptions {
    /// Pairs in a step.
    pub batch: usize,
    /// Tokens of a text.
    pub tokens: usize,
    /// How losses are weighed.
    pub weights: PairsWeights,
    /// What order, seeds and the choice of captions are made of.
    pub seed: u64,
    /// From pictures to the tower's input.
    pub preprocess: Preprocess,
    /// Threads that decode and augment.
    pub threads: usize,
    /// How many pictures may be unreadable in an epoch.
    pub max_unreadable: usize,
}

/// Weights of the losses; those without a teacher do not count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairsWeights {
    /// CLIP's contrastive loss between the towers.
    pub contrast: f64,
    /// The same between the picture tower and the text teacher.
    pub picture: f64,
    /// Distance of the text tower from the text teacher.
    pub text: f64,
    /// MobileCLIP's relational loss with both teachers.
    pub relational: f64,
}

impl Default for PairsWeights {
    fn default() -> Self {
        PairsWeights {
            contrast: 1.0,
            picture: 1.0,
            text: 4.0,
            relational: 1.0,
        }
    }
}

/// What a text teacher says: in the student's space, per text of [`Captions`].
#[derive(Debug, Clone, Default)]
pub struct TextTeaching {
    /// `[texts, width]`, of length 1.
    pub embeddings: Vec<f32>,
}

/// What an image teacher and a text teacher of one space say.
#[derive(Debug, Clone, Default)]
pub struct ImageTeaching {
    /// Per sample.
    pub images: Vec<f32>,
    /// Per text of [`Captions`].
    pub texts: Vec<f32>,
    /// Length of an embedding.
    pub width: usize,
}

/// Learning to match pictures and texts.
pub struct Pairs {
    pictures: Pictures,
    captions: Captions,
    /// Tokens of each text.
    tokens: Vec<Vec<f32>>,
    evaluation: (Pictures, Captions, Vec<f32>),
    text: Option<TextTeaching>,
    image: Option<ImageTeaching>,
    options: PairsOptions,
    loader: Option<Loader>,
    epoch: usize,
    unreadable: Vec<String>,
}

/// A batch of pictures, and a text for each.
pub struct PairsBatch {
    batch: Batch,
    /// Which of the texts.
    texts: Vec<usize>,
    /// What pictures show.
    groups: Vec<usize>,
    ids: Vec<f32>,
}

impl Pairs {
    /// Pairs of `pictures` and their captions, measured on those of `evaluation`.
    ///
    /// # Errors
    ///
    /// [`TrainError`] when a picture has no caption.
    pub fn new(
        pictures: Pictures,
        evaluation: Arc<crate::data::Dataset>,
        tokenizer: &WordPiece,
        options: PairsOptions,
    ) -> Result<Self, TrainError> {
        let captions = Captions::of(&pictures.data)?;
        let measured = Captions::of(&evaluation)?;
        let encode = |text: &String| -> Vec<f32> {
            let ids = tokenizer.encode(text, options.tokens);
            ids.into_iter().map(|id| id as f32).collect()
        };
        let names = measured
            .names
            .iter()
            .flat_map(|&t| encode(&measured.texts[t]));
        let names = names.collect();
        let p = &options.preprocess;
        let augmentation = Augmentation {
            filter: p.filter,
            ..Augmentation::none([p.width, p.height], p.resize)
        };
        Ok(Pairs {
            tokens: captions.texts.iter().map(encode).collect(),
            captions,
            pictures,
            evaluation: (
                Pictures {
                    data: evaluation,
                    augmentation,
                },
                measured,
                names,
            ),
            text: None,
            image: None,
            options,
            loader: None,
            epoch: 0,
            unreadable: Vec::new(),
        })
    }

    /// With a text teacher.
    pub fn with_text_teacher(mut self, teaching: TextTeaching) -> Self {
        self.text = Some(teaching);
        self
    }

    /// With an image teacher.
    pub fn with_image_teacher(mut self, teaching: ImageTeaching) -> Self {
        self.image = Some(teaching);
        self
    }

    /// The texts that are learnt from.
    pub fn captions(&self) -> &Captions {
        &self.captions
    }

    /// What the text teacher says to them.
    pub fn text_teaching(&self) -> Option<&TextTeaching> {
        self.text.as_ref()
    }

    /// The texts that are asked with when the towers are measured.
    pub fn measured_names(&self) -> Vec<String> {
        let captions = &self.evaluation.1;
        let names = captions.names.iter().map(|&t| captions.texts[t].clone());
        names.collect()
    }

    /// Why pictures were left out, in the epochs so far.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Embeddings of the measured pictures, what they show, and the embeddings of their texts.
    ///
    /// # Errors
    ///
    /// [`TrainError`] when more pictures can't be read than allowed, or inputs are not the graph's.
    pub fn embeddings(
        &self,
        network: &mut Evaluator<'_>,
    ) -> Result<(Vec<f32>, Vec<usize>, Vec<f32>), TrainError> {
        let (pictures, captions, ids) = &self.evaluation;
        let all: Vec<u32> = (0..pictures.data.len() as u32).collect();
        let (mut images, mut groups) = (Vec::new(), Vec::new());
        let seeds: Seeds = Arc::new(|_| 0);
        // The graph has both towers: the one that is not asked sees padding, or a black picture.
        for batch in Loader::new(pictures.clone(), &all, seeds, self.loader_options()) {
            let batch = batch?;
            let samples = batch.samples.len();
            let padding = vec![0.0; samples * self.options.tokens];
            let outputs = network.run(&Inputs {
                samples,
                values: vec![&batch.images, &padding],
            })?;
            images.extend_from_slice(outputs[0]);
            groups.extend(batch.samples.iter().map(|&s| captions.group[s]));
        }
        let mut texts = Vec::new();
        for ids in ids.chunks(self.options.tokens * self.options.batch.max(1)) {
            let samples = ids.len() / self.options.tokens;
            let black = vec![0.0; samples * self.options.preprocess.output_len()];
            let outputs = network.run(&Inputs {
                samples,
                values: vec![&black, ids],
            })?;
            texts.extend_from_slice(outputs[1]);
        }
        Ok((images, groups, texts))
    }

    /// Recall on the measured pairs.
    ///
    /// # Errors
    ///
    /// As of [`Pairs::embeddings`].
    pub fn retrieval(&self, network: &mut Evaluator<'_>) -> Result<Retrieval, TrainError> {
        let (images, groups, texts) = self.embeddings(network)?;
        let width = texts.len() / self.evaluation.1.names.len().max(1);
        Ok(Retrieval::of(width, &images, &groups, &texts))
    }

    fn loader_options(&self) -> LoaderOptions {
        LoaderOptions {
            batch: self.options.batch,
            threads: self.options.threads.max(1),
            ahead: 2,
            preprocess: self.options.preprocess,
            max_unreadable: self.options.max_unreadable,
            keep_pixels: false,
        }
    }

    /// The caption of a sample in this epoch: every other time the first, else any.
    fn caption(&self, sample: usize) -> usize {
        let seed = record_seed(self.options.seed, self.epoch, sample) as u32;
        let mut random = Generator::new([seed.into(), 0, 0], Purpose::Caption);
        let all = &self.captions.of_sample[sample];
        match random.chance(0.5) {
            true => all[0],
            false => all[random.below(all.len() as u32) as usize],
        }
    }
}

impl Task for Pairs {
    type Batch = PairsBatch;

    fn steps(&self) -> u64 {
        let batch = self.options.batch.max(1);
        self.pictures.data.len().div_ceil(batch) as u64
    }

    fn start(&mut self, epoch: usize, position: u64) -> Result<(), TrainError> {
        let seed = self.options.seed;
        let seeds: Seeds = Arc::new(move |sample| record_seed(seed, epoch, sample));
        self.epoch = epoch;
        self.loader = Some(Loader::starting_at(
            position as usize,
            self.pictures.clone(),
            &epoch_order(seed, epoch, self.pictures.data.len()),
            seeds,
            self.loader_options(),
        ));
        Ok(())
    }

    fn batch(&mut self) -> Result<Option<PairsBatch>, TrainError> {
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
        let texts: Vec<usize> = batch.samples.iter().map(|&s| self.caption(s)).collect();
        Ok(Some(PairsBatch {
            groups: batch
                .samples
                .iter()
                .map(|&s| self.captions.group[s])
                .collect(),
            ids: texts.iter().flat_map(|&t| self.tokens[t].clone()).collect(),
            texts,
            batch,
        }))
    }

    fn position(&self) -> u64 {
        self.loader.as_ref().map_or(0, |l| l.position() as u64)
    }

    fn inputs<'b>(&self, batch: &'b PairsBatch) -> Inputs<'b> {
        Inputs {
            samples: batch.batch.samples.len(),
            values: vec![&batch.batch.images, &batch.ids],
        }
    }

    fn loss(&mut self, batch: &PairsBatch, step: Step<'_>) -> Result<Measures, TrainError> {
        let rows = batch.batch.samples.len();
        let width = step.outputs[0].len() / rows.max(1);
        let weights = self.options.weights;
        let temperature = step.parameters.len() - 1;
        let scale = step.parameters[temperature][0]
            .min(LARGEST_SCALE.ln())
            .exp();
        let towers = Contrast {
            images: step.outputs[0],
            texts: step.outputs[1],
            rows,
            scale: scale.into(),
        };
        let mut sum = Sum {
            scratch: [vec![0.0; rows * width], vec![0.0; rows * width]],
            gradients: step.output_gradients,
            loss: 0.0,
            by_scale: 0.0,
        };
        let contrast = sum.add(weights.contrast, [true, true], |[i, t]| {
            grouped_info_nce(&towers, &batch.groups, i, t)
        })?;
        let mut measures = Measures::default().and("contrast", contrast);
        if let Some(teacher) = &self.text {
            let taught = gather(&teacher.embeddings, width, &batch.texts);
            let with_teacher = Contrast {
                texts: &taught,
                ..towers
            };
            let loss = sum.add(weights.picture, [true, false], |[i, t]| {
                grouped_info_nce(&with_teacher, &batch.groups, i, t)
            })?;
            measures = measures.and("picture", loss);
            let loss = sum.add(weights.text, [false, true], |[_, by_text]| {
                let rows_of = |x: &'_ [f32], r: usize| x[r * width..][..width].to_vec();
                let mut total = 0.0;
                for (r, by_text) in by_text.chunks_exact_mut(width).enumerate() {
                    let (own, wanted) = (rows_of(towers.texts, r), rows_of(&taught, r));
                    total += cosine_distance(&own, &wanted, by_text)? / rows as f64;
                    by_text.iter_mut().for_each(|g| *g /= rows as f32);
                }
                Ok((total, 0.0))
            })?;
            measures = measures.and("text", loss);
        }
        if let Some(teacher) = &self.image {
            let images = gather(&teacher.images, teacher.width, &batch.batch.samples);
            let texts = gather(&teacher.texts, teacher.width, &batch.texts);
            let taught = TeacherPairs {
                images: &images,
                texts: &texts,
            };
            let loss = sum.add(weights.relational, [true, true], |[i, t]| {
                relational(&towers, &[taught], TEACHER_SCALE, i, t)
            })?;
            measures = measures.and("relational", loss);
        }
        let is_free = step.parameters[temperature][0] < LARGEST_SCALE.ln();
        if is_free || sum.by_scale > 0.0 {
            step.gradients[temperature][0] += (sum.by_scale * f64::from(scale)) as f32;
        }
        measures.loss = Some(sum.loss);
        Ok(measures.and("scale", scale.into()))
    }

    fn evaluate(&mut self, network: &mut Evaluator<'_>) -> Result<Measures, TrainError> {
        let found = self.retrieval(network)?;
        Ok(Measures::default()
            .and("text_to_image_at_1", found.text_to_image.at_1)
            .and("text_to_image_at_10", found.text_to_image.at_10)
            .and("image_to_text_at_1", found.image_to_text.at_1)
            .and("image_to_text_at_10", found.image_to_text.at_10))
    }
}

/// Losses added up.
struct Sum<'s> {
    gradients: &'s mut [Vec<f32>],
    scratch: [Vec<f32>; 2],
    loss: f64,
    by_scale: f64,
}

impl Sum<'_> {
    /// Adds a loss, and the gradients of those towers that follow it. Gives the loss without weight.
    fn add(
        &mut self,
        weight: f64,
        follows: [bool; 2],
        loss: impl FnOnce([&mut [f32]; 2]) -> Result<(f64, f64), crate::loss::LossError>,
    ) -> Result<f64, TrainError> {
        let [images, texts] = &mut self.scratch;
        let (loss, by_scale) = loss([images, texts])?;
        for ((gradient, from), follows) in self.gradients.iter_mut().zip(&self.scratch).zip(follows)
        {
            if follows {
                let pairs = gradient.iter_mut().zip(from);
                pairs.for_each(|(g, x)| *g += weight as f32 * x);
            }
        }
        self.loss += weight * loss;
        self.by_scale += weight * by_scale;
        Ok(loss)
    }
}

/// Rows of a table, one behind the other.
fn gather(table: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    let row = |&r: &usize| &table[r * width..][..width];
    rows.iter().flat_map(row).copied().collect()
}
