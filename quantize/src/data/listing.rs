//! Finding image files.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::DataError;

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// Files below a folder.
#[derive(Default)]
pub(super) struct Listing {
    /// Images relative to the folder, sorted by their components.
    pub images: Vec<PathBuf>,
    /// Number of files that are no images; hidden ones are not counted.
    pub other: usize,
}

/// Lists the images below `root`. Hidden files and folders are left out; links to folders are
/// followed once.
pub(super) fn list(root: &Path) -> Result<Listing, DataError> {
    if root.is_file() {
        return Err(DataError::NoFolder {
            path: root.to_owned(),
        });
    }
    let mut listing = Listing::default();
    let mut visited = HashSet::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let folder = root.join(&relative);
        if !visited.insert(fs::canonicalize(&folder).map_err(unreadable(&folder))?) {
            continue;
        }
        for name in sorted_names(&folder)? {
            let path = relative.join(&name);
            let kind = fs::metadata(root.join(&path)); // follows links
            match kind {
                Ok(kind) if kind.is_dir() => pending.push(path),
                _ if is_image(&path) => listing.images.push(path), // a broken link fails when decoded
                _ => listing.other += 1,
            }
        }
    }
    listing.images.sort();
    Ok(listing)
}

/// Whether the extension is one of an image.
pub(super) fn is_image(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    EXTENSIONS.iter().any(|e| extension.eq_ignore_ascii_case(e))
}

/// Names of the visible entries. Sorted, so that of several links to a folder always the same is
/// followed.
fn sorted_names(folder: &Path) -> Result<Vec<std::ffi::OsString>, DataError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        let name = entry.map_err(unreadable(folder))?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a)); // folders are popped from the end
    Ok(names)
}

pub(super) fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> DataError + '_ {
    |source| DataError::Unreadable {
        path: path.to_owned(),
        source,
    }
}
