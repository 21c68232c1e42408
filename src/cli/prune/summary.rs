//! What pruning came to: figures before and after, and how they are shown.

use std::path::PathBuf;

use ampoule::distill::taylor::Objective;
use ampoule_quantize::graph::Graph;
use ampoule_quantize::lower::sparse_pays;
use ampoule_quantize::metrics::Rate;
use ampoule_quantize::prune::{GroupCut, GroupKind, LayerSparsity};
use ampoule_runtime::Isa;
use serde::Serialize;

use super::layers::{self, LayerCut};
use crate::cli::output::{Table, bytes, count, facts, micros, plural, shortened};
use crate::cli::timing::Times;

/// What pruning did.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    #[serde(serialize_with = "crate::cli::output::path")]
    pub output: PathBuf,
    pub before: Size,
    pub after: Size,
    /// Per group of channels, for structured pruning.
    pub groups: Vec<GroupCut>,
    /// Per layer that multiplies, what is left of it and how long it takes.
    pub products: Vec<LayerCut>,
    /// Time of all other steps of an int8 run, before and after.
    pub others_us: Option<[f64; 2]>,
    /// Other shares, with --sweep; the first is the whole model.
    pub sweep: Vec<Point>,
    /// Per layer, for zeros.
    pub layers: Vec<LayerSparsity>,
    /// What gradients are of, where they rank the channels.
    pub objective: Option<Objective>,
    /// Smallest cosine of outputs with the whole model's on the samples.
    pub min_cosine: Option<f64>,
    /// What was asked for and reached, with --budget-ms.
    pub budget_us: Option<f64>,
    pub isa: &'static str,
    pub threads: usize,
}

/// A model's size, before or after.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    pub parameters: u64,
    pub macs: u64,
    pub onnx_bytes: usize,
    /// Of the int8 artifact, where there are samples to calibrate with.
    pub int8_bytes: Option<usize>,
    pub arena_bytes: Option<usize>,
    /// Time of a run in int8.
    pub times: Option<Times>,
    /// Of the float model.
    pub top1: Option<Rate>,
}

/// A share of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub share: f32,
    pub parameters: u64,
    pub macs: u64,
    /// Median of an int8 run, and that of the whole model in the same turns.
    pub us: f64,
    pub whole_us: f64,
    /// Of the float model.
    pub top1: Option<Rate>,
    pub min_cosine: Option<f64>,
}

impl Size {
    pub fn of(graph: &Graph, onnx_bytes: usize) -> Self {
        Size {
            parameters: graph.parameters(),
            macs: graph.macs(),
            onnx_bytes,
            int8_bytes: None,
            arena_bytes: None,
            times: None,
            top1: None,
        }
    }
}

/// Name, before, after, and how much less, of what was measured.
pub fn comparison(s: &Summary) -> Vec<(&'static str, String, String, String)> {
    let less = |a: f64, b: f64| format!("{:+.1} %", 100.0 * (b / a.max(f64::MIN_POSITIVE) - 1.0));
    let (a, b) = (&s.before, &s.after);
    let mut rows = vec![
        (
            "parameters",
            count(a.parameters),
            count(b.parameters),
            less(a.parameters as f64, b.parameters as f64),
        ),
        (
            "MACs",
            count(a.macs),
            count(b.macs),
            less(a.macs as f64, b.macs as f64),
        ),
        (
            "ONNX file",
            bytes(a.onnx_bytes),
            bytes(b.onnx_bytes),
            less(a.onnx_bytes as f64, b.onnx_bytes as f64),
        ),
    ];
    let both = |name, x: Option<usize>, y: Option<usize>| {
        let (x, y) = (x?, y?);
        Some((name, bytes(x), bytes(y), less(x as f64, y as f64)))
    };
    rows.extend(both("int8 artifact", a.int8_bytes, b.int8_bytes));
    rows.extend(both("arena", a.arena_bytes, b.arena_bytes));
    if let (Some(x), Some(y)) = (&a.times, &b.times) {
        let (x, y) = (x.median_us, y.median_us);
        rows.push(("int8 run", micros(x), micros(y), less(x, y)));
    }
    if let (Some(x), Some(y)) = (&a.top1, &b.top1) {
        let (x, y) = (100.0 * x.value(), 100.0 * y.value());
        rows.push((
            "float top-1",
            format!("{x:.2} %"),
            format!("{y:.2} %"),
            format!("{:+.2} points", y - x),
        ));
    }
    rows
}

