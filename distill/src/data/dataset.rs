//! Pictures with classes and captions, from a folder or a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ampoule_quantize::data::{DataError, ImageSet, csv};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::DatasetError;

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its path below the folder or list, with `/` between the parts: the same on every machine.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its class, where known.
    pub class: Option<u32>,
    /// What it shows, in words.
    pub captions: Vec<String>,
}

/// Pictures in a fixed order.
#[derive(Debug, Clone)]
pub struct Dataset {
    samples: Vec<Sample>,
    class_names: BTreeMap<u32, String>,
}

impl Dataset {
    /// The pictures in a folder and below, in the order of their paths, or those of a list, in its
    /// order.
    ///
    /// A folder has a sub-folder per class, or a `labels.csv`, as [`ImageSet::open`] reads them. A list
    /// is a `.csv` file with the columns `path` and, where there are any, `label` and `caption`, or a
    /// `.jsonl` file with one object a line: `path`, `label` (a number or a name), `caption` or
    /// `captions`. `file` and `class` are understood for `path` and `label`. Paths are relative to the list. Labels that are not all numbers are numbered in
    /// sorted order.
    ///
    /// # Errors
    ///
    /// [`DatasetError`] when there is nothing, or the list is not understood.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|e| e.to_str());
        let extension = extension.map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("csv") if path.is_file() => Self::from_rows(path, read_csv(path)?),
            Some("jsonl") if path.is_file() => Self::from_rows(path, read_jsonl(path)?),
            _ => Self::from_folder(path),
        }
    }

    /// The pictures of a list (`.csv` or `.jsonl`, as [`Dataset::open`] reads it), whose paths are relative to
    /// `folder`.
    ///
    /// # Errors
    ///
    /// [`DatasetError`] when there is nothing, or the list is not understood.
    pub fn list_in(list: impl AsRef<Path>, folder: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let mut data = Self::open(list)?;
        for sample in &mut data.samples {
            sample.path = folder.as_ref().join(&sample.name);
        }
        Ok(data)
    }

    /// The samples whose numbers `keep` wants.
    pub fn subset(&self, keep: impl Fn(usize) -> bool) -> Self {
        let kept = self.samples.iter().enumerate().filter(|(i, _)| keep(*i));
        Dataset {
            samples: kept.map(|(_, sample)| sample.clone()).collect(),
            class_names: self.class_names.clone(),
        }
    }

    fn from_folder(path: &Path) -> Result<Self, DatasetError> {
        let set = ImageSet::open(path)?;
        let root = match path.is_file() {
            true => path.parent().unwrap_or(Path::new("")),
            false => path,
        };
        let sample = |entry: &ampoule_quantize::data::Entry| Sample {
            name: portable(entry.path.strip_prefix(root).unwrap_or(&entry.path)),
            path: entry.path.clone(),
            class: entry.class,
            captions: Vec::new(),
        };
        Ok(Dataset {
            samples: set.entries().iter().map(sample).collect(),
            class_names: set.class_names().clone(),
        })
    }

    fn from_rows(list: &Path, rows: Vec<Row>) -> Result<Self, DatasetError> {
        if rows.is_empty() {
            return Err(DatasetError::Empty(list.to_owned()));
        }
        let folder = list.parent().unwrap_or(Path::new(""));
        let labels: BTreeSet<&str> = rows.iter().filter_map(|r| r.label.as_deref()).collect();
        let numbered = labels.iter().all(|l| l.parse::<u32>().is_ok());
        let class = |label: &str| match numbered {
            true => label.parse().ok(),
            false => labels.range(..label).count().try_into().ok(),
        };
        let named = labels.iter().filter(|_| !numbered).map(|l| l.to_string());
        let class_names = (0..).zip(named).collect();
        let samples = rows
            .iter()
            .map(|row| Sample {
                name: portable(Path::new(&row.path)),
                path: folder.join(&row.path),
                class: row.label.as_deref().and_then(class),
                captions: row.captions.clone(),
            })
            .collect();
        Ok(Dataset {
            samples,
            class_names,
        })
    }

    /// The samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// How many samples there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Names of the classes, where known.
    pub fn class_names(&self) -> &BTreeMap<u32, String> {
        &self.class_names
    }

    /// SHA-256 of the names in order, a line each, in hexadecimal: says whether two sets are the same.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for sample in &self.samples {
            hash.update(sample.name.as_bytes());
            hash.update(b"\n");
        }
        crate::hex(&hash.finalize())
    }

    /// Fails when a sample has a class that a model of `classes` classes does not have.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Class`] with the first.
    pub fn check_classes(&self, classes: usize) -> Result<(), DatasetError> {
        let wrong = |s: &&Sample| s.class.is_some_and(|c| c as usize >= classes);
        match self.samples.iter().find(wrong) {
            Some(sample) => Err(DatasetError::Class {
                name: sample.name.clone(),
                class: sample.class.unwrap_or_default(),
                classes,
            }),
            None => Ok(()),
        }
    }

    /// Fails when a class has another name in another set, as when one of them lacks a folder.
    ///
    /// # Errors
    ///
    /// [`DatasetError::ClassNames`] with the first.
    pub fn check_names(&self, other: &Dataset) -> Result<(), DatasetError> {
        let differs = |class: &&u32| self.class_names.get(class) != other.class_names.get(class);
        let name = |set: &Dataset, class: u32| set.class_names.get(&class).cloned();
        match other.class_names.keys().find(differs) {
            Some(&class) => Err(DatasetError::ClassNames {
                class,
                expected: name(self, class).unwrap_or_default(),
                got: name(other, class).unwrap_or_default(),
            }),
            None => Ok(()),
        }
    }
}

