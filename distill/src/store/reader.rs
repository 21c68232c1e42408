//! Reading a store.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, Part, read};
use super::map::Mapped;
use super::{Gap, Header, MISSING, Record, StoreError};
use crate::data::Seeds;

/// A complete store.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    header: Header,
}

/// The records of an epoch, mapped into memory.
#[derive(Debug)]
pub struct Epoch {
    header: Header,
    parts: Vec<(Part, Mapped, Vec<u8>)>,
}

impl Store {
    /// Opens a store, whatever it was made with. All shards must be there, and whole.
    ///
    /// # Errors
    ///
    /// [`StoreError`] with the reason for which it is refused.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let folder = folder.as_ref().to_owned();
        let header = Header::read(&folder)?;
        let store = Store { folder, header };
        let mut gaps = Vec::new();
        for epoch in 0..store.header.epochs {
            gaps.extend(store.gaps(epoch)?);
        }
        match gaps.is_empty() {
            true => Ok(store),
            false => Err(StoreError::Incomplete {
                path: store.folder,
                gaps,
            }),
        }
    }

    /// Opens a store that must have been made with these settings.
    ///
    /// # Errors
    ///
    /// As [`Store::open`]; [`StoreError::Differs`] with every setting that differs.
    pub fn open_as(folder: impl AsRef<Path>, expected: &Header) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        files::expect(folder, expected, &Header::read(folder)?)?;
        Self::open(folder)
    }

    /// What it was made with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Maps an epoch.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when there is no such epoch, or its files changed since the store was opened.
    pub fn epoch(&self, epoch: usize) -> Result<Epoch, StoreError> {
        let count = self.header.epochs;
        if epoch >= count {
            return Err(StoreError::Index {
                what: "epoch",
                index: epoch,
                count,
            });
        }
        let map = |part: Part| {
            let records = Mapped::open(&part.records)?;
            check_length(
                &part.records,
                part.record_bytes(&self.header),
                records.bytes().len() as u64,
            )?;
            let sums = fs::read(&part.sums).map_err(read(&part.sums))?;
            check_length(&part.sums, part.sum_bytes(&self.header), sums.len() as u64)?;
            Ok((part, records, sums))
        };
        let parts = files::parts(&self.folder, &self.header, epoch)?;
        Ok(Epoch {
            header: self.header.clone(),
            parts: parts.into_iter().map(map).collect::<Result<_, _>>()?,
        })
    }

    /// What is missing in an epoch.
    fn gaps(&self, epoch: usize) -> Result<Vec<Gap>, StoreError> {
        let size = self.header.kind.record_bytes();
        let (mut gaps, mut end) = (Vec::new(), 0);
        let mut add = |samples: Range<usize>| {
            if !samples.is_empty() {
                gaps.push(Gap { epoch, samples });
            }
        };
        for part in files::parts(&self.folder, &self.header, epoch)? {
            add(end..part.range.start);
            end = part.range.end;
            let bytes = length(&part.records)?;
            let there = part.range.start + (bytes / size as u64) as usize;
            if there < part.range.end {
                if bytes % size as u64 != 0 {
                    return Err(StoreError::Cut {
                        path: part.records,
                        sample: there,
                        expected: size,
                        got: (bytes % size as u64) as usize,
                    });
                }
                add(there..part.range.end);
                continue;
            }
            check_length(&part.records, part.record_bytes(&self.header), bytes)?;
            check_length(
                &part.sums,
                part.sum_bytes(&self.header),
                length(&part.sums)?,
            )?;
        }
        add(end..self.header.samples);
        Ok(gaps)
    }
}

impl Epoch {
    /// The record of a sample. The checksum of its block is checked every time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] and [`StoreError::Damaged`].
    pub fn record(&self, sample: usize) -> Result<Record<'_>, StoreError> {
        let missing = StoreError::Index {
            what: "sample",
            index: sample,
            count: self.header.samples,
        };
        let after = self.parts.partition_point(|(p, ..)| p.range.end <= sample);
        let (part, records, sums) = self.parts.get(after).ok_or(missing)?;
        let (number, size) = (sample - part.range.start, self.header.kind.record_bytes());
        let block = number / self.header.block;
        let records = self.block(part, records, sums, block)?;
        let start = (number - block * self.header.block) * size;
        Ok(Record::new(
            &self.header.kind,
            &records[start..start + size],
        ))
    }

    /// The records' seeds, as [`Loader`](crate::data::Loader) takes them. A damaged record's is
    /// [`MISSING`].
    pub fn seeds(self: &Arc<Self>) -> Seeds {
        let epoch = self.clone();
        Arc::new(move |sample| epoch.record(sample).map_or(MISSING, |r| r.seed()))
    }

    /// Checks every checksum. Gives the number of records.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] with the first block that is wrong.
    pub fn verify(&self) -> Result<usize, StoreError> {
        for (part, records, sums) in &self.parts {
            for block in 0..part.range.len().div_ceil(self.header.block) {
                self.block(part, records, sums, block)?;
            }
        }
        Ok(self.header.samples)
    }

    /// The bytes of a block whose checksum is right.
    fn block<'e>(
        &self,
        part: &Part,
        records: &'e Mapped,
        sums: &[u8],
        block: usize,
    ) -> Result<&'e [u8], StoreError> {
        let size = self.header.kind.record_bytes();
        let range =
            block * self.header.block..((block + 1) * self.header.block).min(part.range.len());
        let bytes = &records.bytes()[range.start * size..range.end * size];
        match sums[4 * block..4 * block + 4] == crc32fast::hash(bytes).to_le_bytes() {
            true => Ok(bytes),
            false => Err(StoreError::Damaged {
                path: part.records.clone(),
                samples: part.range.start + range.start..part.range.start + range.end,
            }),
        }
    }
}

fn length(path: &Path) -> Result<u64, StoreError> {
    Ok(fs::metadata(path).map_err(read(path))?.len())
}

fn check_length(path: &Path, expected: u64, got: u64) -> Result<(), StoreError> {
    match expected == got {
        true => Ok(()),
        false => Err(StoreError::Length {
            path: path.to_owned(),
            expected,
            got,
        }),
    }
}
