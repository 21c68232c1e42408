//! `ampoule distill --pairs`: two towers that match pictures and texts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ampoule::distill::augment::{Augmentation, Crop, RandAugment};
use ampoule::distill::data::{Dataset, Pictures};
use ampoule::distill::export::{self, Settings};
use ampoule::distill::import;
use ampoule::distill::teacher::{Teacher, TeacherError, TeacherOptions, TextTeacher};
use ampoule::distill::text::WordPiece;
use ampoule::distill::train::pairs::{
    Captions, ImageTeaching, Pairs, PairsOptions, PairsWeights, Retrieval, Space, TextTeaching,
    Texts,
};
use ampoule::distill::train::{
    Effort, End, Record, Run, TrainError, TrainOptions, Trainer, read_metrics,
};
use ampoule::distill::zoo::{self, HEAD_NAME, TextConfig, Towers, Weights};
use ampoule_quantize::data::decode;
use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::{Progress, QuantizeOptions, quantize, seal_float};
use ampoule_runtime::Isa;
use ampoule_runtime::preprocess::{Preprocess, Resize};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Distill;
use super::live::{Live, View};
use super::measure::{Calibration, cost};
use crate::cli::args::ImportArgs;
use crate::cli::error::Failure;
use crate::cli::files::save;
use crate::cli::models::SourceModel;
use crate::cli::output::{self, Table, bytes, count, facts, hex, micros, note, plural, print};
use crate::cli::preprocessing::ImageArgs;
use crate::cli::progress::Bars;
use crate::cli::samples::pixels;
use crate::report;

/// Calibration samples of each tower, at most.
const CALIBRATION: usize = 256;
/// Texts in a batch of first temperature (CLIP).
const FIRST_TEMPERATURE: f32 = 0.07;
/// Largest norm of the gradients.
const CLIP: f32 = 1.0;

/// Pictures and texts that belong together.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Pictures and texts")]
pub struct PairsArgs {
    /// Pictures with captions, a JSON object a line: `path`, and `caption` or `captions`, of which the
    /// first is what the picture is measured with. --output is a folder then
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["store", "teachers", "labels_only", "data"])]
    pub pairs: Option<PathBuf>,
    /// Folder that the paths are relative to [default: that of the list]
    #[arg(long, value_name = "FOLDER", requires = "pairs")]
    images: Option<PathBuf>,
    /// An ONNX model whose embeddings of texts both towers approach
    #[arg(long, value_name = "FILE.onnx", requires = "pairs")]
    text_teacher: Option<PathBuf>,
    /// An ONNX model whose embeddings of pictures lie in the text teacher's space
    #[arg(long, value_name = "FILE.onnx", requires = "text_teacher")]
    image_teacher: Option<PathBuf>,
    /// The text tower's vocabulary: BERT's vocab.txt, one token a line, [PAD] first
    #[arg(long, value_name = "FILE", requires = "pairs")]
    vocabulary: Option<PathBuf>,
    /// The text teacher's [default: the same]
    #[arg(long, value_name = "FILE", requires = "text_teacher")]
    teacher_vocabulary: Option<PathBuf>,
    /// First weights of the text tower: safetensors or ONNX [default: random]
    #[arg(long, value_name = "FILE", requires = "pairs")]
    text_init: Option<PathBuf>,
    /// Factor of the text tower's learning rate, but for its last layer [default: 0.1 with --text-init, or 1]
    #[arg(long, value_name = "FACTOR", requires = "pairs")]
    text_rate: Option<f32>,
    /// Factor of the learning rate of a picture tower from a file, but for its head [default: 0.3]
    #[arg(long, value_name = "FACTOR", requires = "pairs")]
    image_rate: Option<f32>,
    /// Texts without pictures, one a line, that the text tower learns from its teacher before, with the
    /// captions
    #[arg(long, value_name = "FILE.txt", requires = "text_teacher")]
    texts: Option<PathBuf>,
    /// Epochs over captions and --texts in which the text tower alone learns from its teacher
    /// [default: 4 with --texts, or 0]
    #[arg(long, value_name = "N", requires = "text_teacher")]
    text_epochs: Option<u16>,
    /// How losses are weighed: between the towers, of the picture tower with the text teacher, of the text
    /// tower with its teacher, and to both teachers' similarities
    #[arg(long, value_name = "A,B,C,D", requires = "pairs", value_parser = weights)]
    loss_weights: Option<PairsWeights>,
}

