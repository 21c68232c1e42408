//! An artifact used in place from a memory map: the operating system loads its pages on demand and
//! shares them between processes.
//!
//! The command line reads files into memory instead, because nothing else can change that copy.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use ampoule_runtime::{Artifact, Error};
use memmap2::Mmap;

/// The mapped bytes of a file.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // SAFETY: this program's updater replaces the file by renaming and never writes into it.
/// let map = unsafe { ampoule::mapped::Mapped::open("model.amp")? };
/// let artifact = map.verify()?;
/// println!("{} steps", artifact.step_count());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps a file for reading.
    ///
    /// # Safety
    ///
    /// Nothing may write to the file or truncate it while the map exists. Replacing it by a rename, as
    /// [`crate::quantize::seal::write_atomically`] does, is fine: the map keeps the old file.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub unsafe fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the caller promises that the file does not change while it is mapped.
        unsafe { Mmap::map(&file) }.map(Mapped)
    }

    /// The bytes, aligned to a page.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Verifies the bytes as an artifact.
    ///
    /// # Errors
    ///
    /// As [`Artifact::verify`].
    pub fn verify(&self) -> Result<Artifact<'_>, Error> {
        Artifact::verify(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_refused_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.amp");
        std::fs::write(&path, [0u8; 4096]).unwrap();
        // SAFETY: nothing else knows the temporary file.
        let map = unsafe { Mapped::open(&path) }.unwrap();
        assert_eq!(map.bytes().len(), 4096);
        assert!(map.verify().is_err());
    }
}
