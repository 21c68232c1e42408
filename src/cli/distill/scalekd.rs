//! Learning a teacher's maps beside its answers.

use ampoule::distill::scalekd::{self, Features, Parts};
use ampoule::distill::train::TrainError;
use ampoule::distill::train::classify::Mimicry;
use ampoule_distill_kernels::graph::Graph;
use clap::{Args, ValueEnum};

use super::Distill;
use super::lesson::Known;
use super::student::Student;
use crate::cli::error::Failure;

/// Which parts of ScaleKD are used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Maps of the teacher")]
pub struct ScaleKdArgs {
    /// Learn the maps of the last two stages of the one --teacher, too (ScaleKD): with all parts, or those given
    #[arg(
        long,
        value_name = "PART,…",
        value_enum,
        value_delimiter = ',',
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "projector,second-view,teacher-stage",
        requires = "teachers",
        conflicts_with_all = ["pairs", "qat", "attention_sparsity", "layer_decay"],
    )]
    pub scalekd: Option<Vec<Part>>,
    /// Factor of all comparisons of maps
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", requires = "scalekd", value_parser = super::rate)]
    pub scalekd_weight: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Cross-attention projectors, whose maps are compared as they are
    Projector,
    /// Maps are compared without each channel's mean, too
    SecondView,
    /// Projected maps run through the teacher's own last stage
    TeacherStage,
}

impl ScaleKdArgs {
    /// What is asked for; nothing without the option.
    pub fn parts(&self) -> Option<Parts> {
        let given = self.scalekd.as_ref()?;
        Some(Parts {
            second_view: given.contains(&Part::SecondView),
            teacher_stage: given.contains(&Part::TeacherStage),
            weight: f64::from(self.scalekd_weight),
        })
    }
}

/// What is trained: the student's own graph and first parameters, or these with what is added to learn maps.
pub struct Trained {
    pub graph: Graph,
    pub first: Vec<Vec<f32>>,
    pub mimicry: Option<Mimicry>,
}

impl Trained {
    /// For a student whose lesson is known.
    pub fn new(args: &Distill, student: &Student, known: &Known) -> Result<Self, Failure> {
        let (graph, first) = (student.graph.clone(), student.first.clone());
        let Some(parts) = args.maps.parts() else {
            return Ok(Trained {
                graph,
                first,
                mimicry: None,
            });
        };
        let teachers = known.teachers.iter().flat_map(|panel| panel.teachers());
        let teachers: Vec<_> = teachers.collect();
        let [teacher] = teachers[..] else {
            let what = "--scalekd learns the maps of one --teacher; give one";
            return Err(Failure::Usage(what.to_owned()));
        };
        let preprocess = *teacher.preprocess();
        let features = Features::load(teacher.path(), preprocess, args.threads());
        let features = features.map_err(TrainError::from)?;
        let extended = scalekd::extend(&graph, first, &features, &parts, args.recipe.seed);
        let extended = extended.map_err(TrainError::from)?;
        Ok(Trained {
            graph: extended.graph,
            first: extended.first,
            mimicry: Some(Mimicry {
                teacher: features,
                comparisons: extended.comparisons,
                parts,
            }),
        })
    }
}