/// What a run ended in.
#[derive(Debug, Serialize)]
pub struct Outcome {
    #[serde(serialize_with = "output::path")]
    pub folder: PathBuf,
    pub network: String,
    pub learnt_from: String,
    pub pairs: usize,
    pub texts: usize,
    pub epochs: usize,
    pub steps: u64,
    pub seconds: f64,
    pub images_per_second: f64,
    /// Teachers, student, int8.
    pub rows: Vec<Row>,
    pub unreadable: Vec<String>,
    #[serde(serialize_with = "output::path")]
    pub report: PathBuf,
    #[serde(skip)]
    pub metrics: Vec<Record>,
}

/// Figures of a pair of models.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub retrieval: Option<Retrieval>,
    pub image: Tower,
    pub text: Tower,
}

/// Figures of a tower.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tower {
    pub parameters: Option<u64>,
    pub macs: Option<u64>,
    /// Of its file.
    pub bytes: usize,
    /// Per picture or text, one thread, preprocessing not included.
    pub median_us: Option<f64>,
    pub arena_bytes: Option<usize>,
}

/// Runs the command.
pub fn execute(args: &Distill, list: &Path) -> Result<(), Failure> {
    let view = if args.json { View::Json } else { View::Text };
    let mut live = Live::new(view)?;
    let outcome = run(args, list, &mut live)?;
    drop(live);
    match args.json {
        true => output::print_json_line(&json!({"kind": "result", "result": outcome})),
        false => print(&render(&outcome)),
    }
}

