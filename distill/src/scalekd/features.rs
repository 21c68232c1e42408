//! A teacher's maps.

use std::collections::HashMap;
use std::path::Path;

use ampoule_distill_kernels::engine::{Engine, Mode};
use ampoule_distill_kernels::graph::{Graph, Map, Value};
use ampoule_runtime::preprocess::Preprocess;

use super::{ScaleKdError, stages};
use crate::{data, import};

/// A teacher that shows the maps of its last two stages, read from an ONNX file whose layers training knows up to
/// its last map.
pub struct Features {
    /// From the picture to both maps, which are its outputs.
    engine: Engine,
    weights: Vec<Vec<f32>>,
    stage: Stage,
    preprocess: Preprocess,
}

/// A stage in a graph.
pub(super) struct Stage {
    pub graph: Graph,
    /// What it reads and what it gives.
    pub ends: [Value; 2],
}

impl Features {
    /// Reads a teacher. `preprocess` makes its inputs of pictures.
    ///
    /// # Errors
    ///
    /// [`ScaleKdError`] when training does not have its layers, or it has no two stages.
    pub fn load(path: &Path, preprocess: Preprocess, threads: usize) -> Result<Self, ScaleKdError> {
        let (whole, weights) = import::maps(path)?;
        let whose = "teacher";
        let found = stages(&whole).zip(whole.inputs().first().copied());
        let ([before, last], input) = found.ok_or(ScaleKdError::Stages { whose })?;
        let mut graph = Graph::new();
        let picture = graph.input(whole.map(input));
        let mut known = HashMap::new();
        let middle = graph.append_between(&whole, [input, before], picture, "", &mut known)?;
        let end = graph.append_between(&whole, [before, last], middle, "", &mut known)?;
        graph.output(middle);
        graph.output(end);
        let mut used = vec![Vec::new(); graph.parameters().len()];
        for (theirs, own) in known {
            used[own.0].clone_from(&weights[theirs.0]);
        }
        let stage = Stage {
            graph: graph.clone(),
            ends: [middle, end],
        };
        Ok(Features {
            engine: Engine::new(graph, threads)?,
            weights: used,
            stage,
            preprocess,
        })
    }

    /// Sizes of the maps of the last stage but one and of the last.
    pub fn maps(&self) -> [Map; 2] {
        self.stage.ends.map(|v| self.stage.graph.map(v))
    }

    /// Its maps of pictures of that width and height: `[pictures, height, width, channels]`.
    ///
    /// # Errors
    ///
    /// [`ScaleKdError`] when the pictures do not fit the teacher's input.
    pub fn see(
        &mut self,
        pictures: &[Vec<u8>],
        size: [u16; 2],
    ) -> Result<[Vec<f32>; 2], ScaleKdError> {
        let mut inputs = Vec::new();
        for pixels in pictures {
            inputs.extend(data::input(pixels, size, &self.preprocess)?);
        }
        let count = pictures.len();
        self.engine
            .forward(&mut self.weights, &[&inputs], count, Mode::EVAL)?;
        Ok([0, 1].map(|i| self.engine.output(i).to_vec()))
    }

    pub(super) fn last_stage(&self) -> &Stage {
        &self.stage
    }

    /// Parameters of the stage's graph.
    pub(super) fn weights(&self) -> &[Vec<f32>] {
        &self.weights
    }
}
