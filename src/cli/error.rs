//! What can go wrong on the command line, what to try, and the exit code.

use std::io;
use std::path::PathBuf;

use ampoule::ClassifyError;
use ampoule::distill::data::DatasetError;
use ampoule::distill::elastic::ElasticError;
use ampoule::distill::export::ExportError;
use ampoule::distill::import::StudentError;
use ampoule::distill::store::StoreError;
use ampoule::distill::taylor::TaylorError;
use ampoule::distill::teacher::{TeachError, TeacherError};
use ampoule::distill::text::VocabularyError;
use ampoule::distill::train::TrainError;
use ampoule::distill::zoo::ZooError;
use ampoule_quantize::compare::CompareError;
use ampoule_quantize::data::DataError;
use ampoule_quantize::graph::GraphError;
use ampoule_quantize::import::{ImportError, Problem};
use ampoule_quantize::merge::MergeError;
use ampoule_quantize::model::ModelError;
use ampoule_quantize::observe::ObserveError;
use ampoule_quantize::pipeline::QuantizeError;
use ampoule_quantize::plan::BankError;
use ampoule_quantize::prune::PruneError;
use ampoule_runtime::Error as Runtime;
use ampoule_runtime::preprocess::PreprocessError;
use thiserror::Error;

use super::args::is_source;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// A file that can't be read.
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// A file that can't be written.
    #[error("cannot write `{path}`: {source}")]
    Write { path: PathBuf, source: io::Error },
    /// Standard output is gone.
    #[error("cannot print: {0}")]
    Print(#[source] io::Error),
    /// An artifact that is refused.
    #[error("`{path}`: {error}")]
    Artifact { path: PathBuf, error: Runtime },
    /// An artifact that does not do what the command needs.
    #[error("`{path}` {what}")]
    Unfit {
        path: PathBuf,
        what: String,
        hint: &'static str,
    },
    /// An array file.
    #[error("`{path}`: {what}")]
    Npy { path: PathBuf, what: String },
    /// A picture that can't be brought to the model's size.
    #[error("`{path}`: {error}")]
    Picture {
        path: PathBuf,
        error: PreprocessError,
    },
    /// A model that can't be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A graph that a pass can't handle.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Pictures that can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Quantisation stopped.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A model can't be made executable or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A picture can't be classified.
    #[error(transparent)]
    Classify(#[from] ClassifyError),
    /// Two models can't be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A graph that can't be pruned as asked.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// A graph that gives no gradients to rank its channels by.
    #[error(transparent)]
    Taylor(#[from] TaylorError),
    /// Weights that can't be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// Samples that a model can't be observed on.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A network of the zoo that can't be built, or weights that are not its own.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// The teacher pass stopped, or a store is refused.
    #[error(transparent)]
    Teach(#[from] TeachError),
    /// Training can't begin, go on or end.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A vocabulary that is none.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A network that can't be written as ONNX.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// An ONNX file that can't be trained.
    #[error(transparent)]
    Student(#[from] StudentError),
    /// Training that the user stopped.
    #[error("stopped after step {steps}; its checkpoint is in `{run}`")]
    Stopped { steps: u64, run: PathBuf },
    /// A store that its teachers no longer agree with.
    #[error(
        "the teachers now answer otherwise: mean |Δ| {difference:.2e}, other classes {:.2} %",
        100.0 * .mismatch
    )]
    Drift { difference: f64, mismatch: f64 },
    /// Steps that are not int8, with `--deny-fallback`.
    #[error("{} of the steps would not run in int8:\n{}", .0.len(), .0.join("\n"))]
    Fallback(Vec<String>),
    /// The imported graph computes something else than the file.
    #[error(
        "the optimised graph differs from the ONNX file after {after}: {sqnr_db:.1} dB where at least {wanted:.0} dB are expected"
    )]
    Parity {
        after: String,
        sqnr_db: f64,
        wanted: f64,
    },
    /// Outputs that differ where they must not.
    #[error("{0}")]
    SelfTest(String),
}

impl From<TeacherError> for Failure {
    fn from(error: TeacherError) -> Self {
        Failure::Train(error.into())
    }
}

impl From<Runtime> for Failure {
    fn from(error: Runtime) -> Self {
        Failure::Model(error.into())
    }
}