fn run(args: &Distill, list: &Path, live: &mut Live) -> Result<Outcome, Failure> {
    let vocabulary = args.pairs.vocabulary.as_ref().ok_or_else(|| {
        Failure::Usage("--pairs needs --vocabulary, a vocab.txt as BERT has it".to_owned())
    })?;
    std::fs::create_dir_all(&args.output).map_err(|source| Failure::Write {
        path: args.output.clone(),
        source,
    })?;
    let tokenizer = WordPiece::read(vocabulary)?;
    let design = Design::open(args, &tokenizer)?;
    let (towers, text) = (&design.towers, design.text);
    let mut first = design.first.clone();
    let preprocess = preprocess(args, design.size)?;
    let (data, measured) = data(args, list)?;
    let threads = args.threads();
    let augmentation = augmentation(args, &preprocess)?;
    let options = PairsOptions {
        batch: args.recipe.batch,
        tokens: text.tokens,
        weights: args.pairs.loss_weights.unwrap_or_default(),
        seed: args.recipe.seed,
        preprocess,
        threads,
        max_unreadable: args.recipe.max_unreadable.unwrap_or(data.len() / 100),
    };
    let pictures = Pictures {
        data: data.clone(),
        augmentation: augmentation.clone(),
    };
    let mut task = Pairs::new(pictures, measured.clone(), &tokenizer, options.clone())?;
    let teachers = Teachers::open(args, &tokenizer)?;
    let folder = args.run.clone().unwrap_or_else(|| args.output.join("run"));
    let (with_teachers, space) = teachers.teach(task, &data, text.embedding, threads, &folder)?;
    task = with_teachers;
    let training = training(args, threads, &design);
    if let (Some(teacher), Some(space)) = (&teachers.text, &space) {
        let lesson = TextLesson {
            args,
            teacher,
            space,
            design: &design,
            tokenizer: &tokenizer,
        };
        lesson.run(&task, &folder, &mut first, live)?;
    }
    let settings = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "training": training,
        "towers": design.config,
        "first_weights": hash(&first),
        "pairs": {"list": data.digest(), "texts": hash_texts(&task.captions().texts), "measured": measured.digest()},
        "teachers": teachers.ids(),
        "weights": options.weights,
        "augmentation": augmentation,
        "preprocess": preprocess,
        "batch": args.recipe.batch,
        "seed": args.recipe.seed,
    });
    let mut run = Run::open(&folder, settings)?;
    let epochs = training.epochs;
    let mut trainer = Trainer::new(towers.graph(), first, training)?;
    live.introduce(&facts(&[
        (
            "student",
            format!(
                "{}, {} + {} parameters",
                args.student,
                count(towers.image.parameter_count()),
                count(towers.text.parameter_count())
            ),
        ),
        ("learns from", teachers.text()),
        (
            "pairs",
            format!(
                "{} with {}; {} measured",
                plural(data.len(), "picture"),
                plural(task.captions().texts.len(), "text"),
                measured.len()
            ),
        ),
        ("run", folder.display().to_string()),
    ]));
    let end = trainer.train(&mut task, Some(&mut run), live)?;
    live.finish();
    for reason in task.unreadable() {
        note(&format!("warning: left out: {reason}"));
    }
    if let End::Stopped(steps) = end {
        return Err(Failure::Stopped { steps, run: folder });
    }
    let found = task.retrieval(&mut trainer.evaluator())?;
    let metrics = read_metrics(&folder).map_err(|source| Failure::Read {
        path: folder.join("metrics.jsonl"),
        source,
    })?;
    let student = Student {
        towers,
        weights: trainer.weights(),
        folder: &args.output,
        tokenizer: &tokenizer,
        tokens: text.tokens,
        preprocess,
        data: &data,
        measured: &measured,
    };
    let mut rows: Vec<Row> = teachers
        .row(&measured, threads, &folder)?
        .into_iter()
        .collect();
    rows.extend(student.rows(found)?);
    let copied = std::fs::copy(vocabulary, args.output.join("vocab.txt"));
    copied.map_err(|source| Failure::Write {
        path: args.output.join("vocab.txt"),
        source,
    })?;
    let effort = Effort::of(&metrics);
    let outcome = Outcome {
        folder: args.output.clone(),
        network: args.student.clone(),
        learnt_from: teachers.text(),
        pairs: data.len(),
        texts: task.captions().texts.len(),
        epochs,
        steps: effort.steps,
        seconds: effort.seconds,
        images_per_second: effort.speed(),
        rows,
        unreadable: task.unreadable().to_vec(),
        report: args.output.join("report.html"),
        metrics,
    };
    save(&outcome.report, report::pairs::page(&outcome).as_bytes())?;
    Ok(outcome)
}

/// The pairs that are learnt from, and those that are measured: a list of their own, or a share of the
/// captions with all their pictures.
fn data(args: &Distill, list: &Path) -> Result<(Arc<Dataset>, Arc<Dataset>), Failure> {
    let open = |list: &Path| {
        let data = match &args.pairs.images {
            Some(folder) => Dataset::list_in(list, folder),
            None => Dataset::open(list),
        };
        data.map_err(TrainError::from)
    };
    let data = open(list)?;
    if let Some(path) = &args.eval {
        return Ok((Arc::new(data), Arc::new(open(path)?)));
    }
    let groups = Captions::of(&data)?.group;
    let share = args.hold_out.unwrap_or(0.1);
    let is_held_out = |group: usize| {
        let hash = Sha256::digest(format!("{} {group}", args.recipe.seed));
        f64::from(u16::from_le_bytes([hash[0], hash[1]])) < share * 65536.0
    };
    let (train, test) = (
        data.subset(|i| !is_held_out(groups[i])),
        data.subset(|i| is_held_out(groups[i])),
    );
    if train.len() == 0 || test.len() == 0 {
        return Err(Failure::Usage(format!(
            "holding out {share} of {} pictures leaves {} to learn from and {} to measure; give --eval or another --hold-out",
            data.len(),
            train.len(),
            test.len()
        )));
    }
    Ok((Arc::new(train), Arc::new(test)))
}

