//! Which class an image belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::listing::unreadable;
use super::{DataError, csv};

/// The name of a label file.
const LABEL_FILE: &str = "labels.csv";

/// Labels of a list of images.
#[derive(Default)]
pub(super) struct Labels {
    /// Per image.
    pub classes: Vec<Option<u32>>,
    /// Names of the classes, where known.
    pub names: BTreeMap<u32, String>,
    /// Whether classes are the sub-folders in sorted order, which nothing else says.
    pub in_folder_order: bool,
    /// Rows of the label file whose image is not there.
    pub rows_without_file: usize,
}

/// Labels from `labels.csv` in the folder or beside it, or else from the names of the sub-folders.
/// `list` holds the class names in order; empty when there is no such list.
pub(super) fn find(root: &Path, images: &[PathBuf], list: &[String]) -> Result<Labels, DataError> {
    let inside = root.join(LABEL_FILE);
    if inside.is_file() {
        return from_file(&inside, images, list);
    }
    if let Some(beside) = root
        .parent()
        .map(|p| p.join(LABEL_FILE))
        .filter(|p| p.is_file())
    {
        let labels = from_file(&beside, images, list)?;
        if labels.classes.iter().any(Option::is_some) {
            return Ok(labels); // otherwise it speaks of other images
        }
    }
    from_folders(images, list)
}

/// Labels from the columns `file` and `class`; a column `label` names the classes. A file is given by
/// its path in the folder or by its name alone.
fn from_file(path: &Path, images: &[PathBuf], list: &[String]) -> Result<Labels, DataError> {
    let text = fs::read(path).map_err(unreadable(path))?;
    let rows = csv::parse(&String::from_utf8_lossy(&text));
    let columns = Columns::of(path, &rows)?;
    let mut labels = Labels {
        classes: vec![None; images.len()],
        ..Labels::default()
    };
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, image) in images.iter().enumerate() {
        let name = |p: &Path| p.to_string_lossy().replace('\\', "/");
        by_name.entry(name(image)).or_default().push(i);
        if let Some(file) = image.file_name().map(Path::new).filter(|f| *f != image) {
            by_name.entry(name(file)).or_default().push(i);
        }
    }
    for row in rows.iter().skip(1) {
        let class = columns.class(path, row, list)?;
        if let Some(name) = columns.label.and_then(|c| row.fields.get(c)) {
            labels.names.insert(class, name.clone());
        }
        let file = row
            .fields
            .get(columns.file)
            .map_or("", |f| f.trim())
            .trim_start_matches("./");
        match by_name.get(file) {
            Some(found) => found.iter().for_each(|&i| labels.classes[i] = Some(class)),
            None => labels.rows_without_file += 1,
        }
    }
    add_listed(&mut labels.names, list);
    Ok(labels)
}

/// Where the columns of a label file are.
struct Columns {
    file: usize,
    class: usize,
    label: Option<usize>,
}

impl Columns {
    fn of(path: &Path, rows: &[csv::Row]) -> Result<Columns, DataError> {
        let header = rows
            .first()
            .map(|r| r.fields.as_slice())
            .unwrap_or_default();
        let find = |name: &str| {
            header
                .iter()
                .position(|f| f.trim().eq_ignore_ascii_case(name))
        };
        let need = |name: &str| {
            find(name).ok_or_else(|| DataError::Labels {
                path: path.to_owned(),
                line: 1,
                expected: format!("a header with a column `{name}`"),
                got: header.join(","),
            })
        };
        Ok(Columns {
            file: need("file")?,
            class: need("class")?,
            label: find("label"),
        })
    }

    /// The class of a row: a number, or a name of the list.
    fn class(&self, path: &Path, row: &csv::Row, list: &[String]) -> Result<u32, DataError> {
        let text = row.fields.get(self.class).map_or("", |f| f.trim());
        text.parse()
            .ok()
            .or_else(|| position(list, text))
            .ok_or_else(|| DataError::Labels {
                path: path.to_owned(),
                line: row.line,
                expected: "a class number or a name of the label list".to_owned(),
                got: text.to_owned(),
            })
    }
}

/// Labels from the first component of the paths. With a list, folders are named like its entries or
/// their numbers; without, folders named by numbers have those, and others count in sorted order. A
/// single folder without a list says nothing.
fn from_folders(images: &[PathBuf], list: &[String]) -> Result<Labels, DataError> {
    let folder = |image: &Path| {
        let mut parts = image.iter();
        let first = parts.next()?.to_string_lossy().into_owned();
        parts.next().map(|_| first)
    };
    let folders: BTreeSet<String> = images.iter().filter_map(|i| folder(i)).collect();
    let mut labels = Labels {
        classes: vec![None; images.len()],
        ..Labels::default()
    };
    if folders.is_empty() || (list.is_empty() && folders.len() == 1) {
        add_listed(&mut labels.names, list);
        return Ok(labels);
    }
    let numbered = folders.iter().all(|f| f.parse::<u32>().is_ok());
    labels.in_folder_order = list.is_empty() && !numbered;
    let mut class_of = HashMap::new();
    for (i, name) in folders.iter().enumerate() {
        let class = if !list.is_empty() {
            listed(name, list)?
        } else if numbered {
            name.parse().unwrap_or_default()
        } else {
            i as u32
        };
        labels.names.entry(class).or_insert_with(|| name.clone());
        class_of.insert(name.as_str(), class);
    }
    for (class, image) in labels.classes.iter_mut().zip(images) {
        *class = folder(image).and_then(|f| class_of.get(f.as_str()).copied());
    }
    add_listed(&mut labels.names, list);
    Ok(labels)
}

/// The class that a folder name stands for.
fn listed(folder: &str, list: &[String]) -> Result<u32, DataError> {
    let number = folder
        .parse()
        .ok()
        .filter(|&n: &u32| (n as usize) < list.len());
    position(list, folder)
        .or(number)
        .ok_or_else(|| DataError::UnknownClass {
            folder: folder.to_owned(),
            classes: list.len(),
        })
}

/// Position of a name in the list: exact, or else without regard to case.
fn position(list: &[String], name: &str) -> Option<u32> {
    let exact = list.iter().position(|n| n == name);
    let found = exact.or_else(|| {
        list.iter()
            .position(|n| n.to_lowercase() == name.to_lowercase())
    });
    found.and_then(|i| u32::try_from(i).ok())
}

fn add_listed(names: &mut BTreeMap<u32, String>, list: &[String]) {
    for (class, name) in (0..).zip(list) {
        names.insert(class, name.clone());
    }
}
