//! Running the program, and the files it runs on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// What a run printed and returned.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    command: String,
}

/// Runs `ampoule` with arguments.
pub fn ampoule<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    ampoule_in(Path::new(env!("CARGO_MANIFEST_DIR")), args)
}

/// Runs `ampoule` in a folder. Whatever happens, it must end by itself and without a panic.
pub fn ampoule_in<A: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = A>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ampoule"));
    command.args(args).current_dir(folder);
    let shown = format!("{command:?}");
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let ran = Ran {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
        command: shown,
    };
    assert!(!ran.err.contains("panicked") && ran.code >= 0, "{ran}");
    ran
}

impl Ran {
    /// Standard output of a success.
    pub fn text(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.out
    }

    /// Standard output of a success, as JSON.
    pub fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Checks a failure: its exit code, the words of the message, and that nothing is on standard
    /// output. Gives the message.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, code, "{self}");
        assert!(
            self.err.contains("error: ") && self.out.is_empty(),
            "{self}"
        );
        for word in words {
            assert!(self.err.contains(word), "expected `{word}`: {self}");
        }
        self.err
    }

    /// As [`Ran::fails`] with exit code 1, and the message says what to try.
    #[track_caller]
    pub fn fails_with_advice(self, words: &[&str]) {
        self.advises(1, words);
    }

    /// The same for wrong usage.
    pub fn misused_with_advice(self, words: &[&str]) {
        self.advises(2, words);
    }

    fn advises(self, code: i32, words: &[&str]) {
        let message = self.fails(code, words);
        assert!(message.contains("\n  try: "), "no advice: {message}");
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran {
            code,
            out,
            err,
            command,
        } = self;
        write!(f, "{command}\nexit code {code}\n{out}\n{err}")
    }
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

pub fn vww_onnx() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/models/mlperf-tiny/vww_mobilenet025_float.onnx"
    ))
}

/// Photos in two folders, `no_person` and `person`.
pub fn photos() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/demo/photos"
    ))
}

/// One photo of a person.
pub fn photo() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/demo/photos/person/000000000785.jpg"
    ))
}

/// Arguments that quantise the visual wake words model into a file.
pub fn quantize_args(output: &Path) -> Vec<PathBuf> {
    let mut args: Vec<PathBuf> = ["quantize", "--samples", "4", "--calibration"]
        .map(PathBuf::from)
        .to_vec();
    args.extend([photos(), "-o".as_ref(), output, vww_onnx()].map(Path::to_owned));
    args
}

/// The visual wake words model in int8 with labels, made by the program once.
pub fn vww_amp() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path();
        let (path, labels) = (folder.join("vww.amp"), folder.join("labels.txt"));
        std::fs::write(&labels, "no_person\nperson\n").unwrap();
        let labels = ["--labels".into(), labels];
        ampoule(quantize_args(&path).into_iter().chain(labels)).text();
        path
    })
}

/// A NumPy file of f32.
pub fn npy(path: &Path, shape: &str, values: impl IntoIterator<Item = f32>) {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
    std::fs::write(path, bytes).unwrap();
}

/// Names and bytes of everything in a folder, to see that nothing was left behind.
pub fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            (path, bytes)
        })
        .collect();
    all.sort();
    all
}

/// Words of a command, where an argument is a path.
#[macro_export]
macro_rules! words {
    ($($word:expr),* $(,)?) => { [$(AsRef::<std::ffi::OsStr>::as_ref($word)),*] };
}