/// The towers, and where they start.
struct Design {
    towers: Towers,
    text: TextConfig,
    /// Side of the pictures.
    size: usize,
    /// All that decides the towers' layers.
    config: serde_json::Value,
    /// With the temperature.
    first: Vec<Vec<f32>>,
    /// Whether the picture tower is another network's.
    is_trunk: bool,
}

impl Design {
    /// `clip-mini`, or its text tower beside a picture tower from a file.
    fn open(args: &Distill, tokenizer: &WordPiece) -> Result<Self, Failure> {
        let mut config = zoo::clip_mini(tokenizer.len());
        let file = Path::new(&args.student);
        let is_trunk = file
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
        if !is_trunk && args.student != "clip-mini" {
            return Err(Failure::Usage(format!(
                "there is no pair of towers `{}`; there is clip-mini, and FILE.onnx for another picture tower",
                args.student
            )));
        }
        let read = |network: &zoo::Network, path: &Option<PathBuf>, seed| match path {
            Some(path) => Weights::read(network, path),
            None => Ok(Weights::initial(network, seed)),
        };
        let seed = args.recipe.seed;
        let (towers, size, mut first) = if is_trunk {
            let (towers, size, first) = on_trunk(args, file, &config.text)?;
            (towers, size, first)
        } else {
            if let Some(rate) = args.recipe.drop_path {
                config.image = config.image.with_drop_path(rate as f32);
            }
            let towers = config.build()?;
            let first = read(&towers.image, &args.init, seed)?.into_values();
            (towers, config.image.size(), first)
        };
        first.extend(read(&towers.text, &args.pairs.text_init, seed + 1)?.into_values());
        first.push(vec![(1.0 / FIRST_TEMPERATURE).ln()]);
        Ok(Design {
            config: match is_trunk {
                true => json!({"image": "a file", "text": config.text}),
                false => json!(config),
            },
            text: config.text,
            towers,
            size,
            first,
            is_trunk,
        })
    }
}

/// Towers with a picture tower from a file, the side of its pictures, and its first weights.
fn on_trunk(
    args: &Distill,
    file: &Path,
    text: &TextConfig,
) -> Result<(Towers, usize, Vec<Vec<f32>>), Failure> {
    if args.init.is_some() || args.recipe.drop_path.is_some() {
        return Err(Failure::Usage(
            "--init and --drop-path are for networks of the zoo; an ONNX file has its weights"
                .to_owned(),
        ));
    }
    let student = import::onnx(file)?;
    for text in &student.notes {
        note(&format!("note: {text}"));
    }
    let graph = student.network.graph();
    let inputs = graph.inputs().iter().map(|&v| graph.map(v));
    let inputs: Vec<_> = inputs.map(|m| [m.height, m.width, m.channels]).collect();
    let size = match inputs[..] {
        [[height, width, 3]] if height == width => height,
        _ => {
            return Err(Failure::Unfit {
                path: file.to_owned(),
                what: format!(
                    "takes {inputs:?} (height, width, channels); expected one square picture in colour"
                ),
                hint: "a network that takes pictures, as a picture tower",
            });
        }
    };
    let towers = Towers::on_trunk(student.network, text)?;
    let mut first = Weights::initial(&towers.image, args.recipe.seed).into_values();
    for (first, known) in first.iter_mut().zip(student.weights.into_values()) {
        *first = known;
    }
    Ok((towers, size, first))
}

/// The text tower's lesson before any picture.
struct TextLesson<'a> {
    args: &'a Distill,
    teacher: &'a TextTeacher,
    space: &'a Space,
    design: &'a Design,
    tokenizer: &'a WordPiece,
}