/// The tables for a terminal.
pub fn render(s: &Summary) -> String {
    let mut text = String::new();
    if !s.groups.is_empty() {
        let mut table = Table::new(&["group", "what", ">before", ">after", ">importance lost"]);
        for g in &s.groups {
            table.row([
                shortened(&g.name, 48),
                kind(g.kind).to_owned(),
                g.total.to_string(),
                g.kept.to_string(),
                // Rounding may leave less than nothing.
                format!("{:.1} %", 100.0 * g.importance_lost.max(0.0)),
            ]);
        }
        text += &table.render();
        text += "\n";
    }
    if !s.layers.is_empty() {
        let mut table = Table::new(&["layer", ">weights", ">zero", ">share", ">empty blocks"]);
        for l in &s.layers {
            table.row([
                shortened(&l.name, 48),
                l.weights.to_string(),
                l.zeros.to_string(),
                format!("{:.1} %", 100.0 * l.zeros as f64 / l.weights.max(1) as f64),
                match l.blocks {
                    0 => String::new(),
                    n => format!("{:.1} %", 100.0 * l.empty_blocks as f64 / n as f64),
                },
            ]);
        }
        text += &table.render();
        text += "\n";
    }
    if !s.products.is_empty() && !s.groups.is_empty() {
        text += &layers::render(&s.products, s.others_us);
        text += "\n";
    }
    if !s.sweep.is_empty() {
        text += &sweep_table(&s.sweep);
        text += "\n";
    }
    let mut table = Table::new(&["", ">before", ">after", ">change"]);
    for (name, before, after, change) in comparison(s) {
        table.row([name.to_owned(), before, after, change]);
    }
    text += &table.render();
    text += "\n";
    let mut rows = vec![("written", s.output.display().to_string())];
    if let Some(objective) = s.objective {
        let of = match objective {
            Objective::Labels => "gradients of the cross-entropy with the labels",
            Objective::Outputs => "gradients of the outputs, as there are no labels",
        };
        rows.push(("importance", of.to_owned()));
    }
    if let Some(cosine) = s.min_cosine {
        rows.push((
            "outputs",
            format!("smallest cosine with the whole model's {cosine:.4}"),
        ));
    }
    if let Some(rate) = s.before.top1 {
        rows.push((
            "accuracy",
            format!("of {}", plural(rate.total as usize, "labelled sample")),
        ));
    }
    if s.before.times.is_some() {
        let threads = s.threads;
        rows.push((
            "measured",
            format!("{}, {threads} thread(s), taking turns", s.isa),
        ));
    }
    if !s.layers.is_empty() {
        rows.push(("speed", speed(&s.layers, s.isa)));
    }
    text + &facts(&rows)
}

fn sweep_table(points: &[Point]) -> String {
    let mut table = Table::new(&[
        ">share",
        ">parameters",
        ">MACs",
        ">int8 run",
        ">top-1",
        ">cosine",
    ]);
    for p in points {
        let top1 = p.top1.map(|r| format!("{:.2} %", 100.0 * r.value()));
        table.row([
            format!("{}", p.share),
            count(p.parameters),
            count(p.macs),
            micros(p.us),
            top1.unwrap_or_default(),
            p.min_cosine.map_or(String::new(), |c| format!("{c:.4}")),
        ]);
    }
    table.render()
}

/// What zeros are good for on an instruction set.
pub fn speed(layers: &[LayerSparsity], isa: &str) -> String {
    let of_name = Isa::from_name(isa);
    let is_faster = |l: &&LayerSparsity| {
        let (depth, left) = (l.weights / l.channels.max(1), l.blocks - l.empty_blocks);
        l.blocks > 0
            && of_name.is_some_and(|isa| sparse_pays(isa, l.pixels, l.channels, depth, left))
    };
    match layers.iter().filter(is_faster).count() {
        0 => "no speed-up on this target: kernels multiply zeros like other numbers; files compress better"
            .to_owned(),
        n => format!(
            "{n} of {} layers skip empty blocks on {isa} (ampoule quantize --sparse {isa})",
            layers.iter().filter(|l| l.blocks > 0).count()
        ),
    }
}

/// What the channels of a group are, in words.
pub fn kind(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Heads => "heads or groups",
        GroupKind::HeadChannels => "channels of heads",
        _ => "channels",
    }
}
