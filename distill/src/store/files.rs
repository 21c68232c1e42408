//! Which files a store consists of.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ampoule_quantize::seal::write_atomically;

use super::{Header, StoreError};

/// A share of the samples, for one of several machines: number `index` of `count`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which.
    pub index: usize,
    /// Of how many.
    pub count: usize,
}

impl Shard {
    /// All samples.
    pub const WHOLE: Shard = Shard { index: 1, count: 1 };

    /// Its samples: contiguous, and those of all shards are all samples.
    pub fn range(&self, samples: usize) -> Range<usize> {
        let at = |part: usize| (samples as u64 * part as u64 / self.count as u64) as usize;
        at(self.index - 1)..at(self.index)
    }
}

/// The records of some samples in an epoch, and their checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub range: Range<usize>,
    pub records: PathBuf,
    pub sums: PathBuf,
}

impl Part {
    pub fn new(store: &Path, epoch: usize, range: Range<usize>) -> Self {
        let name = format!("{}-{}", range.start, range.end);
        let folder = epoch_folder(store, epoch);
        Part {
            range,
            records: folder.join(format!("{name}.records")),
            sums: folder.join(format!("{name}.sums")),
        }
    }

    /// Bytes of its records.
    pub fn record_bytes(&self, header: &Header) -> u64 {
        self.range.len() as u64 * header.kind.record_bytes() as u64
    }

    /// Bytes of its checksums.
    pub fn sum_bytes(&self, header: &Header) -> u64 {
        4 * self.range.len().div_ceil(header.block) as u64
    }
}

pub(super) fn epoch_folder(store: &Path, epoch: usize) -> PathBuf {
    store.join(format!("epoch-{epoch}"))
}

/// The parts of an epoch in the order of their samples, without gaps being looked for.
pub(super) fn parts(store: &Path, header: &Header, epoch: usize) -> Result<Vec<Part>, StoreError> {
    let folder = epoch_folder(store, epoch);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(read(&folder)(source)),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let name = entry.map_err(read(&folder))?.file_name();
        let range = name.to_str().and_then(range_of);
        parts.extend(range.map(|range| Part::new(store, epoch, range)));
    }
    parts.sort_by_key(|part| (part.range.start, part.range.end));
    let mut end = 0;
    for part in &parts {
        let wrong = |what: String| {
            Err(StoreError::Range {
                path: part.records.clone(),
                range: part.range.clone(),
                what,
            })
        };
        if part.range.end > header.samples || part.range.is_empty() {
            return wrong(format!("there are {}", header.samples));
        }
        if part.range.start < end {
            return wrong("another file holds some of them too".to_owned());
        }
        end = part.range.end;
    }
    Ok(parts)
}

/// Fails when files other than the part's own hold some of its samples.
pub(super) fn check_apart(
    store: &Path,
    header: &Header,
    epoch: usize,
    part: &Part,
) -> Result<(), StoreError> {
    let overlaps = |other: &Part| {
        let (a, b) = (&other.range, &part.range);
        other != part && a.start < b.end && b.start < a.end
    };
    match parts(store, header, epoch)?.into_iter().find(overlaps) {
        Some(other) => Err(StoreError::Range {
            path: other.records,
            range: other.range,
            what: format!(
                "{}..{} were to be written; use the same shards as before",
                part.range.start, part.range.end
            ),
        }),
        None => Ok(()),
    }
}

/// `12-34.records`.
fn range_of(name: &str) -> Option<Range<usize>> {
    let (start, end) = name.strip_suffix(".records")?.split_once('-')?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

/// Makes the store, or checks that the one that is there has the same settings.
pub(crate) fn create(folder: &Path, header: &Header) -> Result<(), StoreError> {
    let path = Header::path(folder);
    header.check().map_err(|what| StoreError::Header {
        path: path.clone(),
        what,
    })?;
    if path.exists() {
        return expect(folder, header, &Header::read(folder)?);
    }
    fs::create_dir_all(folder).map_err(write(folder))?;
    let text = serde_json::to_vec_pretty(header).map_err(|e| write(&path)(e.into()))?;
    write_atomically(&path, &text).map_err(write(&path))
}

/// Fails unless a store's header has the expected settings.
pub(super) fn expect(folder: &Path, expected: &Header, got: &Header) -> Result<(), StoreError> {
    let differences = expected.differences(got);
    match differences.is_empty() {
        true => Ok(()),
        false => Err(StoreError::Differs {
            path: Header::path(folder),
            differences,
        }),
    }
}

pub(super) fn read(path: &Path) -> impl Fn(std::io::Error) -> StoreError + '_ {
    |source| StoreError::Read {
        path: path.to_owned(),
        source,
    }
}

pub(super) fn write(path: &Path) -> impl Fn(std::io::Error) -> StoreError + '_ {
    |source| StoreError::Write {
        path: path.to_owned(),
        source,
    }
}
