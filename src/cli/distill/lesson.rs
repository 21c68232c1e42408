//! What is learnt from what: pictures, labels and who answers.

use std::path::PathBuf;
use std::sync::Arc;

use ampoule::distill::augment::Augmentation;
use ampoule::distill::data::{Dataset, Pictures};
use ampoule::distill::store::{Header, Kind, MadeFrom, Store};
use ampoule::distill::teacher::{Panel, Question, Teacher, TeacherOptions};
use ampoule::distill::train::TrainError;
use ampoule::distill::train::classify::{
    Classification, ClassificationOptions, Source, Split, SplitOptions, Weighting,
};
use ampoule_runtime::preprocess::{Preprocess, Resize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Distill;
use super::student::Student;
use crate::cli::error::Failure;
use crate::cli::output::{hex, note, plural};
use crate::cli::preprocessing::ImageArgs;

/// Everything that is known before there is a student.
pub struct Lesson {
    data: Arc<Dataset>,
    evaluation: Option<Arc<Dataset>>,
    source: Source,
    /// Settings of the store, or of the pictures of teachers; without, those of the student.
    augmentation: Option<Augmentation>,
    classes: usize,
    known: Known,
}

/// What is told and measured later.
pub struct Known {
    /// Who is learnt from, in words.
    pub source: String,
    pub store_epochs: Option<usize>,
    /// The teachers that can be measured.
    pub teachers: Option<Panel>,
    /// Size of the pictures that the teachers see.
    pub teacher_size: [u16; 2],
    classes: usize,
    names: std::collections::BTreeMap<u32, String>,
}

impl Known {
    /// Names of all classes; numbers where there are none.
    pub fn class_names(&self) -> Vec<String> {
        let name = |class: u32| self.names.get(&class).cloned();
        (0..self.classes as u32)
            .map(|class| name(class).unwrap_or_else(|| class.to_string()))
            .collect()
    }
}

impl Lesson {
    /// Opens the data, and the store or the teachers.
    pub fn prepare(args: &Distill) -> Result<Self, Failure> {
        if args.store.is_some() && args.augment.is_given() {
            return Err(Failure::Usage(
                "a store has its own augmentation; leave those arguments out".to_owned(),
            ));
        }
        if args.teacher_preset.is_some() && (args.store.is_some() || args.labels_only) {
            return Err(Failure::Usage(
                "--teacher-preset is for --teacher without a store".to_owned(),
            ));
        }
        let evaluation = args.eval.as_ref().map(open).transpose()?;
        match &args.store {
            Some(folder) => Self::from_store(args, folder, evaluation),
            None if args.labels_only => Self::from_labels(args, evaluation),
            None if args.teachers.is_empty() => Err(Failure::Usage(
                "what is learnt from? give --store, --teacher with --data, or --labels-only with --data"
                    .to_owned(),
            )),
            None => Self::from_teachers(args, evaluation),
        }
    }

    fn from_store(
        args: &Distill,
        folder: &PathBuf,
        evaluation: Option<Arc<Dataset>>,
    ) -> Result<Self, Failure> {
        let store = Store::open(folder).map_err(TrainError::from)?;
        let stored = store.header().clone();
        let data = open(args.data.as_ref().unwrap_or(&stored.made_from.data))?;
        let expected = Header {
            samples: data.len(),
            listing: data.digest(),
            ..stored.clone()
        };
        let store = Store::open_as(folder, &expected).map_err(TrainError::from)?;
        let Kind::SparseLogits { k, classes } = stored.kind else {
            return Err(Failure::Unfit {
                path: folder.clone(),
                what: "holds no probabilities of classes".to_owned(),
                hint: "a store made with --kind logits, which is the default",
            });
        };
        let names: Vec<&str> = stored.teachers.iter().map(|t| &*t.name).collect();
        let known = Known {
            source: format!(
                "the store of {} ({} of {classes} probabilities, {})",
                names.join(" + "),
                k,
                plural(stored.epochs, "epoch")
            ),
            store_epochs: Some(stored.epochs),
            teachers: teachers_of(args, &stored)?,
            teacher_size: stored.augmentation.size,
            classes,
            names: data.class_names().clone(),
        };
        Ok(Lesson {
            data,
            evaluation,
            source: Source::Store(Box::new(store)),
            augmentation: Some(stored.augmentation),
            classes,
            known,
        })
    }

    fn from_teachers(args: &Distill, evaluation: Option<Arc<Dataset>>) -> Result<Self, Failure> {
        let data = open(data_of(args)?)?;
        let image = ImageArgs::of_preset(args.teacher_preset);
        let load = |path: &PathBuf| {
            let teacher = Teacher::load(path, &TeacherOptions::default())?;
            let p = *teacher.preprocess();
            let shape = [1, p.height.into(), p.width.into(), 3];
            let preprocess = Preprocess {
                resize: Resize::Exact,
                ..image.preprocess(&shape)?
            };
            Ok(teacher.with_preprocess(preprocess)?)
        };
        let teachers = args.teachers.iter().map(load);
        let teachers = teachers.collect::<Result<Vec<_>, Failure>>()?;
        let first = *teachers[0].preprocess();
        if args.teacher_preset.is_none() {
            note("assuming: teachers take pictures from 0 to 1; give --teacher-preset to choose");
        }
        let panel = Panel::new(teachers, Question::SparseLogits(None))?;
        let Kind::SparseLogits { classes, .. } = *panel.kind() else {
            return Err(Failure::Usage("the teacher gives no classes".to_owned()));
        };
        let augmentation = args.augment.settings(&first)?;
        let names: Vec<String> = panel.ids().into_iter().map(|t| t.name).collect();
        let known = Known {
            source: format!("{}, answering meanwhile", names.join(" + ")),
            store_epochs: None,
            teachers: Some(panel.clone()),
            teacher_size: augmentation.size,
            classes,
            names: data.class_names().clone(),
        };
        Ok(Lesson {
            data,
            evaluation,
            source: Source::Teachers(panel),
            augmentation: Some(augmentation),
            classes,
            known,
        })
    }

    fn from_labels(args: &Distill, evaluation: Option<Arc<Dataset>>) -> Result<Self, Failure> {
        let path = data_of(args)?;
        let data = open(path)?;
        let classes = data.samples().iter().filter_map(|s| s.class).max();
        let Some(last) = classes else {
            return Err(Failure::Unfit {
                path: path.clone(),
                what: "has no labels".to_owned(),
                hint: "a folder per class, or a list with a column `label`",
            });
        };
        let classes = last as usize + 1;
        let known = Known {
            source: "the labels alone".to_owned(),
            store_epochs: None,
            teachers: None,
            teacher_size: [0; 2],
            classes,
            names: data.class_names().clone(),
        };
        Ok(Lesson {
            data,
            evaluation,
            source: Source::Labels,
            augmentation: None,
            classes,
            known,
        })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// All that decides what is learnt: a checkpoint of a run with something else is refused.
    pub fn settings(&self, args: &Distill, student: &Student) -> Value {
        let source = match &self.source {
            Source::Labels => json!("labels"),
            Source::Store(store) => json!(Header {
                made_from: MadeFrom::default(),
                ..store.header().clone()
            }),
            Source::Teachers(panel) => json!(panel.ids()),
        };
        let mut labels = Sha256::new();
        for sample in self.data.samples() {
            labels.update(sample.class.map_or(-1, i64::from).to_le_bytes());
        }
        let recipe = &args.recipe;
        json!({
            "student": student.settings(),
            "source": source,
            "augmentation": self.augmentation(args, student).ok(),
            "data": {
                "listing": self.data.digest(),
                "labels": hex(&labels.finalize()),
                "hold_out": self.hold_out(args),
                "label_fraction": recipe.label_fraction,
            },
            "batch": recipe.batch,
            "labels_weight": recipe.labels_weight,
            "temperature": recipe.temperature,
            "smoothing": recipe.smoothing,
            "seed": recipe.seed,
            "scalekd": args.maps.parts(),
            "elastic": args.elastic.elastic,
        })
    }

    /// The task for a student.
    pub fn into_task(
        self,
        args: &Distill,
        student: &Student,
    ) -> Result<(Classification, Known), Failure> {
        let recipe = &args.recipe;
        let augmentation = self.augmentation(args, student)?;
        let split = Split::new(
            &self.data,
            SplitOptions {
                held_out: self.hold_out(args),
                labels: recipe.label_fraction,
                seed: recipe.seed,
            },
        );
        let options = ClassificationOptions {
            batch: recipe.batch,
            weighting: Weighting {
                labels: recipe.labels_weight,
                temperature: recipe.temperature,
                smoothing: recipe.smoothing,
            },
            seed: recipe.seed,
            preprocess: student.preprocess,
            threads: args.threads(),
            max_unreadable: recipe.max_unreadable.unwrap_or(self.data.len() / 100),
        };
        let pictures = Pictures {
            data: self.data,
            augmentation,
        };
        let (source, evaluation) = (self.source, self.evaluation);
        let task = Classification::new(pictures, split, source, evaluation, self.classes, options)?;
        Ok((task, self.known))
    }

    fn augmentation(&self, args: &Distill, student: &Student) -> Result<Augmentation, Failure> {
        match &self.augmentation {
            Some(augmentation) => Ok(augmentation.clone()),
            None => args.augment.settings(&student.preprocess),
        }
    }

    fn hold_out(&self, args: &Distill) -> f64 {
        let labelled = self.data.samples().iter().any(|s| s.class.is_some());
        let otherwise = if args.eval.is_some() || !labelled {
            0.0
        } else {
            0.1
        };
        args.hold_out.unwrap_or(otherwise)
    }
}

fn open(path: &PathBuf) -> Result<Arc<Dataset>, Failure> {
    Ok(Arc::new(Dataset::open(path).map_err(TrainError::from)?))
}

fn data_of(args: &Distill) -> Result<&PathBuf, Failure> {
    let missing = || Failure::Usage("--data is needed without a store".to_owned());
    args.data.as_ref().ok_or_else(missing)
}

/// The store's teachers, where they are still there, to be measured.
fn teachers_of(args: &Distill, stored: &Header) -> Result<Option<Panel>, Failure> {
    let given = !args.teachers.is_empty();
    let paths = match given {
        true => &args.teachers,
        false => &stored.made_from.teachers,
    };
    if paths.len() != stored.teachers.len() {
        return Err(Failure::Usage(format!(
            "the store has {} teachers; give as many --teacher, or none",
            stored.teachers.len()
        )));
    }
    let mut teachers = Vec::new();
    for (path, id) in paths.iter().zip(&stored.teachers) {
        if !given && !path.is_file() {
            note(&format!(
                "note: the teacher is not measured: `{}` is not there; give --teacher",
                path.display()
            ));
            return Ok(None);
        }
        let options = TeacherOptions {
            size: Some([id.preprocess.height, id.preprocess.width].map(usize::from)),
            output: Some(id.output.clone()),
            ..TeacherOptions::default()
        };
        let teacher = Teacher::load(path, &options)?;
        if teacher.sha256() != id.sha256 {
            let what = "is not the teacher of the store: its SHA-256 differs".to_owned();
            let hint = "give the file that the store was made with, or move the other one away";
            return Err(Failure::Unfit {
                path: path.clone(),
                what,
                hint,
            });
        }
        teachers.push(teacher.with_preprocess(id.preprocess)?);
    }
    Ok(Some(Panel::new(teachers, Question::SparseLogits(None))?))
}