impl Failure {
    /// 2 for wrong usage, 130 when the user stopped it, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_)
            | Failure::Prune(
                PruneError::Share { .. }
                | PruneError::Pattern { .. }
                | PruneError::NoSuchLayer { .. }
                | PruneError::NoSuchValue { .. }
                | PruneError::Values { .. },
            )
            | Failure::Merge(MergeError::Shares { .. })
            | Failure::Zoo(ZooError::Size { .. }) => 2,
            Failure::Stopped { .. } => 130,
            _ => 1,
        }
    }

    /// What the user can try, where that is not part of the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Failure::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path")
            }
            Failure::Read { .. } => Some("check that it is a file you may read"),
            Failure::Write { .. } => {
                Some("check that the folder exists, may be written and has room")
            }
            Failure::Artifact {
                path,
                error: Runtime::BadMagic,
            } if is_source(path) => Some("make an artifact of it first: `ampoule quantize`"),
            Failure::Artifact { error, .. } => artifact_hint(*error),
            Failure::Model(ModelError::Runtime(error))
            | Failure::Classify(ClassifyError::Model(ModelError::Runtime(error))) => {
                artifact_hint(*error)
            }
            Failure::Unfit { hint, .. } => Some(hint),
            Failure::Npy { .. } => Some(
                "save it with numpy.save, as float32 (token ids as int64), one sample along the first axis",
            ),
            Failure::Picture {
                error: PreprocessError::CropTooLarge,
                ..
            } => Some("--resize exact, or larger pictures"),
            Failure::Import(error) => import_hint(&error.problem),
            Failure::Data(error) => data_hint(error),
            Failure::Compare(CompareError::NothingInCommon) => {
                Some("give the ONNX file that the artifact was made from")
            }
            Failure::Prune(PruneError::NoSuchLayer { .. }) => {
                Some("`ampoule prune … --structured 0.5` without --keep lists all groups")
            }
            Failure::Prune(PruneError::NoSuchValue { .. }) => {
                Some("names are those of the nodes of the ONNX file")
            }
            Failure::Prune(PruneError::Values { .. }) => {
                Some("--fix NAME=0,1,0 has a number for each element")
            }
            Failure::Prune(PruneError::Share { .. }) => Some("0.5 cuts half"),
            Failure::Prune(PruneError::Nothing { .. }) => {
                Some("check that the model has hidden layers, or leave --keep out")
            }
            Failure::Merge(error) => merge_hint(error),
            Failure::Zoo(error) => zoo_hint(error),
            Failure::Teach(error) => teach_hint(error),
            Failure::Train(error) => train_hint(error),
            Failure::Taylor(TaylorError::Student(_)) => {
                Some("--importance energy, which needs no gradients")
            }
            Failure::Student(StudentError::Import(error)) => import_hint(&error.problem),
            Failure::Stopped { .. } => Some("the same command again: it goes on from there"),
            Failure::Drift { .. } => {
                Some("check that pictures and teachers are the same, or teach a new store")
            }
            Failure::Fallback(_) => Some("leave --deny-fallback out to accept them"),
            Failure::Model(ModelError::Banks(error))
            | Failure::Quantize(QuantizeError::Model(ModelError::Banks(error))) => bank_hint(error),
            Failure::Quantize(QuantizeError::Scheme(_)) => {
                Some("check the weights, the calibration data and the preprocessing")
            }
            Failure::Quantize(QuantizeError::Merge(_)) => {
                Some("leave --merge out; it is for plain vision transformers")
            }
            Failure::Quantize(QuantizeError::MaxDrop { .. }) => Some(
                "a larger --max-drop, more or other calibration pictures, or check the preprocessing",
            ),
            Failure::Quantize(QuantizeError::NotClasses { .. }) => {
                Some("--min-cosine 0.99, which measures outputs of any kind")
            }
            Failure::Quantize(QuantizeError::MinCosine { .. }) => Some(
                "a smaller --min-cosine, or check the calibration data: is an output all zeros?",
            ),
            Failure::Parity { .. } => {
                Some("this is a fault of ampoule: please report it with the model")
            }
            Failure::SelfTest(_) => {
                Some("copy the file again; if it stays, this processor is computing wrongly")
            }
            _ => None,
        }
    }
}