/// A line of a list.
struct Row {
    path: String,
    label: Option<String>,
    captions: Vec<String>,
}

fn read_text(path: &Path) -> Result<String, DatasetError> {
    let bytes = fs::read(path).map_err(|source| DataError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_csv(path: &Path) -> Result<Vec<Row>, DatasetError> {
    let rows = csv::parse(&read_text(path)?);
    let header: &[String] = rows.first().map_or(&[], |r| &r.fields);
    // The first of the names that is there; `file` and `class` are those of a `labels.csv`.
    let column = |names: [&str; 2]| {
        let position = |name: &str| {
            let is = |f: &String| f.trim().eq_ignore_ascii_case(name);
            header.iter().position(is)
        };
        names.into_iter().find_map(position)
    };
    let file = column(["path", "file"]).ok_or_else(|| DatasetError::List {
        path: path.to_owned(),
        line: 1,
        expected: "a header with a column `path`",
        got: header.join(","),
    })?;
    let (label, caption) = (column(["class", "label"]), column(["caption", "captions"]));
    let row = |row: &csv::Row| {
        let field = |c: usize| row.fields.get(c).map(|f| f.trim().to_owned());
        let given = |c: Option<usize>| c.and_then(field).filter(|f| !f.is_empty());
        Ok(Row {
            path: given(Some(file)).ok_or_else(|| DatasetError::List {
                path: path.to_owned(),
                line: row.line,
                expected: "a path",
                got: row.fields.join(","),
            })?,
            label: given(label),
            captions: given(caption).into_iter().collect(),
        })
    };
    rows.iter().skip(1).map(row).collect()
}

/// A line of a JSON list.
#[derive(Deserialize)]
struct Line {
    #[serde(alias = "file")]
    path: String,
    #[serde(alias = "class")]
    label: Option<Label>,
    caption: Option<String>,
    #[serde(default)]
    captions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Number(u32),
    Name(String),
}

fn read_jsonl(path: &Path) -> Result<Vec<Row>, DatasetError> {
    let text = read_text(path)?;
    let lines = text.lines().enumerate();
    let row = |(number, line): (usize, &str)| {
        let parsed: Line = serde_json::from_str(line).map_err(|e| DatasetError::List {
            path: path.to_owned(),
            line: number + 1,
            expected: "an object with `path`, and `label`, `caption` or `captions` where there are any",
            got: e.to_string(),
        })?;
        let captions = parsed.caption.into_iter().chain(parsed.captions);
        Ok(Row {
            path: parsed.path,
            label: parsed.label.map(|label| match label {
                Label::Number(n) => n.to_string(),
                Label::Name(name) => name,
            }),
            captions: captions.collect(),
        })
    };
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(row)
        .collect()
}

fn portable(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
