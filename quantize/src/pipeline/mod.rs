//! The whole way from an imported graph to a sealed int8 artifact.

mod golden;
mod migrated;
mod parity;
mod sensitivity;

use std::collections::BTreeMap;

use ampoule_runtime::Artifact;
use ampoule_runtime::preprocess::Preprocess;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::calibrate::{Range, RangeMethod, WeightMethod};
use crate::graph::{Graph, GraphError};
use crate::lower::LowerOptions;
use crate::metrics::classes;
use crate::model::{Compiled, ModelError, compile};
use crate::observe::{ObserveError, Samples, Statistics, observe};
use crate::passes::{self, merge::MergedLayer};
use crate::plan::{PlanOptions, Tiled};
use crate::program::Island;
use crate::scheme::{Scheme, SchemeError, SchemeOptions, WeightSteps, build, from_source};
use crate::seal::{Extras, seal};
pub use parity::{source_shape, to_source, to_stored};
pub use sensitivity::{LayerSensitivity, Quality, SensitivityReport};

/// What [`Meta::range`] says of parameters that the source had already.
pub const FROM_SOURCE: &str = "from the source";

/// Choices of [`quantize`].
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// How activation ranges are chosen.
    pub range: RangeMethod,
    /// How weight scales are chosen.
    pub weights: WeightMethod,
    /// Correct biases for the mean error of quantised weights.
    pub bias_correction: bool,
    /// Equalise channel ranges of neighbouring layers first.
    pub equalise: bool,
    /// Codes that the weights of each layer share, with min-max scales whatever `weights` says; 0 for all.
    pub cluster: usize,
    /// Tokens that merge in each block of a plain vision transformer; 0 for none.
    pub merge: usize,
    /// Largest loss of accuracy in points (or, without labels, of agreement with the float model).
    /// When int8 loses more, the most sensitive layers are widened until it does not.
    pub max_drop: Option<f64>,
    /// Smallest cosine of the angle between the first output and the float model's, over the samples; no
    /// labels needed. When int8 is further off, the most sensitive layers are widened until it is not.
    pub min_cosine: Option<f64>,
    /// Check after every pass, migration and equalisation included, that the graph still computes the
    /// same. Debug builds always do.
    pub verify: bool,
    /// Preprocessing of the first input.
    pub preprocess: Option<Preprocess>,
    /// Class labels.
    pub labels: Vec<String>,
    /// Leave names out of the artifact.
    pub strip_names: bool,
    /// Lowering.
    pub lowering: LowerOptions,
    /// Memory planning.
    pub planning: PlanOptions,
    /// Facts to store beside the toolkit's own, as JSON values.
    pub facts: BTreeMap<String, serde_json::Value>,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        QuantizeOptions {
            range: RangeMethod::default(),
            weights: WeightMethod::default(),
            bias_correction: true,
            equalise: false,
            cluster: 0,
            merge: 0,
            max_drop: None,
            min_cosine: None,
            verify: cfg!(debug_assertions),
            preprocess: None,
            labels: Vec::new(),
            strip_names: false,
            lowering: LowerOptions::default(),
            planning: PlanOptions::default(),
            facts: BTreeMap::new(),
        }
    }
}

/// Told about progress; every method does nothing by default.
pub trait Progress: Sync {
    /// A stage of `total` units begins.
    fn begin(&self, _stage: &str, _total: usize) {}
    /// So many units of the stage are done.
    fn advance(&self, _done: usize) {}
    /// The stage ends.
    fn end(&self) {}
}

/// No progress shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Why quantisation stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A pass broke or found a broken graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A pass changed what the graph computes.
    #[error(
        "pass `{pass}` changed output `{output}` by {difference:.2e} relative to its largest value"
    )]
    Parity {
        /// Pass.
        pass: String,
        /// Graph output.
        output: String,
        /// Largest difference over the largest magnitude.
        difference: f64,
    },
    /// Tokens could not be merged.
    #[error(transparent)]
    Merge(#[from] passes::merge::MergeError),
    /// Calibration could not run.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// No scheme.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// Lowering, sealing or running failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// No mix of precisions keeps the accuracy.
    #[error(
        "even with every layer widened the loss is {reached:.2} points, more than --max-drop {wanted:.2}"
    )]
    MaxDrop {
        /// Loss reached.
        reached: f64,
        /// Loss allowed.
        wanted: f64,
    },
    /// A limit on wrong answers for an output that does not hold classes.
    #[error(
        "--max-drop counts right answers, but output `{output}` has shape {shape:?}, not one row of classes"
    )]
    NotClasses {
        /// Graph output.
        output: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// No mix of precisions comes close enough.
    #[error(
        "even with every layer widened the smallest cosine is {reached:.6}, less than --min-cosine {wanted}"
    )]
    MinCosine {
        /// Cosine reached.
        reached: f64,
        /// Cosine wanted.
        wanted: f64,
    },
}

