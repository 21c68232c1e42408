//! A text tower that learns from its teacher alone.

use crate::data::epoch_order;
use crate::loss::cosine_distance;
use crate::text::WordPiece;
use crate::train::{Evaluator, Inputs, Measures, Step, Task, TrainError};

/// Learning to embed texts as a teacher does, by the cosine of both embeddings.
///
/// Texts cost a small part of what pictures cost, and there are more of them: a text tower that knows its
/// teacher's space before any picture is shown names things that no learnt picture shows.
pub struct Texts {
    tokens: Vec<Vec<f32>>,
    /// What the teacher says to each, in the student's space.
    embeddings: Vec<f32>,
    measured: (Vec<f32>, Vec<f32>),
    batch: usize,
    length: usize,
    seed: u64,
    order: Vec<u32>,
    position: usize,
}

/// Some texts.
pub struct TextBatch {
    ids: Vec<f32>,
    texts: Vec<usize>,
}

impl Texts {
    /// `texts` and the teacher's `embeddings` of them, `[texts, width]` with length 1, in batches of
    /// `batch`; cut to `length` tokens.
    pub fn new(
        texts: &[String],
        embeddings: Vec<f32>,
        tokenizer: &WordPiece,
        [batch, length]: [usize; 2],
        seed: u64,
    ) -> Self {
        let ids = |text: &String| tokens(tokenizer, text, length);
        Texts {
            tokens: texts.iter().map(ids).collect(),
            embeddings,
            measured: Default::default(),
            batch: batch.max(1),
            length,
            seed,
            order: Vec::new(),
            position: 0,
        }
    }

    /// Measured on other texts, and the teacher's embeddings of them.
    pub fn measured_on(
        mut self,
        texts: &[String],
        embeddings: Vec<f32>,
        tokenizer: &WordPiece,
    ) -> Self {
        let ids = texts
            .iter()
            .flat_map(|text| tokens(tokenizer, text, self.length));
        self.measured = (ids.collect(), embeddings);
        self
    }
}

fn tokens(tokenizer: &WordPiece, text: &str, length: usize) -> Vec<f32> {
    let ids = tokenizer.encode(text, length);
    ids.into_iter().map(|id| id as f32).collect()
}

impl Task for Texts {
    type Batch = TextBatch;

    fn steps(&self) -> u64 {
        self.tokens.len().div_ceil(self.batch) as u64
    }

    fn start(&mut self, epoch: usize, position: u64) -> Result<(), TrainError> {
        self.order = epoch_order(self.seed, epoch, self.tokens.len());
        self.position = position as usize;
        Ok(())
    }

    fn batch(&mut self) -> Result<Option<TextBatch>, TrainError> {
        let end = (self.position + self.batch).min(self.order.len());
        let texts: Vec<usize> = self.order[self.position.min(end)..end]
            .iter()
            .map(|&i| i as usize)
            .collect();
        self.position = end;
        if texts.is_empty() {
            return Ok(None);
        }
        let ids = texts.iter().flat_map(|&t| &self.tokens[t]);
        Ok(Some(TextBatch {
            ids: ids.copied().collect(),
            texts,
        }))
    }

    fn position(&self) -> u64 {
        self.position as u64
    }

    fn inputs<'b>(&self, batch: &'b TextBatch) -> Inputs<'b> {
        Inputs {
            samples: batch.texts.len(),
            values: vec![&batch.ids],
        }
    }

    fn loss(&mut self, batch: &TextBatch, step: Step<'_>) -> Result<Measures, TrainError> {
        let rows = batch.texts.len();
        let width = step.outputs[0].len() / rows.max(1);
        let gradients = step.output_gradients[0].chunks_exact_mut(width);
        let mut loss = 0.0;
        for ((own, gradient), &text) in step.outputs[0]
            .chunks_exact(width)
            .zip(gradients)
            .zip(&batch.texts)
        {
            let wanted = &self.embeddings[text * width..][..width];
            loss += cosine_distance(own, wanted, gradient)? / rows as f64;
            gradient.iter_mut().for_each(|g| *g /= rows as f32);
        }
        Ok(Measures::of_loss(loss))
    }

    fn evaluate(&mut self, network: &mut Evaluator<'_>) -> Result<Measures, TrainError> {
        let (ids, wanted) = &self.measured;
        let rows = ids.len() / self.length.max(1);
        if rows == 0 {
            return Ok(Measures::default());
        }
        let width = wanted.len() / rows;
        let mut sum = 0.0;
        for (ids, wanted) in ids
            .chunks(self.length * self.batch)
            .zip(wanted.chunks(width * self.batch))
        {
            let samples = ids.len() / self.length;
            let outputs = network.run(&Inputs {
                samples,
                values: vec![ids],
            })?;
            let products = outputs[0].iter().zip(wanted);
            sum += products
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum::<f64>();
        }
        Ok(Measures::default().and("cosine", sum / rows as f64))
    }
}
