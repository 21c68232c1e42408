//! Decoding in parallel with bounded memory.

use std::collections::VecDeque;
use std::path::Path;

use rayon::prelude::*;

use super::{DataError, Entry, LoadReport, RgbImage, Skipped, decode};

/// Images decoded ahead per thread.
const AHEAD: usize = 2;

/// A decoded image.
#[derive(Debug)]
pub struct Sample<'a> {
    /// Position among the set's entries.
    pub index: usize,
    /// The file.
    pub path: &'a Path,
    /// Its class, where known.
    pub class: Option<u32>,
    /// The pixels.
    pub image: RgbImage,
}

/// Iterator over the decoded images of a set, in order. Files that cannot be decoded are left out and
/// listed in the [`report`](Images::report).
///
/// Two images per thread are decoded ahead, so memory does not grow with the set.
#[derive(Debug)]
pub struct Images<'a> {
    entries: &'a [Entry],
    next: usize,
    ready: VecDeque<(usize, Result<RgbImage, DataError>)>,
    report: LoadReport,
}

impl<'a> Images<'a> {
    pub(super) fn new(entries: &'a [Entry], report: LoadReport) -> Self {
        Images {
            entries,
            next: 0,
            ready: VecDeque::new(),
            report,
        }
    }

    /// What was found, decoded and skipped so far.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    fn decode_more(&mut self) {
        let end = self
            .entries
            .len()
            .min(self.next + AHEAD * rayon::current_num_threads());
        let batch = self.next..end;
        self.next = end;
        let entries = self.entries;
        let decoded: Vec<_> = batch
            .into_par_iter()
            .map(|i| (i, decode(&entries[i].path)))
            .collect();
        self.ready.extend(decoded);
    }
}

impl<'a> Iterator for Images<'a> {
    type Item = Sample<'a>;

    fn next(&mut self) -> Option<Sample<'a>> {
        loop {
            if self.ready.is_empty() {
                self.decode_more();
            }
            let (index, result) = self.ready.pop_front()?;
            let entry = &self.entries[index];
            match result {
                Ok(image) => {
                    self.report.decoded += 1;
                    return Some(Sample {
                        index,
                        path: &entry.path,
                        class: entry.class,
                        image,
                    });
                }
                Err(error) => {
                    self.report.skipped.push(Skipped {
                        path: entry.path.clone(),
                        reason: error.to_string(),
                    });
                }
            }
        }
    }
}