fn artifact_hint(error: Runtime) -> Option<&'static str> {
    match error {
        Runtime::BadMagic => Some("give a file that `ampoule quantize` made"),
        Runtime::Truncated | Runtime::Checksum => {
            Some("copy it again, or quantize the model again")
        }
        Runtime::UnsupportedVersion { .. } => {
            Some("quantize the model again with this version of ampoule")
        }
        Runtime::IsaUnavailable(_) => Some("`ampoule selftest` lists what this processor has"),
        _ => None,
    }
}

fn bank_hint(error: &BankError) -> Option<&'static str> {
    match error {
        BankError::TooSmall { .. } => Some(
            "--arena-budget with the bytes of RAM that there are runs layers in bands of rows; or a smaller input, or another bank",
        ),
        BankError::NoRoom { .. } => Some(
            "--arena-budget with less than the RAM that there is makes tensors smaller; or one bank in place of two neighbours",
        ),
        BankError::Artifact { .. } => {
            Some("name a larger bank in \"weights\", prune the model, or --strip its names")
        }
        _ => None,
    }
}

fn import_hint(problem: &Problem) -> Option<&'static str> {
    match problem {
        Problem::Read(_) => Some("check the path"),
        Problem::OtherKind(_) => Some("give the network as an .onnx file"),
        Problem::NotOnnx(_) => Some("give an .onnx file, and check that it was copied whole"),
        Problem::NotTflite(_) => Some("give a .tflite file, and check that it was copied whole"),
        _ => None,
    }
}

fn merge_hint(error: &MergeError) -> Option<&'static str> {
    match error {
        MergeError::Import(error) => import_hint(&error.problem),
        MergeError::Read { .. } => Some("check the path"),
        MergeError::Malformed { .. } => Some("give adapter_model.safetensors as PEFT saves it"),
        MergeError::Nothing { .. } | MergeError::Half { .. } => {
            Some("give the adapter alone, as PEFT's save_pretrained writes it")
        }
        MergeError::NoAlpha { .. } => Some("give --alpha; PEFT's default is 8"),
        MergeError::NoSuchLayer { .. } | MergeError::Ambiguous { .. } => Some(
            "a --map FILE.json with {\"layer of the adapter\": \"initialiser or node of the model\"}",
        ),
        MergeError::Shared { .. } | MergeError::Twice { .. } => {
            Some("export the model with a weight for each layer")
        }
        MergeError::Shape { .. } => Some("check that adapter and model are of the same network"),
        MergeError::NotFinite { .. } => Some("check the adapter's training, and --alpha"),
        MergeError::OtherGraph { .. } => Some("export both with the same versions and settings"),
        MergeError::Foreign { .. } => Some("PEFT's merge_and_unload, then export the model again"),
        MergeError::Shares { .. } => Some("model.onnx:0.3 counts 0.3, and the base the rest"),
        _ => None,
    }
}

fn train_hint(error: &TrainError) -> Option<&'static str> {
    match error {
        TrainError::Data(error) => dataset_hint(error),
        TrainError::Store(error) => store_hint(error),
        TrainError::Teacher(error) => teacher_hint(error),
        TrainError::Nothing(_) => {
            Some("labels, a larger --label-fraction, or a smaller --hold-out")
        }
        TrainError::Mismatch { .. } => {
            Some("a teacher or store for the classes of these pictures, and a student for as many")
        }
        TrainError::NotFinite { .. } => Some(
            "a smaller --lr (a third of it) with another --run folder; check the preprocessing and the first weights",
        ),
        TrainError::NoAttention => Some("leave out --attention-sparsity"),
        TrainError::ScaleKd(_) => Some("another --teacher or --student, or leave out --scalekd"),
        TrainError::Elastic(error) => match error {
            ElasticError::Budget { .. } => Some("a larger --max-macs"),
            ElasticError::Read { .. } | ElasticError::File { .. } => {
                Some("the .safetensors file that `ampoule distill --elastic` wrote")
            }
            _ => None,
        },
        TrainError::Read { .. } => Some("check that it is a file you may read"),
        TrainError::Write { .. } => Some(
            "make room or check the rights, and start it again: it goes on from its checkpoint",
        ),
        TrainError::Damaged { .. } => Some("remove the run's folder to begin again"),
        TrainError::OtherRun { .. } => {
            Some("give the same settings as before, another --run folder, or remove this one")
        }
        TrainError::Busy { .. } => Some("wait for the other process, or end it"),
        _ => None,
    }
}

