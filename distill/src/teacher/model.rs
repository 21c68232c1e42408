//! One teacher: a float ONNX model, run by our runtime, or by tract where our import refuses it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ampoule_quantize::import::{self, ImportError, ImportOptions, Imported, Oracle, Problem};
use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::prepare;
use ampoule_quantize::seal::AlignedBytes;
use ampoule_runtime::preprocess::{Channels, Filter, Preprocess, Resize};
use ampoule_runtime::{Artifact, Session};
use sha2::{Digest, Sha256};

use super::TeacherError;
use crate::data::input;

/// How a teacher's file is read.
#[derive(Debug, Clone, Default)]
pub struct TeacherOptions {
    /// Shapes that the file leaves open.
    pub import: ImportOptions,
    /// Height and width of the picture, where the file leaves them open.
    pub size: Option<[usize; 2]>,
    /// The output to use, where there are several.
    pub output: Option<String>,
}

/// A model that answers to pictures. Clones share the weights.
#[derive(Clone)]
pub struct Teacher(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    path: PathBuf,
    sha256: String,
    engine: Engine,
    output: String,
    /// Shape of the output with the batch, as our graph has it: behind convolutions channels last.
    shape: Vec<usize>,
    preprocess: Preprocess,
    /// Whether the input is channel after channel, and not pixel after pixel.
    is_planar: bool,
    /// Whether the output on some input is a distribution already.
    is_distribution: bool,
}

#[derive(Clone)]
enum Engine {
    Runtime(Arc<AlignedBytes>),
    Tract {
        oracle: Arc<Oracle>,
        /// Shape of the input.
        shape: Vec<usize>,
        /// Number of the output.
        output: usize,
        /// Why our import refuses the file.
        reason: String,
    },
}

impl Teacher {
    /// Reads a model. Until [`Teacher::with_preprocess`] it takes pictures resized to its input, RGB,
    /// 0 to 1.
    ///
    /// # Errors
    ///
    /// [`TeacherError`]: unreadable, not one picture in, or not one output.
    pub fn load(path: impl AsRef<Path>, options: &TeacherOptions) -> Result<Self, TeacherError> {
        let path = path.as_ref();
        let loaded = match own(path, options) {
            Ok(loaded) => loaded,
            Err(Refusal::Final(error)) => return Err(error),
            Err(Refusal::Import(reason, error)) => by_tract(path, options, reason, error)?,
        };
        let sha256 = std::fs::read(path).map(|bytes| crate::hex(&Sha256::digest(bytes)));
        let Input {
            height,
            width,
            is_planar,
        } = loaded.input;
        let mut inner = Inner {
            path: path.to_owned(),
            sha256: sha256.map_err(|e| run_error(path, e))?,
            engine: loaded.engine,
            output: loaded.output,
            shape: loaded.shape,
            is_planar,
            preprocess: Preprocess {
                resize: Resize::Exact,
                filter: Filter::Bicubic,
                antialias: true,
                width,
                height,
                channels: Channels::Rgb,
                scale: 1.0 / 255.0,
                mean: [0.0; 3],
                std: [1.0; 3],
            },
            is_distribution: false,
        };
        inner.is_distribution = inner.probe()?;
        Ok(Teacher(Arc::new(inner)))
    }

    /// The teacher with another way from a picture to its input.
    ///
    /// # Errors
    ///
    /// [`TeacherError::Preprocess`] for another size.
    pub fn with_preprocess(&self, preprocess: Preprocess) -> Result<Self, TeacherError> {
        let size = |p: &Preprocess| format!("{}×{}", p.width, p.height);
        let (expected, got) = (size(&self.0.preprocess), size(&preprocess));
        if expected != got || preprocess.channels == Channels::Gray {
            return Err(TeacherError::Preprocess {
                path: self.0.path.clone(),
                expected: format!("{expected} in colour"),
                got,
            });
        }
        let inner = Inner {
            preprocess,
            ..(*self.0).clone()
        };
        Ok(Teacher(Arc::new(inner)))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// SHA-256 of its file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// The output used.
    pub fn output(&self) -> &str {
        &self.0.output
    }

    /// Shape of the output, with a batch of 1. Behind a convolution channels are last.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// From a picture to its input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.0.preprocess
    }

    /// Whether the output is a distribution already, as behind a softmax.
    pub fn is_distribution(&self) -> bool {
        self.0.is_distribution
    }

