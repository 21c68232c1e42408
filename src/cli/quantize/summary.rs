//! What a quantisation gave: for the table, JSON and the report.

use std::path::PathBuf;

use ampoule_quantize::calibrate::clipped_share;
use ampoule_quantize::passes::merge::MergedLayer;
use ampoule_quantize::pipeline::{Quality, Quantized, SensitivityReport};
use ampoule_quantize::plan::{Banding, Tiled, Tiling};
use ampoule_quantize::program::{Island, Stage};
use ampoule_runtime::preprocess::Preprocess;
use serde::Serialize;

use crate::cli::output::{bytes, count, facts, plural, shortened};
use crate::cli::preprocessing::describe;

/// What is said of a model that needs no calibration.
pub const ALREADY: &str = "already quantised: parameters taken from the file";

/// What a quantisation gave.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    #[serde(serialize_with = "crate::cli::output::path")]
    pub artifact: PathBuf,
    pub digest: String,
    pub format: String,
    pub nodes: usize,
    pub steps: usize,
    pub macs: u64,
    pub float_bytes: u64,
    pub artifact_bytes: usize,
    /// Of the file, with --compress.
    pub packed_bytes: Option<usize>,
    pub arena_bytes: usize,
    pub arena_lower_bound: usize,
    /// What bands of rows do for the arena, where it has a budget.
    pub tiled: Option<Tiled>,
    /// Layers as lists of blocks, with --sparse.
    pub sparse: Option<SparseLayers>,
    pub samples: usize,
    pub range: String,
    /// Whether the source was quantised already, so that its own parameters were taken over.
    pub from_source: bool,
    /// Share of activation values seen in calibration that the codes can't express; of all and of the
    /// worst tensor.
    pub clipped: Option<Clipped>,
    pub islands: Vec<Island>,
    /// Tokens that are left in each block, where they merge.
    pub merged: Vec<MergedLayer>,
    pub sensitivity: Option<SensitivityReport>,
    pub preprocess: Option<Preprocess>,
    pub preprocess_assumed: bool,
    pub parity_db: Option<f64>,
    pub seconds: f64,
    pub peak_memory_bytes: Option<u64>,
}

impl Summary {
    /// Whether the artifact is int8, and not float throughout.
    pub fn is_int8(&self) -> bool {
        self.samples > 0 || self.from_source
    }
}

/// Layers of whose weights only blocks are stored.
#[derive(Debug, Clone, Serialize)]
pub struct SparseLayers {
    /// The instruction set that they are for.
    pub isa: &'static str,
    pub layers: usize,
    /// Of so many that are not depthwise.
    pub of: usize,
    /// Whether the instruction set has a kernel that is faster at all.
    pub possible: bool,
}

/// Clipping seen in calibration.
#[derive(Debug, Clone, Serialize)]
pub struct Clipped {
    pub mean: f64,
    pub worst: f64,
    pub worst_tensor: String,
}

/// How much of what calibration saw the codes can't express.
pub fn clipped(q: &Quantized) -> Option<Clipped> {
    let seen = q
        .statistics
        .histograms
        .iter()
        .filter(|((_, stage), _)| *stage == Stage::Post);
    let (mut outside, mut all) = (0.0, 0.0);
    let (mut worst, mut name) = (-1.0, "");
    for (key, histogram) in seen {
        let Some(params) = q.scheme.values.get(key) else {
            continue;
        };
        let share = clipped_share(histogram, params);
        let count = histogram.finite() as f64;
        outside += share * count;
        all += count;
        if share > worst {
            (worst, name) = (share, q.graph.value(key.0).name.as_str());
        }
    }
    if all == 0.0 {
        return None;
    }
    let mean = outside / all;
    Some(Clipped {
        mean,
        worst,
        worst_tensor: name.to_owned(),
    })
}

fn sparse_line(s: &SparseLayers) -> String {
    match (s.possible, s.layers) {
        (false, _) => format!("no layer: no speed-up on {}", s.isa),
        (_, 0) => format!(
            "none of {}: with the zeros there are, none would be faster on {}",
            plural(s.of, "layer"),
            s.isa
        ),
        (_, n) => format!(
            "{n} of {} as lists of blocks, for {}",
            plural(s.of, "layer"),
            s.isa
        ),
    }
}

