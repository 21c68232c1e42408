//! `ampoule inspect`: what is in an artifact, or in an ONNX or TFLite file after import.

pub mod details;

use std::path::{Path, PathBuf};

use ampoule_quantize::plan::{Target, Tiled};
use clap::Args;
use serde::Serialize;

use super::args::{ImportArgs, is_source};
use super::error::Failure;
use super::models::{SourceModel, read_artifact};
use super::output::{
    Table, bytes, count, facts, plural, print, print_json, shape, shortened, sparkline,
};
use super::preprocessing::describe;
use super::quantize::summary::{ALREADY, bands, island_line, not_int8, segments};
use details::{Details, Memory, Port};

const EXAMPLES: &str = "\
Examples:
  ampoule inspect model.amp
  ampoule inspect model.onnx --input-shape input:1,3,224,224
  ampoule inspect model.amp --json | jq .memory";

/// Columns of the memory timeline.
const TIMELINE: usize = 64;

/// Show what is in an artifact, or what an ONNX or TFLite file becomes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// An artifact (.amp), an ONNX or a TFLite file
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    import: ImportArgs,
}

impl Inspect {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        if is_source(&self.model) {
            let nodes = SourceDetails::open(&self.model, &self.import)?;
            return if self.json {
                print_json(&nodes)
            } else {
                print(&nodes.render())
            };
        }
        self.import.refuse_for_artifact()?;
        let mut details = Details::of(&read_artifact(&self.model)?)?;
        let stored =
            std::fs::metadata(&self.model).map_or(details.file_bytes, |m| m.len() as usize);
        details.packed_bytes = Some(stored).filter(|&n| n != details.file_bytes);
        if self.json {
            print_json(&details)
        } else {
            print(&render(&details))
        }
    }
}

fn render(d: &Details) -> String {
    let mut header = vec![
        ">#", "operator", "name", "input", "output", "type", ">weights", ">MACs", ">live",
    ];
    let target = d.memory.target.as_ref();
    if target.is_some() {
        header.push("bank");
    }
    let mut table = Table::new(&header);
    for s in &d.steps {
        let inputs: Vec<String> = s.inputs.iter().map(|i| shape(i)).collect();
        let mut row = vec![
            s.index.to_string(),
            s.op.to_owned(),
            shortened(&s.name, 32),
            inputs.join(" , "),
            shape(&s.output),
            s.dtype.to_owned(),
            if s.weight_bytes == 0 {
                String::new()
            } else {
                bytes(s.weight_bytes)
            },
            if s.macs == 0 {
                String::new()
            } else {
                count(s.macs)
            },
            bytes(s.live_bytes),
        ];
        row.extend(target.map(|t| bank_name(t, s.bank)));
        table.row(row);
    }
    let m = &d.memory;
    let banks: Vec<String> = m
        .banks
        .iter()
        .enumerate()
        .map(|(i, &n)| format!("bank {i}: {n} B"))
        .collect();
    let mut rows = vec![
        ("digest", d.digest.clone()),
        ("format", d.format_version.clone()),
        (
            "file",
            format!(
                "{} ({} of weights)",
                bytes(d.file_bytes),
                bytes(d.weight_bytes)
            ),
        ),
        (
            "compute",
            format!("{} steps, {} MACs", d.steps.len(), count(d.macs)),
        ),
    ];
    rows.extend(d.packed_bytes.map(|n| {
        let share = 100.0 * n as f64 / d.file_bytes.max(1) as f64;
        ("packed", format!("{} stored, {share:.1} % of it", bytes(n)))
    }));
    rows.extend(d.inputs.iter().map(|p| ("input", port(p))));
    rows.extend(d.outputs.iter().map(|p| ("output", port(p))));
    rows.extend(d.preprocess.iter().map(|p| ("pictures", describe(p))));
    rows.push(("labels", d.labels.to_string()));
    rows.push(("golden", format!("{} vectors", d.golden_vectors)));
    if let Some(meta) = &d.meta {
        let source = meta
            .facts
            .get("source")
            .and_then(|s| s.as_str())
            .unwrap_or("a graph in memory");
        let how = match meta.calibration_samples {
            0 if meta.is_int8() => format!(", {ALREADY}"),
            0 => String::new(),
            n => format!(", {}, ranges by {}", plural(n, "sample"), meta.range),
        };
        rows.push(("made by", format!("{} from {source}{how}", meta.producer)));
    }
    rows.push((
        "arena",
        format!(
            "{} (most alive at once: {} B, step {})",
            banks.join(", "),
            m.lower_bound,
            m.peak_step
        ),
    ));
    rows.push(("", sparkline(&m.live, TIMELINE)));
    let tiled = d.meta.as_ref().and_then(|m| m.tiled.as_ref());
    rows.extend(tiled.map(|t| ("bands", bands(t))));
    let islands = d
        .meta
        .as_ref()
        .map(|m| m.islands.as_slice())
        .unwrap_or_default();
    if let Some(meta) = &d.meta {
        rows.push(("not int8", not_int8(meta.is_int8(), islands)));
    }
    let islands: String = islands.iter().map(|i| island_line(i) + "\n").collect();
    let curve = tiled.map(curve).unwrap_or_default();
    let placement = target.map(|t| placement(m, t)).unwrap_or_default();
    format!(
        "{}\n{}{islands}{placement}{curve}",
        table.render(),
        facts(&rows)
    )
}

