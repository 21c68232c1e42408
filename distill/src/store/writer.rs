//! Writing a store so that it can go on after any interruption.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use super::files::{self, Part, read, write};
use super::map::lock;
use super::{Answer, Header, Kind, MISSING, StoreError};

/// Appends the records of some samples of an epoch, in order.
///
/// A block of records is written when it is complete, and its checksum after it. Whatever an
/// interruption leaves behind the last complete block is removed when writing goes on.
#[derive(Debug)]
pub struct Writer {
    part: Part,
    kind: Kind,
    /// Records in a block.
    block: usize,
    records: File,
    sums: File,
    /// The next sample.
    next: usize,
    /// Records not yet written.
    pending: Vec<u8>,
    discarded: u64,
}

impl Writer {
    /// Starts or continues the records of `range` in the store's folder, whose header says the same.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the settings differ, another process writes the same records, other files hold
    /// some of them, or files can't be written.
    pub fn open(
        folder: &Path,
        header: &Header,
        epoch: usize,
        range: Range<usize>,
    ) -> Result<Self, StoreError> {
        files::create(folder, header)?;
        let part = Part::new(folder, epoch, range);
        files::check_apart(folder, header, epoch, &part)?;
        let parent = files::epoch_folder(folder, epoch);
        fs::create_dir_all(&parent).map_err(write(&parent))?;
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path).map_err(write(path))
        };
        let (records, sums) = (open(&part.records)?, open(&part.sums)?);
        lock(&part.records, records.try_lock())?;
        let mut writer = Writer {
            next: part.range.start,
            part,
            kind: header.kind.clone(),
            block: header.block,
            records,
            sums,
            pending: Vec::new(),
            discarded: 0,
        };
        writer.resume()?;
        Ok(writer)
    }

    /// The next sample; the end of the range when all are there.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Bytes of records that were there but incomplete or damaged, and are removed.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Appends the answer for the next sample; none when its picture can't be read.
    ///
    /// # Errors
    ///
    /// [`StoreError::Answer`] for one of another length or with values that are not finite in `f16`;
    /// [`StoreError::Write`].
    pub fn push(&mut self, seed: i32, answer: Option<&Answer>) -> Result<(), StoreError> {
        let wrong = |what: String| StoreError::Answer {
            sample: self.next,
            what,
        };
        if self.next == self.part.range.end {
            return Err(wrong("all records are there".to_owned()));
        }
        match answer {
            Some(answer) => {
                answer.check(&self.kind).map_err(wrong)?;
                answer.write(seed, &mut self.pending);
            }
            None => {
                let end = self.pending.len() + self.kind.record_bytes();
                self.pending.extend(MISSING.to_le_bytes());
                self.pending.resize(end, 0);
            }
        }
        self.next += 1;
        let complete = (self.next - self.part.range.start) % self.block == 0;
        if complete || self.next == self.part.range.end {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes sure that everything is on the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Write`].
    pub fn finish(self) -> Result<(), StoreError> {
        let Part { records, sums, .. } = &self.part;
        self.records.sync_all().map_err(write(records))?;
        self.sums.sync_all().map_err(write(sums))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let sum = crc32fast::hash(&self.pending).to_le_bytes();
        let Part { records, sums, .. } = &self.part;
        self.records
            .write_all(&self.pending)
            .map_err(write(records))?;
        self.sums.write_all(&sum).map_err(write(sums))?;
        self.pending.clear();
        Ok(())
    }

    /// Keeps the blocks from the start that are complete and have the right checksum.
    fn resume(&mut self) -> Result<(), StoreError> {
        let Part {
            range,
            records,
            sums,
        } = &self.part;
        let mut expected = Vec::new();
        self.sums.read_to_end(&mut expected).map_err(read(sums))?;
        let size = self.kind.record_bytes();
        let (mut bytes, mut blocks) = (0, 0);
        let mut block = Vec::new();
        for sum in expected.as_chunks::<4>().0 {
            let count = self.block.min(range.end - self.next);
            block.resize(count * size, 0);
            let whole = self.records.read_exact(&mut block).is_ok();
            if !whole || count == 0 || crc32fast::hash(&block).to_le_bytes() != *sum {
                break;
            }
            self.next += count;
            bytes += (count * size) as u64;
            blocks += 1;
        }
        let length = self.records.metadata().map_err(read(records))?.len();
        self.discarded = length - bytes;
        for (file, path, keep) in [
            (&mut self.records, records, bytes),
            (&mut self.sums, sums, 4 * blocks),
        ] {
            file.set_len(keep).map_err(write(path))?;
            file.seek(SeekFrom::Start(keep)).map_err(write(path))?;
        }
        Ok(())
    }
}