/// A finished quantisation.
#[derive(Debug)]
pub struct Quantized {
    /// The artifact with the program and memory plan it was made from.
    pub compiled: Compiled,
    /// The optimised float graph.
    pub graph: Graph,
    /// The scheme.
    pub scheme: Scheme,
    /// What calibration saw.
    pub statistics: Statistics,
    /// Sensitivity of layers, when it was measured.
    pub sensitivity: Option<SensitivityReport>,
    /// Tokens that are left behind each attention, when they were merged.
    pub merged: Vec<MergedLayer>,
}

/// What the artifact's meta section says about its making.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    /// Name and version of the program that sealed it.
    pub producer: String,
    /// Number of calibration samples.
    pub calibration_samples: usize,
    /// Range method.
    pub range: String,
    /// Whether biases were corrected.
    pub bias_correction: bool,
    /// Whether layers were equalised.
    pub equalised: bool,
    /// Multiply-accumulates per run.
    pub macs: u64,
    /// Steps that are not int8.
    pub islands: Vec<Island>,
    /// What bands of rows do for the arena, where it was given a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiled: Option<Tiled>,
    /// What the channels (last axis) of tensors are multiplied by, where ranges were migrated into weights; to
    /// compare them with the float model's. Not in artifacts without names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub migrated: BTreeMap<String, Vec<f32>>,
    /// Source facts given by the caller.
    pub facts: BTreeMap<String, serde_json::Value>,
}

impl Meta {
    /// Whether the model was sealed in int8, and not in float throughout.
    pub fn is_int8(&self) -> bool {
        self.calibration_samples > 0 || self.range == FROM_SOURCE
    }
}

/// Optimises, calibrates, quantises, plans and seals.
///
/// The same graph, samples and options give the same bytes, whatever the number of threads.
///
/// # Errors
///
/// [`QuantizeError`].
pub fn quantize(
    mut graph: Graph,
    samples: &dyn Samples,
    options: &QuantizeOptions,
    progress: &dyn Progress,
) -> Result<Quantized, QuantizeError> {
    match options.verify {
        true => prepare_verified(&mut graph, options.equalise)?,
        false => prepare(&mut graph, options.equalise)?,
    }
    if let (Some(_), Some(port)) = (options.max_drop, graph.outputs.first()) {
        let shape = graph.shape(port.value);
        classes(shape).ok_or_else(|| QuantizeError::NotClasses {
            output: port.name.clone(),
            shape: shape.to_vec(),
        })?;
    }
    let merged = passes::merge::run(&mut graph, options.merge)?;
    progress.begin("calibrate", samples.len());
    let mut statistics = observe(&graph, samples, &|done| progress.advance(done))?;
    progress.end();
    let parity = match options.verify || cfg!(debug_assertions) {
        true => Some(parity::Parity::new(&graph)?),
        false => None,
    };
    let mut migrated = BTreeMap::new();
    let before = graph.clone();
    if passes::migrate::run(&mut graph, &statistics) > 0 {
        if let Some(parity) = parity {
            parity.check("migrate", &graph)?;
        }
        if !options.strip_names {
            let first = samples.sample(0);
            let input = first.map_err(|message| ObserveError::Sample { index: 0, message })?;
            migrated = migrated::factors(&before, &graph, &input)?;
        }
        progress.begin("calibrate again", samples.len());
        statistics = observe(&graph, samples, &|done| progress.advance(done))?;
        progress.end();
    }
    if options.cluster > 0 {
        passes::cluster::run(&mut graph, options.cluster);
        progress.begin("calibrate clustered", samples.len());
        statistics = observe(&graph, samples, &|done| progress.advance(done))?;
        progress.end();
    }
    let mut scheme = build(&graph, &statistics, &scheme_options(&graph, options))?;
    let limits = sensitivity::Limits {
        max_drop: options.max_drop,
        min_cosine: options.min_cosine,
    };
    let sensitivity = match limits.any() {
        true => Some(sensitivity::widen(
            &graph,
            &mut scheme,
            samples,
            limits,
            &options.lowering,
            progress,
        )?),
        false => None,
    };
    let making = Making {
        samples: statistics.samples,
        range: options.range.to_string(),
        bias_correction: options.bias_correction,
        equalised: options.equalise,
        migrated,
    };
    let compiled = seal_all(&graph, &scheme, making, options)?;
    Ok(Quantized {
        compiled,
        graph,
        scheme,
        statistics,
        sensitivity,
        merged,
    })
}