    /// Why our import refuses the file, when tract runs it.
    pub fn fallback(&self) -> Option<&str> {
        match &self.0.engine {
            Engine::Runtime(_) => None,
            Engine::Tract { reason, .. } => Some(reason),
        }
    }

    /// Something that answers; one per thread.
    pub fn desk(&self) -> Desk {
        self.0.desk()
    }
}

/// A teacher with the memory to answer one picture at a time.
pub struct Desk {
    teacher: Inner,
    banks: Vec<AlignedBytes>,
}

impl Desk {
    /// The output for an augmented picture: interleaved RGB of that width and height.
    ///
    /// # Errors
    ///
    /// [`TeacherError::Run`].
    pub fn answer(&mut self, pixels: &[u8], size: [u16; 2]) -> Result<Vec<f32>, TeacherError> {
        let values = input(pixels, size, &self.teacher.preprocess);
        let values = values.map_err(|e| run_error(&self.teacher.path, e))?;
        match self.teacher.is_planar {
            true => self.run(&planes(&values)),
            false => self.run(&values),
        }
    }

    fn run(&mut self, values: &[f32]) -> Result<Vec<f32>, TeacherError> {
        let path = &self.teacher.path;
        match &self.teacher.engine {
            Engine::Runtime(bytes) => {
                let mut answer = vec![0.0; self.teacher.shape.iter().product()];
                let mut run = || {
                    let artifact = Artifact::verify_structure(bytes)?;
                    let banks = self.banks.iter_mut().map(|b| &mut b[..]);
                    let mut session = Session::new(artifact, banks)?;
                    session.write_f32(0, values)?;
                    session.run()?;
                    session.read_f32(0, &mut answer)
                };
                run().map_err(|e| run_error(path, e))?;
                Ok(answer)
            }
            Engine::Tract {
                oracle,
                shape,
                output,
                ..
            } => {
                let outputs = oracle.run(&[(shape, values)])?;
                let answer = outputs.into_iter().nth(*output);
                Ok(answer.map(|(_, values)| values).unwrap_or_default())
            }
        }
    }
}

/// Pixel after pixel to channel after channel.
fn planes(pixels: &[f32]) -> Vec<f32> {
    let channel = |c| pixels.iter().skip(c).step_by(3).copied();
    (0..3).flat_map(channel).collect()
}

impl Inner {
    fn desk(&self) -> Desk {
        let banks = match &self.engine {
            Engine::Runtime(bytes) => Artifact::verify_structure(bytes).map_or(Vec::new(), |a| {
                let bank = |b| AlignedBytes::zeroed(a.bank_bytes(b));
                (0..a.banks()).map(bank).collect()
            }),
            Engine::Tract { .. } => Vec::new(),
        };
        Desk {
            teacher: self.clone(),
            banks,
        }
    }

    /// Answers to a made-up input, and tells whether the answer is a distribution. Logits are not all
    /// within 0 to 1 with sum 1, but by a chance too small to matter.
    fn probe(&self) -> Result<bool, TeacherError> {
        let count = self.preprocess.output_len();
        let values: Vec<f32> = (0..count).map(|i| (i * 37 % 256) as f32 / 255.0).collect();
        let answer = self.desk().run(&values)?;
        let sum: f32 = answer.iter().sum();
        let inside = answer.iter().all(|p| (0.0..=1.0).contains(p));
        Ok(inside && (sum - 1.0).abs() < 1e-3)
    }
}

/// A model that takes a picture.
struct Loaded {
    engine: Engine,
    input: Input,
    /// Name of the output.
    output: String,
    /// Shape of the output.
    shape: Vec<usize>,
}

/// What a picture must be like.
struct Input {
    height: u16,
    width: u16,
    /// Channel after channel.
    is_planar: bool,
}

/// Why our own import does not give a teacher.
enum Refusal {
    /// Tract may still run the file.
    Import(String, Option<ImportError>),
    /// Nobody can.
    Final(TeacherError),
}

impl From<TeacherError> for Refusal {
    fn from(error: TeacherError) -> Self {
        Refusal::Final(error)
    }
}

