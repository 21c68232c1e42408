//! Which pictures have which texts.

use std::collections::HashMap;

use crate::data::{Dataset, Sample};
use crate::train::TrainError;

/// The texts of a set's pictures, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captions {
    /// All different texts, in the order in which they first come.
    pub texts: Vec<String>,
    /// Per sample its texts; the first is its name.
    pub of_sample: Vec<Vec<usize>>,
    /// Per sample a number that samples share whose first texts are equal: what it shows.
    pub group: Vec<usize>,
    /// Per group its first text.
    pub names: Vec<usize>,
}

impl Captions {
    /// The texts of a set.
    ///
    /// # Errors
    ///
    /// [`TrainError::Pairs`] when a sample has none, or a picture is not there.
    pub fn of(data: &Dataset) -> Result<Self, TrainError> {
        check_captions(data)?;
        let mut captions = Captions::default();
        let (mut texts, mut groups) = (HashMap::new(), HashMap::new());
        for sample in data.samples() {
            let mut number = |text: &String| {
                *texts.entry(text.clone()).or_insert_with(|| {
                    captions.texts.push(text.clone());
                    captions.texts.len() - 1
                })
            };
            let numbers: Vec<usize> = sample.captions.iter().map(&mut number).collect();
            let group = *groups.entry(numbers[0]).or_insert_with(|| {
                captions.names.push(numbers[0]);
                captions.names.len() - 1
            });
            captions.of_sample.push(numbers);
            captions.group.push(group);
        }
        Ok(captions)
    }
}

/// Fails when a picture has no text, or a text no picture.
///
/// # Errors
///
/// [`TrainError::Pairs`] with the first few.
pub fn check_captions(data: &Dataset) -> Result<(), TrainError> {
    let bare =
        |s: &&Sample| s.captions.is_empty() || s.captions.iter().any(|c| c.trim().is_empty());
    let hint = "every line needs `path`, and `caption` or `captions`";
    check(data, "pictures have no caption", hint, bare)?;
    let hint = "paths are relative to the list, or to --images";
    check(data, "captions have no picture", hint, |s| {
        !s.path.is_file()
    })
}

fn check(
    data: &Dataset,
    what: &'static str,
    hint: &'static str,
    is_wrong: impl Fn(&&Sample) -> bool,
) -> Result<(), TrainError> {
    let wrong: Vec<&Sample> = data.samples().iter().filter(is_wrong).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(TrainError::Pairs {
        what,
        count: wrong.len(),
        total: data.len(),
        examples: wrong.iter().take(3).map(|s| s.name.clone()).collect(),
        hint,
    })
}
