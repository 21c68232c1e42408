//! Writing result files: never over an input, and whole or not at all.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use ampoule_quantize::seal::write_atomically;

use super::error::Failure;

/// Fails early when a file could not be written in the end, or is one of the files that are read.
pub fn check_output(path: &Path, inputs: &[&Path]) -> Result<(), Failure> {
    let fail = |source| Failure::Write {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Err(fail(ErrorKind::IsADirectory.into()));
    }
    if path.exists() && !path.is_file() {
        // Renaming over a device would replace the device.
        return Err(unfit(path, "is no ordinary file"));
    }
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !std::fs::metadata(folder).map_err(fail)?.is_dir() {
        return Err(fail(ErrorKind::NotADirectory.into()));
    }
    if inputs.iter().any(|input| is_same(path, input)) {
        return Err(unfit(
            path,
            "is read by this command and would be overwritten",
        ));
    }
    probe(path).map_err(fail)
}

/// Whether a file can appear beside the one to write: only trying tells.
fn probe(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.probe", std::process::id()));
    let probe = path.with_file_name(name);
    File::create_new(&probe)?;
    std::fs::remove_file(&probe)
}

/// Writes a file whole or not at all.
pub fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_atomically(path, bytes).map_err(|source| Failure::Write {
        path: path.to_owned(),
        source,
    })
}

/// Whether two paths lead to one file, which may not exist yet.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn unfit(path: &Path, what: &str) -> Failure {
    Failure::Unfit {
        path: path.to_owned(),
        what: what.to_owned(),
        hint: "give another name for the output",
    }
}
