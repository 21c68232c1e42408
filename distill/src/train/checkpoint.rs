//! A run's folder and its checkpoints: `docs/checkpoint.md` specifies the format.
//!
//! `checkpoint.bin` is the newest, `checkpoint.previous.bin` the one before. A new one is written beside
//! them, flushed to the disk and renamed into place, so that there is a whole one at any moment.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ampoule_quantize::seal::write_atomically;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::TrainError;
use super::metrics::{self, Metrics};
use crate::store::differences;

/// Version of the format.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"AMPTRAIN";
const CURRENT: &str = "checkpoint.bin";
const PREVIOUS: &str = "checkpoint.previous.bin";
const HASH: usize = 32;

/// A folder in which a run keeps its checkpoints and metrics.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    settings: Value,
    /// Steps done at the last checkpoint.
    kept: Option<u64>,
    /// Held until the run ends.
    _lock: File,
}

/// Everything that the rest of a run depends on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Steps done, over all epochs.
    pub steps: u64,
    /// The epoch to go on with.
    pub epoch: usize,
    /// Where it goes on, as its task says.
    pub position: u64,
    /// States by name: parameters, averages, optimiser.
    pub states: Vec<(String, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    settings: Value,
    steps: u64,
    epoch: usize,
    position: u64,
    /// Name and length of each state, which follow.
    states: Vec<(String, usize)>,
}

