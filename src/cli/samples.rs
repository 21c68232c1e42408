//! Model inputs from pictures and from array files.

use std::path::Path;

use ampoule_quantize::data::{ImageSet, LoadReport, RgbImage};
use ampoule_quantize::graph::{Graph, ValueId};
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::Progress;
use ampoule_runtime::Artifact;
use ampoule_runtime::artifact::{Io, Step};
use ampoule_runtime::preprocess::{Preprocess, PreprocessError};

use super::error::Failure;
use super::npy;
use super::output::note;

/// Inputs held in memory: pictures as the preprocessed pixels, arrays as values.
pub struct Loaded {
    inputs: Inputs,
    labels: Vec<Option<usize>>,
}

enum Inputs {
    Pictures {
        preprocess: Preprocess,
        pixels: Vec<Vec<u8>>,
    },
    Rows(Vec<Vec<f32>>),
}

impl Loaded {
    /// Decodes and resizes the pictures of a set, showing progress. Those that can't be read are
    /// reported and left out.
    pub fn pictures(
        set: &ImageSet,
        preprocess: &Preprocess,
        progress: &dyn Progress,
    ) -> Result<Self, Failure> {
        progress.begin("read", set.entries().len());
        let mut images = set.images();
        let (mut all, mut labels) = (Vec::new(), Vec::new());
        for sample in images.by_ref() {
            let fail = |error| Failure::Picture {
                path: sample.path.to_owned(),
                error,
            };
            all.push(pixels(preprocess, &sample.image).map_err(fail)?);
            labels.push(sample.class.map(|c| c as usize));
            progress.advance(sample.index + 1);
        }
        progress.end();
        note_skipped(images.report());
        images.report().check()?;
        Ok(Loaded {
            inputs: Inputs::Pictures {
                preprocess: *preprocess,
                pixels: all,
            },
            labels,
        })
    }

    /// Reads at most `limit` samples of an array file, in the source's layout or in ours. `ids` is the
    /// number of tokens that the model knows, when its input is token ids.
    pub fn rows(
        path: &Path,
        stored: &[usize],
        layout: &[usize],
        ids: Option<usize>,
        limit: usize,
    ) -> Result<Self, Failure> {
        let rows = read_rows(path, stored, layout, ids, limit)?;
        let labels = vec![None; rows.len()];
        Ok(Loaded {
            inputs: Inputs::Rows(rows),
            labels,
        })
    }

    /// Forgets the labels.
    pub fn without_labels(mut self) -> Self {
        self.labels.fill(None);
        self
    }
}

impl Samples for Loaded {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn sample(&self, index: usize) -> Result<Vec<Vec<f32>>, String> {
        let missing = || format!("no sample {index}");
        match &self.inputs {
            Inputs::Rows(rows) => rows.get(index).map(|r| vec![r.clone()]).ok_or_else(missing),
            Inputs::Pictures { preprocess, pixels } => {
                let pixels = pixels.get(index).ok_or_else(missing)?;
                let mut values = vec![0.0; pixels.len()];
                preprocess
                    .normalize_into(pixels, &mut values)
                    .map_err(|e| e.to_string())?;
                Ok(vec![values])
            }
        }
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index).copied().flatten()
    }
}

/// At most `limit` samples of an array file, as [`Loaded::rows`] takes them.
pub fn read_rows(
    path: &Path,
    stored: &[usize],
    layout: &[usize],
    ids: Option<usize>,
    limit: usize,
) -> Result<Vec<Vec<f32>>, Failure> {
    let rows = npy::samples(&npy::read(path)?, stored, layout, limit);
    let checked = rows.and_then(|rows| match ids {
        Some(known) => npy::check_ids(&rows, known).map(|()| rows),
        None => Ok(rows),
    });
    checked.map_err(|what| Failure::Npy {
        path: path.to_owned(),
        what,
    })
}

/// Number of tokens that a model knows, when its input is token ids.
pub fn known_ids(graph: &Graph, input: ValueId) -> Option<usize> {
    let is_index = graph.value(input).is_index;
    is_index.then(|| graph.index_limit(input))
}

/// Number of tokens that an artifact knows, when its first input is token ids that a table is read with.
pub fn known_ids_of(artifact: &Artifact<'_>) -> Option<usize> {
    let input = artifact.inputs().next()?.id;
    let tables = artifact.steps().filter_map(|step| match step {
        Step::Gather {
            x, indices, axis, ..
        } if indices == input => {
            let table = artifact.tensor(x).ok()?;
            table.shape.dims().get(usize::from(axis)).copied()
        }
        _ => None,
    });
    tables.min().map(|n| n as usize)
}

/// Shape of an artifact's first input, as stored, and where the source's dimensions are in it.
pub fn input_layout(artifact: &Artifact<'_>) -> Result<(Vec<usize>, Vec<usize>), Failure> {
    let input = artifact
        .inputs()
        .next()
        .ok_or(ampoule_runtime::Error::NoSuchIo)?;
    Ok(dimensions(&input))
}

/// Shape of an input or output, as stored, and where the source's dimensions are in it.
pub fn dimensions(io: &Io<'_>) -> (Vec<usize>, Vec<usize>) {
    let dims = io.tensor.shape.dims();
    let layout = io.layout[..dims.len()].iter();
    (
        dims.iter().map(|&d| d as usize).collect(),
        layout.map(|&d| usize::from(d)).collect(),
    )
}

/// The picture at the model's size.
pub fn pixels(preprocess: &Preprocess, image: &RgbImage) -> Result<Vec<u8>, PreprocessError> {
    let mut scratch = vec![0; preprocess.scratch_bytes(image.width(), image.height())?];
    let mut out = vec![0; preprocess.output_len()];
    preprocess.run_u8(&image.view()?, &mut scratch, &mut out)?;
    Ok(out)
}

/// Names the pictures that were left out.
pub fn note_skipped(report: &LoadReport) {
    for skipped in &report.skipped {
        note(&format!("warning: left out: {}", skipped.reason));
    }
}
