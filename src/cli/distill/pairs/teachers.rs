//! Who is learnt from.

use std::path::Path;

use ampoule::distill::augment::Augmentation;
use ampoule::distill::data::Dataset;
use ampoule::distill::teacher::{Teacher, TeacherError, TeacherOptions, TextTeacher};
use ampoule::distill::text::WordPiece;
use ampoule::distill::train::TrainError;
use ampoule::distill::train::pairs::{
    Captions, ImageTeaching, Pairs, Retrieval, Space, TextTeaching,
};
use ampoule_quantize::data::decode;
use ampoule_quantize::pipeline::Progress;
use ampoule_runtime::preprocess::{Preprocess, Resize};

use super::setup::hash_texts;
use super::student::unit;
use super::{Distill, Row, Tower};
use crate::cli::error::Failure;
use crate::cli::files::save;
use crate::cli::preprocessing::ImageArgs;
use crate::cli::progress::Bars;

/// Who is learnt from.
pub(super) struct Teachers {
    pub text: Option<TextTeacher>,
    pub image: Option<Teacher>,
}

impl Teachers {
    pub fn open(args: &Distill, tokenizer: &WordPiece) -> Result<Self, Failure> {
        let pairs = &args.pairs;
        let text = match &pairs.text_teacher {
            None => None,
            Some(path) => {
                let own = pairs.teacher_vocabulary.as_ref().map(WordPiece::read);
                let own = own.transpose()?.unwrap_or_else(|| tokenizer.clone());
                Some(TextTeacher::load(path, own)?)
            }
        };
        let image = match &pairs.image_teacher {
            None => None,
            Some(path) => Some(image_teacher(path, args)?),
        };
        if let (Some(image), Some(text)) = (&image, &text) {
            let width = image.shape().iter().product::<usize>();
            if width != text.width() {
                return Err(TrainError::Mismatch {
                    what: "length of the image teacher's embedding",
                    expected: format!("the text teacher's {}", text.width()),
                    got: width.to_string(),
                }
                .into());
            }
        }
        Ok(Teachers { text, image })
    }

    /// Has the teachers answer to all that is learnt from.
    pub fn teach(
        &self,
        mut task: Pairs,
        data: &Dataset,
        width: usize,
        threads: usize,
        folder: &Path,
    ) -> Result<(Pairs, Option<Space>), Failure> {
        let Some(text) = &self.text else {
            return Ok((task, None));
        };
        let texts = embed_texts(text, &task.captions().texts, threads, folder)?;
        let space = Space::of(&texts, text.width(), width);
        if space.width() < width {
            return Err(TrainError::Mismatch {
                what: "length of the text teacher's embedding",
                expected: format!("at least the student's {width}"),
                got: text.width().to_string(),
            }
            .into());
        }
        let projected = texts.chunks(text.width()).flat_map(|e| space.project(e));
        task = task.with_text_teacher(TextTeaching {
            embeddings: projected.collect(),
        });
        if let Some(image) = &self.image {
            task = task.with_image_teacher(ImageTeaching {
                images: embed_pictures(image, data)?,
                width: text.width(),
                texts,
            });
        }
        Ok((task, Some(space)))
    }

    pub fn ids(&self) -> Vec<String> {
        let image = self.image.as_ref().map(|t| t.sha256().to_owned());
        let text = self.text.as_ref().map(|t| t.sha256().to_owned());
        text.into_iter().chain(image).collect()
    }

    pub fn text(&self) -> String {
        let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
        let text = self.text.as_ref().map(|t| name(t.path()));
        let image = self.image.as_ref().map(|t| name(t.path()));
        let names: Vec<String> = text.into_iter().chain(image).collect();
        match names.is_empty() {
            true => "the pairs alone".to_owned(),
            false => format!("the pairs, {}", names.join(" + ")),
        }
    }

    /// The teachers' row, where there are both.
    pub fn row(
        &self,
        measured: &Dataset,
        threads: usize,
        folder: &Path,
    ) -> Result<Option<Row>, Failure> {
        let (Some(image), Some(text)) = (&self.image, &self.text) else {
            return Ok(None);
        };
        let captions = Captions::of(measured)?;
        let names = captions.names.iter().map(|&t| captions.texts[t].clone());
        let mut texts = embed_texts(text, &names.collect::<Vec<_>>(), threads, folder)?;
        let mut images = embed_pictures(image, measured)?;
        for row in [&mut texts, &mut images] {
            row.chunks_mut(text.width()).for_each(unit);
        }
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len() as usize);
        let tower = |path| Tower {
            bytes: size(path),
            ..Tower::default()
        };
        Ok(Some(Row {
            name: "teachers".to_owned(),
            retrieval: Some(Retrieval::of(
                text.width(),
                &images,
                &captions.group,
                &texts,
            )),
            image: tower(image.path()),
            text: tower(text.path()),
        }))
    }
}

/// A model of pictures; its only output, or the one named `embedding`.
fn image_teacher(path: &Path, args: &Distill) -> Result<Teacher, Failure> {
    let named = TeacherOptions {
        output: Some("embedding".to_owned()),
        ..TeacherOptions::default()
    };
    let teacher = match Teacher::load(path, &TeacherOptions::default()) {
        Err(TeacherError::Output { .. }) => Teacher::load(path, &named)?,
        result => result?,
    };
    let p = *teacher.preprocess();
    let image = ImageArgs::of_preset(args.teacher_preset);
    let shape = [1, p.height.into(), p.width.into(), 3];
    let preprocess = Preprocess {
        resize: Resize::Exact,
        ..image.preprocess(&shape)?
    };
    Ok(teacher.with_preprocess(preprocess)?)
}

/// The teacher's embeddings of texts. They take minutes, so a run keeps them in its folder: one that is taken
/// up again, or started from another's folder, does not ask twice.
pub(super) fn embed_texts(
    teacher: &TextTeacher,
    texts: &[String],
    threads: usize,
    folder: &Path,
) -> Result<Vec<f32>, Failure> {
    let key = hash_texts(&[&[teacher.sha256().to_owned()], texts].concat());
    let path = folder.join(format!("texts-{}.f32", &key[..16]));
    let stored = std::fs::read(&path).unwrap_or_default();
    if !texts.is_empty() && stored.len() == 4 * texts.len() * teacher.width() {
        let values = stored.chunks_exact(4);
        return Ok(values
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect());
    }
    let bars = Bars::new();
    bars.begin("text teacher", texts.len());
    let embeddings = teacher.embed_all(texts, threads, |done| bars.advance(done))?;
    bars.end();
    std::fs::create_dir_all(folder).map_err(|source| Failure::Write {
        path: folder.to_owned(),
        source,
    })?;
    let bytes: Vec<u8> = embeddings.iter().flat_map(|v| v.to_le_bytes()).collect();
    save(&path, &bytes)?;
    Ok(embeddings)
}

fn embed_pictures(teacher: &Teacher, data: &Dataset) -> Result<Vec<f32>, Failure> {
    let bars = Bars::new();
    bars.begin("image teacher", data.len());
    let (p, mut desk) = (teacher.preprocess(), teacher.desk());
    let size = [p.width, p.height];
    let shown = Augmentation::none(size, Resize::Exact);
    let mut embeddings = Vec::new();
    for (done, sample) in data.samples().iter().enumerate() {
        let picture = shown.picture(&decode(&sample.path)?, 0);
        let picture = picture.map_err(|error| Failure::Picture {
            path: sample.path.clone(),
            error,
        })?;
        embeddings.extend(desk.answer(&picture, size)?);
        bars.advance(done + 1);
    }
    bars.end();
    Ok(embeddings)
}