impl TextLesson<'_> {
    /// Trains the text tower's part of `first`.
    fn run(
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
        let count = self.design.towers.text.parameters().len();
        let own = &mut first[start..start + count];
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
            ("text tower", format!("{} parameters", count_of(self))),
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

fn count_of(lesson: &TextLesson<'_>) -> String {
    count(lesson.design.towers.text.parameter_count())
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

/// `1,1,4,1`.
fn weights(text: &str) -> Result<PairsWeights, String> {
    let parsed: Option<Vec<f64>> = text.split(',').map(|w| w.trim().parse().ok()).collect();
    match parsed.as_deref() {
        Some(&[contrast, picture, text, relational])
            if [contrast, picture, text, relational]
                .iter()
                .all(|w| (0.0..=1e3).contains(w)) =>
        {
            Ok(PairsWeights {
                contrast,
                picture,
                text,
                relational,
            })
        }
        _ => Err("expected four numbers from 0, for example 1,1,4,1".to_owned()),
    }
}

/// Stretched to the input, from −1 to 1, unless the user says otherwise.
fn preprocess(args: &Distill, size: usize) -> Result<Preprocess, Failure> {
    let given = args.image.preprocess(&[1, size, size, 3])?;
    Ok(match args.image.is_assumed() {
        false => given,
        true => Preprocess {
            resize: Resize::Exact,
            mean: [0.5; 3],
            std: [0.5; 3],
            ..given
        },
    })
}

/// Captions tell left from right and speak of colours: large parts, never flipped, and RandAugment, unless
/// the user says otherwise.
fn augmentation(args: &Distill, preprocess: &Preprocess) -> Result<Augmentation, Failure> {
    if args.augment.is_given() {
        return args.augment.settings(preprocess);
    }
    Ok(Augmentation {
        crop: Crop::Random {
            scale: [0.6, 1.0],
            ratio: [0.8, 1.25],
        },
        rand_augment: Some(RandAugment {
            magnitude: 7.0,
            ..RandAugment::default()
        }),
        ..Augmentation::none([preprocess.width, preprocess.height], Resize::Exact)
    })
}

fn training(args: &Distill, threads: usize, design: &Design) -> TrainOptions {
    let knows = args.pairs.text_init.is_some() || args.pairs.texts.is_some();
    let slow = knows.then_some(0.1);
    let factor = args.pairs.text_rate.or(slow).unwrap_or(1.0);
    // A head that has learnt its teacher's space already moves with its tower.
    let head = if args.pairs.texts.is_some() {
        factor
    } else {
        factor.max(0.5)
    };
    let trunk = args
        .pairs
        .image_rate
        .unwrap_or(if design.is_trunk { 0.3 } else { 1.0 });
    let epochs = args.recipe.epochs.map_or(30, |e| e as usize);
    TrainOptions {
        clip: Some(CLIP),
        factors: vec![
            ("text.head".to_owned(), head),
            ("text.".to_owned(), factor),
            (format!("image.{HEAD_NAME}."), 1.0),
            ("image.".to_owned(), trunk),
        ],
        ..args.options(epochs, threads)
    }
}

fn hash(values: &[Vec<f32>]) -> String {
    let mut hash = Sha256::new();
    for value in values.iter().flatten() {
        hash.update(value.to_le_bytes());
    }
    hex(&hash.finalize())
}

fn hash_texts(texts: &[String]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update(b"\n");
    }
    hex(&hash.finalize())
}

/// Who is learnt from.
struct Teachers {
    text: Option<TextTeacher>,
    image: Option<Teacher>,
}

impl Teachers {
    fn open(args: &Distill, tokenizer: &WordPiece) -> Result<Self, Failure> {
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
    fn teach(
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

    fn ids(&self) -> Vec<String> {
        let image = self.image.as_ref().map(|t| t.sha256().to_owned());
        let text = self.text.as_ref().map(|t| t.sha256().to_owned());
        text.into_iter().chain(image).collect()
    }

    fn text(&self) -> String {
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
    fn row(
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
fn embed_texts(
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

/// The trained towers.
struct Student<'a> {
    towers: &'a Towers,
    weights: &'a [Vec<f32>],
    folder: &'a Path,
    tokenizer: &'a WordPiece,
    tokens: usize,
    preprocess: Preprocess,
    data: &'a Dataset,
    measured: &'a Dataset,
}

impl Student<'_> {
    /// Writes ONNX files and artifacts, and measures them in float (recall is known) and int8.
    fn rows(&self, float: Retrieval) -> Result<[Row; 2], Failure> {
        let [image, text] = self.towers.split(self.weights);
        self.write("image", &self.towers.image, "input", image)?;
        self.write("text", &self.towers.text, "input_ids", text)?;
        let captions = Captions::of(self.measured)?;
        let names = captions.names.iter().map(|&t| &captions.texts[t]);
        let ids: Vec<Vec<f32>> = names.map(|text| self.ids(text)).collect();
        let learnt = self.data.samples();
        let step = learnt.len().div_ceil(CALIBRATION).max(1);
        let texts = learnt.iter().step_by(step).enumerate();
        let texts = texts.map(|(i, s)| self.ids(&s.captions[i % s.captions.len()]));
        let pictures = learnt.iter().step_by(step).map(|s| s.path.clone());
        let pictures: Vec<PathBuf> = pictures.collect();
        let pictures = Calibration::read(&pictures, &self.preprocess)?;
        let options = QuantizeOptions {
            preprocess: Some(self.preprocess),
            ..QuantizeOptions::default()
        };
        let (image_float, mut image_int8, image_model) = self.seal("image", &pictures, &options)?;
        let plain = QuantizeOptions::default();
        let texts = Calibration(texts.collect());
        let (text_float, mut text_int8, text_model) = self.seal("text", &texts, &plain)?;
        image_int8.parameters = image_float.parameters;
        text_int8.parameters = text_float.parameters;
        let images = self.measured.samples().iter().map(|sample| {
            let image = decode(&sample.path)?;
            self.values(&image).map_err(|error| Failure::Picture {
                path: sample.path.clone(),
                error,
            })
        });
        let images = embed(image_model, images)?;
        let texts = embed(text_model, ids.into_iter().map(Ok))?;
        let width = texts.len() / captions.names.len().max(1);
        let int8 = Retrieval::of(width, &images, &captions.group, &texts);
        let row = |name: &str, retrieval, image, text| Row {
            name: name.to_owned(),
            retrieval: Some(retrieval),
            image,
            text,
        };
        Ok([
            row("student, float", float, image_float, text_float),
            row("student, int8", int8, image_int8, text_int8),
        ])
    }

    fn write(
        &self,
        name: &str,
        network: &zoo::Network,
        input: &str,
        values: &[Vec<f32>],
    ) -> Result<(), Failure> {
        let settings = Settings {
            fold: true,
            inputs: &[input],
            outputs: &["embedding"],
            metadata: &[
                ("architecture", "clip-mini"),
                ("weights", "ampoule distill"),
            ],
            ..Settings::default()
        };
        let file = export::onnx(network.graph(), values, &settings)?;
        save(&self.folder.join(name).with_extension("onnx"), &file)
    }

    /// A tower's figures in float and int8, and the int8 model, which is written.
    fn seal(
        &self,
        name: &str,
        samples: &Calibration,
        options: &QuantizeOptions,
    ) -> Result<(Tower, Tower, Model), Failure> {
        let file = self.folder.join(name).with_extension("onnx");
        let artifact = file.with_extension("amp");
        let source = SourceModel::open(&file, &ImportArgs::default(), None, false)?;
        let int8 = quantize(source.graph.clone(), samples, options, &Bars::new())?;
        save(&artifact, &int8.compiled.bytes)?;
        let float = Model::from_bytes(seal_float(&source.graph, options)?.bytes)?;
        let int8 = Model::from_bytes(int8.compiled.bytes)?;
        let network = match name {
            "image" => &self.towers.image,
            _ => &self.towers.text,
        };
        let tower = |model: &Model, bytes| -> Result<Tower, Failure> {
            let (median_us, arena) = cost(model.clone())?;
            Ok(Tower {
                parameters: Some(network.parameter_count()),
                macs: Some(network.macs()),
                bytes,
                median_us: Some(median_us),
                arena_bytes: Some(arena),
            })
        };
        let bytes = std::fs::metadata(&file).map_or(0, |m| m.len() as usize);
        let size = int8.bytes().len();
        Ok((tower(&float, bytes)?, tower(&int8, size)?, int8))
    }

    fn ids(&self, text: &str) -> Vec<f32> {
        let ids = self.tokenizer.encode(text, self.tokens);
        ids.into_iter().map(|id| id as f32).collect()
    }

    fn values(
        &self,
        image: &ampoule_quantize::data::RgbImage,
    ) -> Result<Vec<f32>, ampoule_runtime::preprocess::PreprocessError> {
        let pixels = pixels(&self.preprocess, image)?;
        let mut values = vec![0.0; pixels.len()];
        self.preprocess.normalize_into(&pixels, &mut values)?;
        Ok(values)
    }
}

/// A model's first outputs, one behind the other, with length 1.
fn embed(
    mut model: Model,
    inputs: impl Iterator<Item = Result<Vec<f32>, Failure>>,
) -> Result<Vec<f32>, Failure> {
    let mut session = model.session(Isa::best())?;
    let mut all = Vec::new();
    for input in inputs {
        session.write_f32(0, &input?)?;
        session.run()?;
        let mut answer = vec![0.0; session.output(0)?.tensor.shape.elements()];
        session.read_f32(0, &mut answer)?;
        unit(&mut answer);
        all.extend(answer);
    }
    Ok(all)
}

fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v /= length);
}

/// Recall of a row in both directions, as cells.
pub fn recalls(row: &Row) -> [String; 2] {
    let text = |r: &ampoule::distill::train::pairs::Recall| {
        let [a, b, c] = [r.at_1, r.at_5, r.at_10].map(|v| format!("{:.1}", 100.0 * v));
        format!("{a} / {b} / {c} %")
    };
    match &row.retrieval {
        Some(r) => [text(&r.text_to_image), text(&r.image_to_text)],
        None => ["–".to_owned(), "–".to_owned()],
    }
}

/// What both towers are, as cells: parameters, multiply-accumulates, bytes, times, arenas.
pub fn figures(row: &Row) -> [String; 5] {
    let both = |of: &dyn Fn(&Tower) -> Option<String>| match (of(&row.image), of(&row.text)) {
        (Some(image), Some(text)) => format!("{image} + {text}"),
        _ => "–".to_owned(),
    };
    [
        both(&|t| t.parameters.map(count)),
        both(&|t| t.macs.map(count)),
        both(&|t| Some(bytes(t.bytes))),
        both(&|t| t.median_us.map(micros)),
        both(&|t| t.arena_bytes.map(bytes)),
    ]
}

fn render(o: &Outcome) -> String {
    let mut table = Table::new(&[
        "",
        ">text → image R@1/5/10",
        ">image → text R@1/5/10",
        ">parameters",
        ">MACs",
        ">bytes",
        ">time",
        ">arena",
    ]);
    for row in &o.rows {
        let ([a, b], [c, d, e, f, g]) = (recalls(row), figures(row));
        table.row([row.name.clone(), a, b, c, d, e, f, g]);
    }
    let rows = [
        ("towers", o.folder.display().to_string()),
        ("report", o.report.display().to_string()),
        (
            "training",
            format!(
                "{}, {} steps, {:.0} s, {:.1} pairs/s",
                plural(o.epochs, "epoch"),
                o.steps,
                o.seconds,
                o.images_per_second
            ),
        ),
    ];
    format!("{}\n{}", table.render(), facts(&rows))
}
