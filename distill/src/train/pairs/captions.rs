//! Which pictures have which texts.

use std::collections::HashMap;

use crate::data::Dataset;
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
    /// [`TrainError::Nothing`] when a sample has none.
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

/// Fails when a picture has no text.
///
/// # Errors
///
/// [`TrainError::Nothing`] with the first few.
pub fn check_captions(data: &Dataset) -> Result<(), TrainError> {
    let bare = |captions: &[String]| captions.iter().all(|c| c.trim().is_empty());
    let without = data.samples().iter().filter(|s| bare(&s.captions));
    let names: Vec<&str> = without.map(|s| s.name.as_str()).collect();
    match names[..] {
        [] => Ok(()),
        [..] => Err(TrainError::Nothing(format!(
            "{} of {} pictures have no caption, such as `{}`; every line needs `path` and `caption` or `captions`",
            names.len(),
            data.len(),
            names[..names.len().min(3)].join("`, `"),
        ))),
    }
}