/// The summary as a table.
pub fn render(s: &Summary) -> String {
    let ratio = s.float_bytes as f64 / s.artifact_bytes.max(1) as f64;
    let mut rows = vec![
        (
            "artifact",
            format!("{}  ({})", s.artifact.display(), &s.digest[..12]),
        ),
        (
            "operators",
            format!(
                "{} nodes, {} steps, {} MACs",
                s.nodes,
                s.steps,
                count(s.macs)
            ),
        ),
        (
            "size",
            format!(
                "{} of float weights → {} ({})",
                bytes(s.float_bytes as usize),
                bytes(s.artifact_bytes),
                match ratio >= 1.0 {
                    true => format!("{ratio:.2}× smaller"),
                    false => format!("{:.2}× larger, with steps, tables and names", 1.0 / ratio),
                }
            ),
        ),
        (
            "arena",
            format!(
                "{} (lower bound {})",
                bytes(s.arena_bytes),
                bytes(s.arena_lower_bound)
            ),
        ),
    ];
    if let Some(packed) = s.packed_bytes {
        let share = 100.0 * packed as f64 / s.artifact_bytes.max(1) as f64;
        rows.push((
            "packed",
            format!("{} stored, {share:.1} % of it", bytes(packed)),
        ));
    }
    if let Some(first) = s.merged.first() {
        let left: Vec<String> = s.merged.iter().map(|l| l.tokens.1.to_string()).collect();
        rows.push((
            "tokens",
            format!("{} → {}", first.tokens.0, left.join(", ")),
        ));
    }
    if let Some(tiled) = &s.tiled {
        rows.push(("bands", bands(tiled)));
    }
    if let Some(sparse) = &s.sparse {
        rows.push(("sparse", sparse_line(sparse)));
    }
    if let Some(p) = &s.preprocess {
        let assumed = if s.preprocess_assumed {
            "  (assumed: no --preset given)"
        } else {
            ""
        };
        rows.push(("input", format!("{}{assumed}", describe(p))));
    }
    if s.from_source {
        rows.push(("calibration", ALREADY.to_owned()));
    }
    if s.samples > 0 {
        rows.push((
            "calibration",
            format!("{}, ranges by {}", plural(s.samples, "sample"), s.range),
        ));
    }
    if let Some(c) = &s.clipped {
        let tensor = shortened(&c.worst_tensor, 48);
        let worst = format!("{:.3} % in {tensor}", 100.0 * c.worst);
        rows.push((
            "clipped",
            format!("{:.4} % of activations, at most {worst}", 100.0 * c.mean),
        ));
    }
    if let Some(q) = &s.sensitivity {
        rows.push(("accuracy", accuracy(q)));
    }
    if let Some(db) = s.parity_db {
        rows.push((
            "parity",
            format!("{db:.1} dB between the optimised graph and the ONNX file"),
        ));
    }
    let memory = s
        .peak_memory_bytes
        .map(|n| format!(", {} of memory", bytes(n as usize)))
        .unwrap_or_default();
    rows.push(("effort", format!("{:.1} s{memory}", s.seconds)));
    rows.push(("not int8", not_int8(s.is_int8(), &s.islands)));
    let islands: String = s.islands.iter().map(|i| island_line(i) + "\n").collect();
    facts(&rows) + &islands
}

/// What was done to keep the arena in its budget.
pub fn bands(tiled: &Tiled) -> String {
    match &tiled.chosen {
        None => "none needed".to_owned(),
        Some(b) => format!(
            "{}, {} more steps, {} copied in a run; {} without",
            segments(b),
            b.steps,
            bytes(b.copied),
            bytes(tiled.untiled)
        ),
    }
}

/// Which steps are in how many bands.
pub fn segments(banding: &Banding) -> String {
    let one = |t: &Tiling| match t.first == t.last {
        true => format!("{} for step {}", t.bands, t.first),
        false => format!("{} for steps {} to {}", t.bands, t.first, t.last),
    };
    banding
        .segments
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What int8 loses, and what it does with wider layers where there are any.
pub fn accuracy(q: &SensitivityReport) -> String {
    let quality = |of: &Quality| {
        let (loss, cosine) = (of.loss(), of.min_cosine);
        format!("{loss:.2} points lost, smallest cosine {cosine:.4}")
    };
    let wide = q.layers.iter().filter(|l| l.precision != "i8").count();
    match wide {
        0 => format!("{} in int8", quality(&q.before)),
        n => format!(
            "{} in int8; {} with {} widened",
            quality(&q.before),
            quality(&q.after),
            plural(n, "layer")
        ),
    }
}

/// How many steps are not int8, of a model that is int8 or float throughout.
pub fn not_int8(int8: bool, islands: &[Island]) -> String {
    match (int8, islands.len()) {
        (false, _) => "everything: sealed in float".to_owned(),
        (_, 0) => "nothing".to_owned(),
        (_, n) => plural(n, "step"),
    }
}

/// One line about a step that is not int8.
pub fn island_line(island: &Island) -> String {
    format!(
        "  {} ({}) in {}: {}",
        island.node, island.op, island.dtype, island.reason
    )
}