fn teach_hint(error: &TeachError) -> Option<&'static str> {
    match error {
        TeachError::Store(error) => store_hint(error),
        TeachError::Data(error) => dataset_hint(error),
        TeachError::Teacher(error) => teacher_hint(error),
        TeachError::Answer { .. } => Some("check the teacher and its preprocessing (--preset)"),
        TeachError::EmptyShard { .. } => Some("fewer shards"),
        _ => None,
    }
}

fn dataset_hint(error: &DatasetError) -> Option<&'static str> {
    match error {
        DatasetError::Data(error) => data_hint(error),
        DatasetError::Unreadable { .. } => {
            Some("replace the pictures, or go on with --max-unreadable")
        }
        DatasetError::List { .. } | DatasetError::Empty(_) => {
            Some("a header `path,label` and a row per picture, or a JSON object per line")
        }
        DatasetError::Picture { .. } => Some("--resize exact, or larger pictures"),
        DatasetError::Class { .. } => Some("correct the labels, or give a model for more classes"),
        DatasetError::ClassNames { .. } => {
            Some("the same folder names in both sets, or lists with numbers as labels")
        }
        _ => None,
    }
}

fn teacher_hint(error: &TeacherError) -> Option<&'static str> {
    match error {
        TeacherError::Import(error) => import_hint(&error.problem),
        TeacherError::Input { .. } => {
            Some("give a model that takes one picture, such as the image tower of a pair")
        }
        TeacherError::Output { .. } => Some("name one of them with --teacher-output"),
        TeacherError::Shape { .. } => Some("another --kind, or another --teacher-output"),
        TeacherError::TopK { .. } => Some("a smaller --top-k"),
        _ => None,
    }
}

fn store_hint(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Some("check the path; `ampoule teach` makes a store")
        }
        StoreError::Write { .. } => Some("make room or check the rights, and start it again"),
        StoreError::Differs { .. } => {
            Some("give the settings that the store was made with, or another folder")
        }
        StoreError::Incomplete { .. } | StoreError::Cut { .. } | StoreError::Damaged { .. } => {
            Some("run `ampoule teach` again as before: it does what is missing")
        }
        StoreError::Header { .. } | StoreError::Version { .. } | StoreError::Length { .. } => {
            Some("copy the store again, or teach another folder")
        }
        StoreError::Range { .. } => Some("keep to one number of shards, or another folder"),
        StoreError::Busy { .. } => Some("wait for the other process, or end it"),
        _ => None,
    }
}

fn zoo_hint(error: &ZooError) -> Option<&'static str> {
    match error {
        ZooError::Read { .. } => Some("check the path"),
        ZooError::Safetensors { .. } => {
            Some("give a .safetensors file, or an .onnx file whose initialisers are the weights")
        }
        ZooError::Onnx(error) => import_hint(&error.problem),
        ZooError::Type { .. } => Some("save the weights as float32"),
        ZooError::Shape { .. } => Some("check the network's name, --classes and --size"),
        ZooError::Missing { .. } | ZooError::Extra { .. } => Some(
            "the state of just this network in training form, with the names that `ampoule zoo export` writes",
        ),
        _ => None,
    }
}

fn data_hint(error: &DataError) -> Option<&'static str> {
    match error {
        DataError::Unreadable { .. } => Some("check the path"),
        DataError::NoFolder { .. } => {
            Some("check what stands behind the option, and the file's extension")
        }
        DataError::NoImages { .. } => Some("give a folder with pictures the model is meant for"),
        DataError::Damaged { .. } | DataError::Empty { .. } => Some("replace the picture"),
        DataError::Unsupported { .. } => Some("convert the picture to PNG or JPEG"),
        DataError::TooLarge { .. } => Some("shrink the picture first"),
        DataError::NothingDecoded { .. } => Some("give JPEG, PNG, BMP or WebP pictures"),
        DataError::Labels { .. } => {
            Some("a header `file,class`, then a row per picture with its class number or label")
        }
        DataError::UnknownClass { .. } => {
            Some("rename the folder, or give the labels of this model with --labels")
        }
        _ => None,
    }
}
