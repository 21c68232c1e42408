//! `ampoule compare`: an artifact and its float model, layer by layer.

use std::path::PathBuf;

use ampoule_quantize::compare::{Comparison, SUSPICIOUS_DB, compare};
use ampoule_quantize::data::ImageSet;
use ampoule_quantize::observe::Samples;
use ampoule_quantize::pipeline::{Meta, Progress, prepare};
use clap::Args;

use super::args::{ImportArgs, is_npy};
use super::error::Failure;
use super::inspect::shortened;
use super::models::{OnnxModel, read_artifact};
use super::output::{Table, facts, print, print_json, shape};
use super::progress::Bars;
use super::quantize::{check_writable, save};
use super::samples::Loaded;
use crate::report;

/// Compare an artifact with its float model, layer by layer, the worst first
#[derive(Debug, Args)]
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
        self.html.as_deref().map_or(Ok(()), check_writable)?;
        let model = read_artifact(&self.artifact)?;
        let artifact = model.artifact()?;
        let mut graph = OnnxModel::open(&self.onnx, &self.import, None, false)?.graph;
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
            _ => {
                let input = artifact
                    .inputs()
                    .next()
                    .ok_or(ampoule_runtime::Error::NoSuchIo)?;
                let stored: Vec<usize> = input
                    .tensor
                    .shape
                    .dims()
                    .iter()
                    .map(|&d| d as usize)
                    .collect();
                let layout: Vec<usize> = input.layout[..stored.len()]
                    .iter()
                    .map(|&d| usize::from(d))
                    .collect();
                if !is_npy(&self.data) {
                    return Err(ampoule::ClassifyError::NotForPictures.into());
                }
                Loaded::rows(&self.data, &stored, &layout, self.samples as usize)?
            }
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
    let mut table = Table::new(&[
        ">step",
        "operator",
        "tensor",
        "shape",
        "type",
        ">SQNR dB",
        ">cosine",
        ">max |Δ|",
        ">clipped",
    ]);
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
                "{} tensors over {} samples; {} have no float counterpart",
                c.layers.len(),
                c.samples,
                c.unmatched
            ),
        ),
        (&*below, first),
    ];
    format!("{}\n{}", table.render(), facts(&rows))
}