fn bank_name(target: &Target, number: u8) -> String {
    let bank = target.ram().nth(number.into());
    bank.map_or_else(|| "-".to_owned(), |b| b.name.clone())
}

/// What lies in each bank of the board.
fn placement(memory: &Memory, target: &Target) -> String {
    let mut table = Table::new(&[
        ">bank",
        "memory",
        ">bytes",
        ">of",
        ">cost of a byte",
        ">read and written in a run",
    ]);
    for (i, bank) in target.ram().enumerate() {
        let of = |list: &[usize]| list.get(i).copied().unwrap_or(0);
        table.row([
            i.to_string(),
            bank.name.clone(),
            of(&memory.banks).to_string(),
            bank.bytes.to_string(),
            bank.cost.to_string(),
            bytes(of(&memory.traffic)),
        ]);
    }
    let weights = target.weights().map(|b| b.name.as_str());
    let weights = weights.map_or_else(String::new, |name| format!(", the artifact in {name}"));
    format!(
        "\n{}\n{}{weights}\n",
        table.render().trim_end(),
        target.name
    )
}

/// What smaller arenas cost in work.
fn curve(tiled: &Tiled) -> String {
    let mut table = Table::new(&[">arena", ">more steps", ">copied in a run", "bands"]);
    let untiled = bytes(tiled.untiled);
    table.row([untiled, "0".into(), bytes(0), "none".into()]);
    for b in &tiled.curve {
        table.row([
            bytes(b.arena),
            b.steps.to_string(),
            bytes(b.copied),
            segments(b),
        ]);
    }
    format!("\n{}", table.render())
}

fn port(p: &Port) -> String {
    let codes = match p.dtype {
        "f32" => String::new(),
        _ if p.zero_point < 0 => format!(", {:.6} · (code + {})", p.scale, -p.zero_point),
        _ => format!(", {:.6} · (code − {})", p.scale, p.zero_point),
    };
    format!("{} {} {}{codes}", p.name, p.dtype, shape(&p.shape))
}

/// An ONNX or TFLite file after import and all passes.
#[derive(Debug, Serialize)]
struct SourceDetails {
    format: String,
    exporter: String,
    macs: u64,
    parameters: u64,
    inputs: Vec<GraphPort>,
    outputs: Vec<GraphPort>,
    nodes: Vec<NodeDetails>,
}

#[derive(Debug, Serialize)]
struct GraphPort {
    name: String,
    shape: Vec<usize>,
    /// Source dimension `i` is stored dimension `layout[i]`.
    layout: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct NodeDetails {
    index: usize,
    op: &'static str,
    name: String,
    inputs: Vec<Vec<usize>>,
    output: Vec<usize>,
    parameters: usize,
    macs: u64,
}

impl SourceDetails {
    fn open(path: &Path, args: &ImportArgs) -> Result<Self, Failure> {
        let source = SourceModel::open(path, args, None, false)?;
        let g = &source.graph;
        let ports = |ports: &[ampoule_quantize::graph::Port]| {
            let port = |p: &ampoule_quantize::graph::Port| GraphPort {
                name: p.name.clone(),
                shape: g.shape(p.value).to_vec(),
                layout: p.layout.clone(),
            };
            ports.iter().map(port).collect()
        };
        let nodes = g.nodes.iter().enumerate().map(|(index, n)| {
            let activations = n.inputs.iter().filter(|v| g.constant(**v).is_none());
            NodeDetails {
                index,
                op: n.op.name(),
                name: n.name.clone(),
                inputs: activations.map(|v| g.shape(*v).to_vec()).collect(),
                output: g.shape(n.output).to_vec(),
                parameters: n
                    .inputs
                    .iter()
                    .filter_map(|v| g.constant(*v))
                    .map(|d| d.len())
                    .sum(),
                macs: g.node_macs(n),
            }
        });
        Ok(SourceDetails {
            format: source.imported.format.to_string(),
            exporter: source.imported.producer.clone(),
            macs: g.macs(),
            parameters: g.parameters(),
            inputs: ports(&g.inputs),
            outputs: ports(&g.outputs),
            nodes: nodes.collect(),
        })
    }

    fn render(&self) -> String {
        let mut table = Table::new(&[
            ">#",
            "operator",
            "name",
            "input",
            "output",
            ">parameters",
            ">MACs",
        ]);
        for n in &self.nodes {
            let inputs: Vec<String> = n.inputs.iter().map(|i| shape(i)).collect();
            table.row([
                n.index.to_string(),
                n.op.to_owned(),
                shortened(&n.name, 48),
                inputs.join(" , "),
                shape(&n.output),
                if n.parameters == 0 {
                    String::new()
                } else {
                    count(n.parameters as u64)
                },
                if n.macs == 0 {
                    String::new()
                } else {
                    count(n.macs)
                },
            ]);
        }
        let mut rows = vec![
            ("source", format!("{}, {}", self.format, self.exporter)),
            (
                "compute",
                format!(
                    "{} nodes, {} MACs, {} parameters",
                    self.nodes.len(),
                    count(self.macs),
                    count(self.parameters)
                ),
            ),
        ];
        rows.extend(
            self.inputs
                .iter()
                .map(|p| ("input", format!("{} {}", p.name, shape(&p.shape)))),
        );
        rows.extend(
            self.outputs
                .iter()
                .map(|p| ("output", format!("{} {}", p.name, shape(&p.shape)))),
        );
        format!("{}\n{}", table.render(), facts(&rows))
    }
}
