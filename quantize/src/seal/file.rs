//! Bytes with the alignment the runtime asks for, and files that are never left half-written.

use std::fs;
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use ampoule_runtime::artifact::layout::ALIGN;

/// A byte buffer whose start is aligned to 64 bytes: for artifacts read from a file and for arenas.
///
/// ```
/// use ampoule_quantize::seal::AlignedBytes;
/// let bytes = AlignedBytes::from(&[1u8, 2, 3][..]);
/// assert_eq!((&bytes[..], bytes.as_ptr() as usize % 64), (&[1u8, 2, 3][..], 0));
/// ```
#[derive(Debug, Default)]
pub struct AlignedBytes {
    /// Never grows, so its heap block and with it `start`'s alignment stay.
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// Zeroed bytes.
    pub fn zeroed(len: usize) -> Self {
        let storage = vec![0; len + ALIGN];
        let start = storage.as_ptr().align_offset(ALIGN).min(ALIGN);
        AlignedBytes {
            storage,
            start,
            len,
        }
    }

    /// Reads a whole file.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(fs::read(path)?.as_slice().into())
    }
}

impl From<&[u8]> for AlignedBytes {
    fn from(bytes: &[u8]) -> Self {
        let mut out = Self::zeroed(bytes.len());
        out.copy_from_slice(bytes);
        out
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        Self::from(&self[..])
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

/// Writes a file whole or not at all: a temporary file beside it, flushed, then renamed.
///
/// # Errors
///
/// The operating system's; the temporary file is removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The write's own error is the one to report.
        let _ = fs::remove_file(&temporary);
    })
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}