fn own(path: &Path, options: &TeacherOptions) -> Result<Loaded, Refusal> {
    let other = |e: &dyn std::fmt::Display| Refusal::Import(e.to_string(), None);
    let imported = import(path, options);
    let mut graph = imported
        .map_err(|e| Refusal::Import(e.to_string(), Some(e)))?
        .graph;
    let names: Vec<String> = graph.outputs.iter().map(|o| o.name.clone()).collect();
    let chosen = choose(path, &names, options.output.as_deref())?;
    graph.outputs.swap(0, chosen);
    graph.outputs.truncate(1);
    prepare(&mut graph, false).map_err(|e| other(&e))?;
    let inputs = graph.inputs.iter().map(|p| graph.shape(p.value).to_vec());
    let input = picture(path, &inputs.collect::<Vec<_>>())?;
    let shape = match graph.outputs.first() {
        Some(port) => graph.shape(port.value).to_vec(),
        None => Vec::new(),
    };
    let model = Model::float(&graph).map_err(|e| other(&e))?;
    let bytes = Arc::new(AlignedBytes::from(model.bytes()));
    Ok(Loaded {
        engine: Engine::Runtime(bytes),
        input,
        output: names[chosen].clone(),
        shape,
    })
}

/// Imports the file, with the size given for a picture that leaves it open.
fn import(path: &Path, options: &TeacherOptions) -> Result<Imported, ImportError> {
    let error = match import::onnx_with(path, &options.import) {
        Ok(imported) => return Ok(imported),
        Err(error) => error,
    };
    match (&*error.problem, options.size) {
        (Problem::DynamicShape { input, .. }, Some(size)) => {
            import::onnx_with(path, &sized(&options.import, input, size))
        }
        _ => Err(error),
    }
}

fn sized(options: &ImportOptions, input: &str, [height, width]: [usize; 2]) -> ImportOptions {
    let mut options = options.clone();
    let shape = vec![1, 3, height, width];
    options.input_shapes.insert(input.to_owned(), shape);
    options
}

/// The number of the output to use.
fn choose(path: &Path, names: &[String], wanted: Option<&str>) -> Result<usize, TeacherError> {
    let wrong = |expected: String| TeacherError::Output {
        path: path.to_owned(),
        expected,
        got: names.to_vec(),
    };
    match wanted {
        Some(name) => names
            .iter()
            .position(|n| n == name)
            .ok_or_else(|| wrong(format!("an output `{name}`"))),
        None if names.len() == 1 => Ok(0),
        None => Err(wrong(
            "one output, or the name of the one to use".to_owned(),
        )),
    }
}

/// The only input, which must be a picture in colour.
fn picture(path: &Path, shapes: &[Vec<usize>]) -> Result<Input, TeacherError> {
    let input = |height: usize, width: usize, is_planar| {
        Some(Input {
            height: height.try_into().ok()?,
            width: width.try_into().ok()?,
            is_planar,
        })
    };
    let found = match shapes {
        [shape] => match shape[..] {
            [1, height, width, 3] => input(height, width, false),
            [1, 3, height, width] => input(height, width, true),
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| TeacherError::Input {
        path: path.to_owned(),
        got: format!("{shapes:?}"),
    })
}

/// The file run by tract; `refused` is what our import says of it.
fn by_tract(
    path: &Path,
    options: &TeacherOptions,
    reason: String,
    refused: Option<ImportError>,
) -> Result<Loaded, TeacherError> {
    let mut import = options.import.clone();
    if let (Some(size), Some(Problem::DynamicShape { input, .. })) =
        (options.size, refused.as_ref().map(|e| &*e.problem))
    {
        import = sized(&import, input, size);
    }
    // When tract can't read it either, our own message says more.
    let oracle = Oracle::load_with(path, &import).map_err(|e| refused.unwrap_or(e))?;
    let output = choose(path, oracle.outputs(), options.output.as_deref())?;
    let shapes = oracle.input_shapes();
    let input = picture(path, &shapes)?;
    let shape = shapes.into_iter().next().unwrap_or_default();
    let zeros = vec![0.0; shape.iter().product()];
    let answers = oracle.run(&[(&shape, &zeros)])?;
    let answer = answers.into_iter().nth(output);
    Ok(Loaded {
        input,
        output: oracle.outputs()[output].clone(),
        shape: answer.map(|(shape, _)| shape).unwrap_or_default(),
        engine: Engine::Tract {
            oracle: Arc::new(oracle),
            shape,
            output,
            reason,
        },
    })
}

fn run_error(path: &Path, error: impl std::fmt::Display) -> TeacherError {
    TeacherError::Run {
        path: path.to_owned(),
        what: error.to_string(),
    }
}
