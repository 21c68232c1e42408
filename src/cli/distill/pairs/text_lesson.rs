//! What the text tower learns before any picture.

use std::path::Path;

use ampoule::distill::teacher::TextTeacher;
use ampoule::distill::text::WordPiece;
use ampoule::distill::train::pairs::{Pairs, Space, Texts};
use ampoule::distill::train::{End, Run, TrainOptions, Trainer};
use serde_json::json;

use super::design::Design;
use super::setup::{hash, hash_texts};
use super::teachers::embed_texts;
use super::{CLIP, Distill};
use crate::cli::distill::live::Live;
use crate::cli::error::Failure;
use crate::cli::output::{count, facts, plural};

/// The text tower's lesson before any picture.
pub(super) struct TextLesson<'a> {
    pub args: &'a Distill,
    pub teacher: &'a TextTeacher,
    pub space: &'a Space,
    pub design: &'a Design,
    pub tokenizer: &'a WordPiece,
}

impl TextLesson<'_> {
    /// Trains the text tower's part of `first`.
    pub fn run(
        &self,
        pairs: &Pairs,
        folder: &Path,
        first: &mut [Vec<f32>],
        live: &mut Live,
    ) -> Result<(), Failure> {
        let args = self.args;
        let default = if args.pairs.texts.is_some() { 4 } else { 0 };
        let epochs = args.pairs.text_epochs.map_or(default, usize::from);
        if epochs == 0 {
            return Ok(());
        }
        let threads = args.threads();
        let more = match &args.pairs.texts {
            Some(path) => lines(path)?,
            None => Vec::new(),
        };
        let captions = pairs.captions();
        let taught = pairs.text_teaching().map(|t| t.embeddings.clone());
        let mut embeddings = taught.unwrap_or_default();
        let answers = embed_texts(self.teacher, &more, threads, folder)?;
        let project = |answers: &[f32]| -> Vec<f32> {
            let rows = answers.chunks(self.teacher.width());
            rows.flat_map(|e| self.space.project(e)).collect()
        };
        embeddings.extend(project(&answers));
        let texts: Vec<String> = captions.texts.iter().cloned().chain(more).collect();
        let names = pairs.measured_names();
        let measured = project(&embed_texts(self.teacher, &names, threads, folder)?);
        let (batch, tokens) = (args.recipe.batch, self.design.text.tokens);
        let seed = args.recipe.seed;
        let mut task = Texts::new(&texts, embeddings, self.tokenizer, [batch, tokens], seed)
            .measured_on(&names, measured, self.tokenizer);
        let options = TrainOptions {
            clip: Some(CLIP),
            ..args.options(epochs, threads)
        };
        let start = self.design.towers.image.parameters().len();
        let parameters = self.design.towers.text.parameters().len();
        let own = &mut first[start..start + parameters];
        let settings = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "training": options,
            "tower": self.design.text,
            "first_weights": hash(own),
            "texts": hash_texts(&texts),
            "teacher": self.teacher.sha256(),
            "batch": batch,
            "seed": seed,
        });
        let folder = folder.join("texts");
        let mut run = Run::open(&folder, settings)?;
        let graph = self.design.towers.text.graph().clone();
        let mut trainer = Trainer::new(graph, own.to_vec(), options)?;
        live.introduce(&facts(&[
            (
                "text tower",
                format!(
                    "{} parameters",
                    count(self.design.towers.text.parameter_count())
                ),
            ),
            ("learns from", plural(texts.len(), "text")),
            ("run", folder.display().to_string()),
        ]));
        let end = trainer.train(&mut task, Some(&mut run), live)?;
        live.finish();
        if let End::Stopped(steps) = end {
            return Err(Failure::Stopped { steps, run: folder });
        }
        for (own, learnt) in own.iter_mut().zip(trainer.weights()) {
            own.clone_from(learnt);
        }
        Ok(())
    }
}

/// The lines of a file that are not empty.
fn lines(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}
