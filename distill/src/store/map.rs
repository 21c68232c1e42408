//! A file's bytes, mapped into memory.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use memmap2::Mmap;

use super::StoreError;
use super::files::read;

/// The bytes of a file that this program's processes do not change while it is mapped.
#[derive(Debug)]
pub(super) struct Mapped {
    map: Mmap,
    /// Holds the lock.
    _file: File,
}

impl Mapped {
    /// Maps a file for reading, and locks it against [`Writer`](super::Writer)s.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(read(path))?;
        lock(path, file.try_lock_shared())?;
        // SAFETY: the map is read-only and its bytes are plain numbers, for which every value is
        // valid. What must not happen is that somebody changes or cuts the file meanwhile. Every
        // writer of this format takes the file's exclusive lock before it does so, and cannot get it
        // while this process holds the shared one, which lives as long as the map.
        let map = unsafe { Mmap::map(&file) }.map_err(read(path))?;
        Ok(Mapped { map, _file: file })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// What taking a lock came to. File systems without locks are used without.
pub(super) fn lock(path: &Path, taken: Result<(), TryLockError>) -> Result<(), StoreError> {
    match taken {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(e)) => Err(read(path)(e)),
    }
}
