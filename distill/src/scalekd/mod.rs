//! ScaleKD (Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", 2024): a student of any
//! kind learns the maps of a teacher's last two stages.
//!
//! A *cross-attention projector* asks the student's map for each place of the teacher's (section 3.1); what it
//! answers is compared with the teacher's map as it is and without each channel's mean (section 3.2, see
//! [`View`]), each by a projector of its own. What is projected from the student's last stage but one can also
//! run through the teacher's own frozen last stage (section 3.3): the result is compared with the teacher's
//! last map, and asks the student's last stage instead of learnt queries.
//!
//! All of it is added behind the student's own layers and parameters, which keep their places, so that cutting
//! it off again leaves the plain student. The stages of teacher and student are found by [`stages`]; their maps
//! may differ in size and width.

mod features;
mod projector;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ampoule_distill_kernels::graph::{Graph, GraphError, Value};
use ampoule_runtime::preprocess::PreprocessError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::import::StudentError;
pub use crate::loss::View;
use crate::loss::{LossError, mimicking};
use crate::zoo::builder::Builder;
use crate::zoo::{Role, Weights};
pub use features::Features;
pub use stages::stages;

/// In front of the names of everything that is added to a student.
pub const PREFIX: &str = "scalekd.";

/// In front of the names of the teacher's own parameters; training must not change them.
pub const FROZEN: &str = "scalekd.teacher.";

/// Which parts of the method are used, and how much they count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Whether maps are also compared without the mean of each channel.
    pub second_view: bool,
    /// Whether projected maps run through the teacher's last stage.
    pub teacher_stage: bool,
    /// Factor of all comparisons, whose own weights are the paper's 0.08 and 0.06.
    pub weight: f64,
}

impl Parts {
    fn views(&self) -> &'static [View] {
        match self.second_view {
            true => &[View::Direct, View::Alternative],
            false => &[View::Direct],
        }
    }
}

/// What can go wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScaleKdError {
    /// The teacher's file can't be read as a training graph.
    #[error(transparent)]
    Teacher(#[from] StudentError),
    /// A network has no two stages.
    #[error(
        "the {whose} has no maps of two sizes, as networks with stages have; expected such a {whose}, as an EfficientNet, TinyViT or MOAT"
    )]
    Stages {
        /// Teacher or student.
        whose: &'static str,
    },
    /// Layers that do not fit.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The teacher's graph can't be run.
    #[error(transparent)]
    Engine(#[from] ampoule_distill_kernels::engine::EngineError),
    /// Pictures that can't be prepared for the teacher.
    #[error("can't prepare a picture for the teacher: {0}")]
    Preprocess(#[from] PreprocessError),
    /// Maps that are not compared as they were planned.
    #[error(transparent)]
    Loss(#[from] LossError),
}

/// A student with everything that is added to it.
#[derive(Debug, Clone)]
pub struct Extended {
    /// The student's layers, then the others. The first output is the student's, the others are compared.
    pub graph: Graph,
    /// First parameters: the student's, then the others'.
    pub first: Vec<Vec<f32>>,
    /// What each output but the first is compared with.
    pub comparisons: Vec<Comparison>,
}

/// An output that should be like a map of the teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub view: View,
    /// Which map: 0 for the last stage but one, 1 for the last.
    pub stage: usize,
    /// Its size: pixels and channels.
    pub shape: [usize; 2],
}

/// Adds projectors, and the teacher's last stage where it is asked for, to a student with its first parameters.
/// Equal seeds give equal first parameters.
///
/// # Errors
///
/// [`ScaleKdError::Stages`] for a student without two stages.
pub fn extend(
    student: &Graph,
    mut first: Vec<Vec<f32>>,
    teacher: &Features,
    parts: &Parts,
    seed: u64,
) -> Result<Extended, ScaleKdError> {
    let whose = "student";
    let own = stages(student).ok_or(ScaleKdError::Stages { whose })?;
    let mut net = Builder {
        graph: student.clone(),
        ..Builder::default()
    };
    let count = student.parameters().len();
    let (mut known, mut masks) = (HashMap::new(), Vec::new());
    let mut comparisons = Vec::new();
    let maps = teacher.maps();
    for &view in parts.views() {
        let name = |stage: &str| {
            let view = match view {
                View::Direct => "direct",
                View::Alternative => "alternative",
            };
            format!("{PREFIX}{view}.{stage}")
        };
        let mut compare = |net: &mut Builder, value: Value, stage: usize| {
            net.graph.output(value);
            comparisons.push(Comparison {
                view,
                stage,
                shape: [maps[stage].pixels(), maps[stage].channels],
            });
        };
        let middle = projector::add(&mut net, own[0], None, maps[0], &name("middle"), &mut masks)?;
        compare(&mut net, middle, 0);
        let mut query = None;
        if parts.teacher_stage {
            let stage = teacher.last_stage();
            let through =
                net.graph
                    .append_between(&stage.graph, stage.ends, middle, FROZEN, &mut known)?;
            // The teacher's parameters are copied below, not drawn.
            let added = net.graph.parameters().len() - count;
            net.roles.resize(added, Role::Bias);
            compare(&mut net, through, 1);
            query = Some(through);
        }
        let last = projector::add(&mut net, own[1], query, maps[1], &name("last"), &mut masks)?;
        compare(&mut net, last, 1);
    }
    let added = &net.graph.parameters()[count..];
    first.extend(Weights::initial_values(added, &net.roles, seed));
    for (theirs, own) in known {
        first[own.0].clone_from(&teacher.weights()[theirs.0]);
    }
    for (own, mask) in masks {
        first[own.0] = mask;
    }
    Ok(Extended {
        graph: net.graph,
        first,
        comparisons,
    })
}

/// Sum of the weighted comparisons of a batch, whose gradients are added to `gradients`. Outputs and gradients are
/// those of [`Extended::graph`] without the first.
///
/// # Errors
///
/// [`ScaleKdError::Loss`] when maps have other lengths.
pub fn compare(
    comparisons: &[Comparison],
    parts: &Parts,
    batch: usize,
    outputs: &[&[f32]],
    teacher: &[Vec<f32>; 2],
    gradients: &mut [Vec<f32>],
) -> Result<f64, LossError> {
    let mut total = 0.0;
    let mut own = Vec::new();
    for ((c, output), gradient) in comparisons.iter().zip(outputs).zip(gradients) {
        own.clear();
        own.resize(output.len(), 0.0);
        let [pixels, channels] = c.shape;
        let shape = [batch, pixels, channels];
        let loss = mimicking(c.view, shape, output, &teacher[c.stage], &mut own)?;
        let weight = parts.weight * c.view.weight();
        total += weight * loss;
        let pairs = gradient.iter_mut().zip(&own);
        pairs.for_each(|(g, own)| *g += weight as f32 * own);
    }
    Ok(total)
}