impl Run {
    /// Opens or makes the folder of a run. `settings` are all that decides its result: a checkpoint of a
    /// run with others is refused.
    ///
    /// # Errors
    ///
    /// [`TrainError::Write`], or [`TrainError::Busy`] when another process is at it.
    pub fn open(folder: impl AsRef<Path>, settings: Value) -> Result<Self, TrainError> {
        let folder = folder.as_ref().to_owned();
        let fail = |source| TrainError::Write {
            path: folder.clone(),
            source,
            kept: None,
        };
        fs::create_dir_all(&folder).map_err(fail)?;
        let lock = File::create(folder.join("lock")).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TrainError::Busy { path: folder }),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        Ok(Run {
            folder,
            settings,
            kept: None,
            _lock: lock,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Steps done at the last checkpoint that was written or read.
    pub fn kept(&self) -> Option<u64> {
        self.kept
    }

    /// The newest checkpoint that is whole, if there is any, and what is wrong with one that is newer.
    ///
    /// # Errors
    ///
    /// [`TrainError::Damaged`] when there are checkpoints but none is whole, [`TrainError::OtherRun`]
    /// when it is that of a run with other settings.
    pub fn load(&mut self) -> Result<Option<(Snapshot, Option<String>)>, TrainError> {
        let mut reasons = Vec::new();
        for name in [CURRENT, PREVIOUS] {
            let path = self.folder.join(name);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(source) => return Err(TrainError::Read { path, source }),
            };
            match decode(&bytes) {
                Ok((settings, snapshot)) => {
                    let differences = differences(&self.settings, &settings);
                    if !differences.is_empty() {
                        return Err(TrainError::OtherRun { path, differences });
                    }
                    self.kept = Some(snapshot.steps);
                    return Ok(Some((snapshot, reasons.pop())));
                }
                Err(what) => reasons.push(format!("{name} {what}")),
            }
        }
        match reasons.is_empty() {
            true => Ok(None),
            false => Err(TrainError::Damaged {
                path: self.folder.clone(),
                reasons,
            }),
        }
    }

    /// Writes a checkpoint; the one before stays beside it.
    ///
    /// # Errors
    ///
    /// [`TrainError::Write`]; the checkpoints that were there before are intact.
    pub fn save(&mut self, snapshot: &Snapshot) -> Result<(), TrainError> {
        let [new, current, previous] =
            ["checkpoint.new.bin", CURRENT, PREVIOUS].map(|name| self.folder.join(name));
        let write = || {
            write_atomically(&new, &encode(&self.settings, snapshot)?)?;
            match fs::rename(&current, &previous) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fs::rename(&new, &current)?;
            // On Unix the renames are on the disk when the folder is.
            #[cfg(unix)]
            File::open(&self.folder)?.sync_all()?;
            Ok(())
        };
        write().map_err(|source| self.write_error(CURRENT, source))?;
        self.kept = Some(snapshot.steps);
        Ok(())
    }

    /// The metrics file, for going on from a checkpoint.
    pub(super) fn metrics(&self, snapshot: &Snapshot) -> Result<Metrics, TrainError> {
        Metrics::resume(&self.folder, snapshot.steps, snapshot.epoch)
            .map_err(|source| self.write_error(metrics::NAME, source))
    }

    pub(super) fn write_error(&self, name: &str, source: io::Error) -> TrainError {
        TrainError::Write {
            path: self.folder.join(name),
            source,
            kept: self.kept,
        }
    }
}

impl Snapshot {
    /// A state.
    pub fn state(&self, name: &str) -> Option<&[u8]> {
        let found = self.states.iter().find(|(n, _)| n == name);
        found.map(|(_, bytes)| &bytes[..])
    }
}

/// Magic, length of the header, header as JSON, states, SHA-256 of all before.
fn encode(settings: &Value, snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let states = snapshot.states.iter();
    let header = Header {
        format: FORMAT,
        settings: settings.clone(),
        steps: snapshot.steps,
        epoch: snapshot.epoch,
        position: snapshot.position,
        states: states.map(|(n, bytes)| (n.clone(), bytes.len())).collect(),
    };
    let header = serde_json::to_vec(&header)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    for (_, state) in &snapshot.states {
        bytes.extend(state);
    }
    let hash = Sha256::digest(&bytes);
    bytes.extend(hash);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<(Value, Snapshot), String> {
    let cut = || "is cut".to_owned();
    let body = bytes.len().checked_sub(HASH).ok_or_else(cut)?;
    let (body, hash) = bytes.split_at(body);
    let rest = body.strip_prefix(MAGIC).ok_or("is no checkpoint")?;
    if hash[..] != Sha256::digest(body)[..] {
        return Err("is cut or damaged: its checksum is wrong".to_owned());
    }
    let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (header, mut rest) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header: Header = serde_json::from_slice(header).map_err(|e| e.to_string())?;
    if header.format != FORMAT {
        return Err(format!("has format {}, expected {FORMAT}", header.format));
    }
    let mut snapshot = Snapshot {
        steps: header.steps,
        epoch: header.epoch,
        position: header.position,
        states: Vec::new(),
    };
    for (name, length) in header.states {
        let (state, after) = rest.split_at_checked(length).ok_or_else(cut)?;
        snapshot.states.push((name, state.to_vec()));
        rest = after;
    }
    Ok((header.settings, snapshot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn snapshot(steps: u64) -> Snapshot {
        Snapshot {
            steps,
            epoch: 1,
            position: 2,
            states: vec![("a".into(), vec![1, 2, 3]), ("b".into(), vec![])],
        }
    }

    fn open(folder: &Path) -> Run {
        Run::open(folder, json!({"lr": 1, "data": {"n": 2}})).unwrap()
    }

    #[test]
    fn two_generations_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = open(folder.path());
        assert_eq!(run.load().unwrap(), None);
        run.save(&snapshot(5)).unwrap();
        run.save(&snapshot(9)).unwrap();
        assert_eq!(run.load().unwrap(), Some((snapshot(9), None)));
        // The newest is damaged, anywhere: the one before takes its place.
        let current = folder.path().join(CURRENT);
        let whole = fs::read(&current).unwrap();
        for at in [0, 8, 20, whole.len() - 40, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&current, &bytes).unwrap();
            let (found, note) = run.load().unwrap().unwrap();
            assert_eq!(found, snapshot(5));
            assert!(note.unwrap().starts_with(CURRENT));
        }
        fs::write(&current, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(run.load().unwrap().unwrap().0, snapshot(5));
        assert_eq!(run.kept(), Some(5));
        // Killed between the two renames.
        fs::remove_file(&current).unwrap();
        assert_eq!(run.load().unwrap(), Some((snapshot(5), None)));
        fs::write(folder.path().join(PREVIOUS), b"AMPTRAIN").unwrap();
        assert!(
            matches!(run.load(), Err(TrainError::Damaged { reasons, .. }) if reasons.len() == 1)
        );
    }

    #[test]
    fn other_settings_and_a_second_process_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = open(folder.path());
        run.save(&snapshot(5)).unwrap();
        assert!(matches!(
            Run::open(folder.path(), json!({})),
            Err(TrainError::Busy { .. })
        ));
        drop(run);
        let settings = json!({"lr": 1, "data": {"n": 3}});
        let error = Run::open(folder.path(), settings).unwrap().load();
        let text = error.unwrap_err().to_string();
        assert!(text.contains("data.n: expected 3, got 2"), "{text}");
    }
}
