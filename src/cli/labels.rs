//! Class labels from a text file, one a line, or from a table with columns `class` and `label`.

use std::path::Path;

use ampoule_quantize::data::ImageSet;

use super::error::Failure;
use super::output::note;

/// Folders that a note names.
const SHOWN: usize = 4;

/// Reads labels in class order.
pub fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let bytes = std::fs::read(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    let unfit = |what: String| Failure::Unfit {
        path: path.to_owned(),
        what,
        hint: "one label a line, or a .csv with a header and the columns `class` and `label`",
    };
    let text = String::from_utf8(bytes).map_err(|_| unfit("is not UTF-8 text".to_owned()))?;
    let labels = match path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("csv"))
    {
        true => table(&text).map_err(unfit)?,
        false => text.lines().map(|l| l.trim().to_owned()).collect(),
    };
    match labels.is_empty() {
        true => Err(unfit("has no labels".to_owned())),
        false => Ok(labels),
    }
}

/// Fails unless there is a label for every class: with any other number some name the wrong class.
pub fn check_count(path: &Path, labels: usize, classes: usize) -> Result<(), Failure> {
    match labels == classes {
        true => Ok(()),
        false => Err(Failure::Unfit {
            path: path.to_owned(),
            what: format!("has {labels} labels, but the model has {classes} classes"),
            hint: "one label per class, in the model's order; some models start with `background`",
        }),
    }
}

/// Whether the folders of a labelled set are the model's classes, and says so where their order decides: folders
/// that nothing numbers are classes only where there are as many as the model has.
pub fn folders_are_classes(set: &ImageSet, classes: usize) -> bool {
    if !set.in_folder_order() {
        return true;
    }
    let folders: Vec<&str> = set.class_names().values().map(String::as_str).collect();
    if folders.len() != classes {
        note(&format!(
            "note: no accuracy: {} folders named otherwise than by number, and the model has {classes} classes; give --labels",
            folders.len()
        ));
        return false;
    }
    assume_order(&folders);
    true
}

/// Says which folder is taken for which class.
pub fn assume_order(folders: &[&str]) {
    let shown = folders.len().min(SHOWN);
    let more = if folders.len() > SHOWN { ", …" } else { "" };
    note(&format!(
        "assuming: the classes are the folders in alphabetical order ({}{more}); give --labels to choose",
        folders[..shown].join(", ")
    ));
}

/// Labels of a table; without a column `class` the rows are in class order.
fn table(text: &str) -> Result<Vec<String>, String> {
    let mut lines = text.lines();
    let header = fields(lines.next().unwrap_or_default());
    let column = |name: &str| {
        header
            .iter()
            .position(|h| h.trim().eq_ignore_ascii_case(name))
    };
    let label = column("label").ok_or("has no column `label`")?;
    let class = column("class");
    let mut labels: Vec<String> = Vec::new();
    for (row, line) in lines.filter(|l| !l.trim().is_empty()).enumerate() {
        let fields = fields(line);
        let number = match class {
            Some(c) => fields
                .get(c)
                .and_then(|f| f.trim().parse().ok())
                .filter(|&n: &usize| n < 1 << 16),
            None => Some(row),
        };
        let number = number.ok_or_else(|| format!("has no class number in row {}", row + 2))?;
        if labels.len() <= number {
            labels.resize(number + 1, String::new());
        }
        labels[number] = fields
            .get(label)
            .map(|f| f.trim().to_owned())
            .unwrap_or_default();
    }
    Ok(labels)
}

/// Fields of a line; quotes may enclose commas and doubled quotes.
fn fields(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = out.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                out[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => out[last].push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_by_hand() {
        let text = "file,class,label\nb.jpg,1,\"dog, \"\"big\"\"\"\na.jpg,0,cat\n";
        assert_eq!(table(text).unwrap(), ["cat", "dog, \"big\""]);
        assert_eq!(table("label\nx\ny\n").unwrap(), ["x", "y"]);
        assert!(table("name\nx\n").is_err() && table("class,label\n?,x\n").is_err());
    }
}
