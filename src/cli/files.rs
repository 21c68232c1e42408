//! Writing result files: never over an input, and whole or not at all.

use std::io::ErrorKind;
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
        return Err(unfit(path, "is no ordinary file".to_owned()));
    }
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !std::fs::metadata(folder).map_err(fail)?.is_dir() {
        return Err(fail(ErrorKind::NotADirectory.into()));
    }
    match inputs.iter().find(|input| is_same(path, input)) {
        Some(input) => Err(unfit(
            path,
            format!("would overwrite `{}`, which is read", input.display()),
        )),
        None => Ok(()),
    }
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

fn unfit(path: &Path, what: String) -> Failure {
    Failure::Unfit {
        path: path.to_owned(),
        what,
        hint: "give another name for the output",
    }
}