/// Seals a model whose source is quantised already, with the source's scales, zero points, weights and
/// biases; `steps` are those of its weights. What the source leaves in float stays so and is an island.
///
/// Ranges, bias correction, equalisation and limits of loss in `options` do not apply.
///
/// # Errors
///
/// [`QuantizeError`].
pub fn take_over(
    mut graph: Graph,
    steps: &WeightSteps,
    options: &QuantizeOptions,
) -> Result<Quantized, QuantizeError> {
    match options.verify {
        true => prepare_verified(&mut graph, false)?,
        false => prepare(&mut graph, false)?,
    }
    let scheme = from_source(&mut graph, steps)?;
    let making = Making {
        samples: 0,
        range: FROM_SOURCE.to_owned(),
        bias_correction: false,
        equalised: false,
        migrated: BTreeMap::new(),
    };
    let compiled = seal_all(&graph, &scheme, making, options)?;
    Ok(Quantized {
        compiled,
        graph,
        scheme,
        statistics: Statistics::default(),
        sensitivity: None,
        merged: Vec::new(),
    })
}

/// Optimises a graph the way [`quantize`] does. Debug builds check after every pass that the graph still
/// computes the same; release builds do so with [`prepare_verified`].
///
/// # Errors
///
/// [`QuantizeError::Graph`], or [`QuantizeError::Parity`] naming the pass.
pub fn prepare(graph: &mut Graph, equalise: bool) -> Result<(), QuantizeError> {
    if cfg!(debug_assertions) {
        return prepare_verified(graph, equalise);
    }
    passes::optimise::<QuantizeError>(graph, None)?;
    if equalise {
        passes::equalise::equalise(graph);
    }
    Ok(())
}

/// [`prepare`], running the graph after every pass and comparing it with the graph before all of them.
///
/// # Errors
///
/// As [`prepare`].
pub fn prepare_verified(graph: &mut Graph, equalise: bool) -> Result<(), QuantizeError> {
    let parity = parity::Parity::new(graph)?;
    passes::optimise(graph, Some(&mut |pass, graph| parity.check(pass, graph)))?;
    if equalise {
        passes::equalise::equalise(graph);
        parity.check("equalise", graph)?;
    }
    Ok(())
}

/// Seals a float model with the same extras.
///
/// # Errors
///
/// [`QuantizeError`].
pub fn seal_float(graph: &Graph, options: &QuantizeOptions) -> Result<Compiled, QuantizeError> {
    let extras = Extras {
        preprocess: options.preprocess,
        labels: options.labels.clone(),
        strip_names: options.strip_names,
        ..Extras::default()
    };
    Ok(compile(
        graph,
        None,
        &options.lowering,
        &options.planning,
        &extras,
    )?)
}

fn scheme_options(graph: &Graph, options: &QuantizeOptions) -> SchemeOptions {
    let mut input_ranges = BTreeMap::new();
    if let (Some(p), Some(port)) = (options.preprocess, graph.inputs.first()) {
        input_ranges.insert(port.value, pixel_range(&p));
    }
    SchemeOptions {
        range: options.range,
        weights: match options.cluster {
            0 => options.weights,
            _ => WeightMethod::MinMax,
        },
        bias_correction: options.bias_correction,
        input_ranges,
    }
}

/// The values that 8-bit pixels can become.
fn pixel_range(p: &Preprocess) -> Range {
    let ends = (0..3).flat_map(|c| [0.0, 255.0].map(|u: f32| (u * p.scale - p.mean[c]) / p.std[c]));
    ends.fold(Range { lo: 0.0, hi: 0.0 }, |r, v| Range {
        lo: r.lo.min(v),
        hi: r.hi.max(v),
    })
}

/// How parameters were found, for the artifact's meta section.
struct Making {
    samples: usize,
    range: String,
    bias_correction: bool,
    equalised: bool,
    migrated: migrated::Factors,
}

/// Seals twice: the golden vectors inside are made by running the artifact without them.
fn seal_all(
    graph: &Graph,
    scheme: &Scheme,
    making: Making,
    options: &QuantizeOptions,
) -> Result<Compiled, QuantizeError> {
    let mut sealed = compile(
        graph,
        Some(scheme),
        &options.lowering,
        &options.planning,
        &Extras::default(),
    )?;
    let meta = Meta {
        producer: concat!("ampoule ", env!("CARGO_PKG_VERSION")).to_owned(),
        calibration_samples: making.samples,
        range: making.range,
        bias_correction: making.bias_correction,
        equalised: making.equalised,
        macs: graph.macs(),
        islands: sealed.program.islands.clone(),
        tiled: sealed.tiled.clone(),
        migrated: making.migrated,
        facts: options.facts.clone(),
    };
    let extras = Extras {
        preprocess: options.preprocess,
        labels: options.labels.clone(),
        meta: serde_json::to_string(&meta).ok(),
        golden: golden::vectors(&sealed)?,
        strip_names: options.strip_names,
    };
    sealed.bytes = seal(&sealed.program, &sealed.plan, &extras).map_err(ModelError::from)?;
    debug_assert!(Artifact::verify(&sealed.bytes).is_ok());
    if let Some(target) = &options.planning.target {
        let checked = target.check_artifact(&sealed.plan, sealed.bytes.len());
        checked.map_err(ModelError::from)?;
    }
    Ok(sealed)
}
