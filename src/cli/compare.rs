//! `ampoule compare`: an artifact and its float model, layer by layer.

use std::path::PathBuf;

use ampoule_quantize::compare::{Comparison, SUSPICIOUS_DB, compare};
use ampoule_quantize::data::ImageSet;
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::{Meta, Progress, prepare};
use clap::Args;

use super::args::{ImportArgs, is_npy};
use super::error::Failure;
use super::files::{check_output, save};
use super::models::{SourceModel, not_for_pictures, read_artifact};
use super::output::{Table, facts, plural, print, print_json, shape, shortened};
use super::progress::Bars;
use super::samples::{Loaded, input_layout, known_ids_of};
use crate::report;

/// Columns of the table, here and in the report.
pub const COLUMNS: [&str; 9] = [
    ">step",
    "operator",
    "tensor",
    "shape",
    "type",
    ">SQNR dB",
    ">cosine",
    ">max |Δ|",
    ">clipped",
];

const EXAMPLES: &str = "\
Examples:
  ampoule compare model.onnx model.amp --data photos/
  ampoule compare model.onnx model.amp --data photos/ --samples 64 --html layers.html
  ampoule compare sensor.onnx sensor.amp --data samples.npy --json";

/// Compare an artifact with its float model, layer by layer, the worst first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Compare {
    /// The float model
    onnx: PathBuf,
    /// The artifact made from it
    artifact: PathBuf,
    /// Pictures, or samples as .npy
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Most samples used, spread evenly over the folder
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Write a report to look at in a browser
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    import: ImportArgs,
}

impl Compare {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        if let Some(path) = &self.html {
            check_output(path, &[&self.onnx, &self.artifact, &self.data])?;
        }
        let model = read_artifact(&self.artifact)?;
        let artifact = model.artifact()?;
        let source = SourceModel::open(&self.onnx, &self.import, None, false)?;
        let (stored, layout) = input_layout(&artifact)?;
        let wanted = source.graph.shape(source.input()?.value);
        if stored != wanted {
            return Err(Failure::Unfit {
                path: self.artifact.clone(),
                what: format!(
                    "was not made from `{}`: its input is {}, that model's {}",
                    self.onnx.display(),
                    shape(&stored),
                    shape(wanted)
                ),
                hint: "give the ONNX file that the artifact was made from",
            });
        }
        let mut graph = source.graph;
        let meta: Option<Meta> = artifact.meta().and_then(|m| serde_json::from_str(m).ok());
        if meta.is_some_and(|m| m.equalised) {
            prepare(&mut graph, true)?;
        }
        let bars = Bars::new();
        let samples = match artifact.preprocess() {
            Some(preprocess) if !is_npy(&self.data) => {
                let set = ImageSet::open(&self.data)?.limit(self.samples as usize);
                Loaded::pictures(&set, &preprocess, &bars)?
            }
            None if !is_npy(&self.data) => return Err(not_for_pictures(&self.artifact)),
            _ => Loaded::rows(
                &self.data,
                &stored,
                &layout,
                known_ids_of(&artifact),
                self.samples as usize,
            )?,
        };
        bars.begin("compare", samples.len());
        let comparison = compare(&graph, &model, &samples, &|done| bars.advance(done))?;
        bars.end();
        if let Some(path) = &self.html {
            let page = report::compare::page(&self.onnx, &self.artifact, &comparison);
            save(path, page.as_bytes())?;
        }
        if self.json {
            print_json(&comparison)
        } else {
            print(&render(&comparison))
        }
    }
}

fn render(c: &Comparison) -> String {
    let mut table = Table::new(&COLUMNS);
    for l in c.worst_first() {
        table.row([
            l.step.to_string(),
            l.op.clone(),
            shortened(&l.name, 40),
            shape(&l.shape),
            l.dtype.clone(),
            format!("{:.1}", l.sqnr_db),
            format!("{:.5}", l.cosine),
            format!("{:.4}", l.max_abs),
            format!("{:.3} %", 100.0 * l.clipped),
        ]);
    }
    let first = match c.first_suspicious() {
        Some(l) => format!("step {} ({} {}), {:.1} dB", l.step, l.op, l.name, l.sqnr_db),
        None => "none".to_owned(),
    };
    let below = format!("first below {SUSPICIOUS_DB:.0} dB");
    let rows = [
        (
            "compared",
            format!(
                "{} over {}, {} of them rescaled per channel and scaled back; {} without a float counterpart",
                plural(c.layers.len(), "tensor"),
                plural(c.samples, "sample"),
                c.rescaled,
                c.unmatched
            ),
        ),
        (&*below, first),
    ];
    format!("{}\n{}", table.render(), facts(&rows))
}
