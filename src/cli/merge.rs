//! `ampoule merge`: adapters and other training runs folded into an ONNX file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ampoule_quantize::merge::{Adapter, Merged, OnnxFile, average, lora};
use clap::Args;
use serde::Serialize;

use super::error::Failure;
use super::files::{check_output, save};
use super::output::{Table, facts, plural, print, print_json, shortened};

const EXAMPLES: &str = "\
Examples:
  ampoule merge base.onnx adapter_model.safetensors -o merged.onnx
  ampoule merge base.onnx adapter.safetensors --alpha 16 --map layers.json -o merged.onnx
  ampoule merge run1.onnx --average run2.onnx --average run3.onnx -o mean.onnx
  ampoule merge tuned.onnx --average base.onnx:0.3 -o between.onnx";

/// Fold LoRA adapters into an ONNX model, or average training runs of one network
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Merge {
    /// The float model
    base: PathBuf,
    /// LoRA matrices as PEFT saves them, merged one after the other
    #[arg(
        value_name = "ADAPTER.safetensors",
        required_unless_present = "average"
    )]
    adapters: Vec<PathBuf>,
    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE.onnx")]
    output: PathBuf,
    /// Alpha of all layers, in place of what the adapter says
    #[arg(long, value_name = "ALPHA", allow_negative_numbers = true)]
    alpha: Option<f32>,
    /// Where layers are whose names the exporter lost: JSON, {"layer of the adapter": "initialiser or node"}
    #[arg(long, value_name = "FILE.json")]
    map: Option<PathBuf>,
    /// Mean of the weights with another model of the same graph; after a colon its share [default: equal ones]
    #[arg(long, value_name = "MODEL.onnx[:SHARE]")]
    average: Vec<String>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// What was merged.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(serialize_with = "crate::cli::output::path")]
    output: PathBuf,
    nodes: usize,
    bytes: usize,
    layers: Vec<Merged>,
    /// The base's share of the mean, with --average.
    base_share: Option<f64>,
}

impl Merge {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let summary = self.run()?;
        match self.json {
            true => print_json(&summary),
            false => print(&render(&summary)),
        }
    }

    fn run(&self) -> Result<Summary, Failure> {
        let others: Vec<(PathBuf, Option<f64>)> =
            self.average.iter().map(|text| share_of(text)).collect();
        let mut read: Vec<&Path> = vec![&self.base];
        read.extend(self.adapters.iter().map(PathBuf::as_path));
        read.extend(self.map.as_deref());
        read.extend(others.iter().map(|(path, _)| path.as_path()));
        check_output(&self.output, &read)?;
        let map = self.map.as_deref().map(read_map).transpose()?;
        let adapters = self.adapters.iter().map(|p| Adapter::read(p, self.alpha));
        let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
        let map = map.unwrap_or_default();
        let known = |layer: &String| adapters.iter().any(|a| a.layers.contains_key(layer));
        if let Some(layer) = map.keys().find(|layer| !known(layer)) {
            return Err(Failure::Usage(format!(
                "--map names layer `{layer}`, which no adapter has"
            )));
        }
        let mut file = OnnxFile::read(&self.base)?;
        let mut base_share = None;
        if !others.is_empty() {
            let others = others
                .iter()
                .map(|(path, share)| Ok((OnnxFile::read(path)?, *share)));
            base_share = Some(average(
                &mut file,
                &others.collect::<Result<Vec<_>, Failure>>()?,
            )?);
        }
        let mut layers = Vec::new();
        for adapter in &adapters {
            layers.extend(lora(&mut file, adapter, &map)?);
        }
        let nodes = file.nodes();
        let bytes = file.into_bytes()?;
        save(&self.output, &bytes)?;
        Ok(Summary {
            output: self.output.clone(),
            nodes,
            bytes: bytes.len(),
            layers,
            base_share,
        })
    }
}

/// A path, and the share after its last colon where that is a number.
fn share_of(text: &str) -> (PathBuf, Option<f64>) {
    let split = text
        .rsplit_once(':')
        .and_then(|(path, share)| Some((path.into(), Some(share.parse().ok()?))));
    split.unwrap_or_else(|| (text.into(), None))
}

fn read_map(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|e| {
        Failure::Usage(format!(
            "`{}` is no map of names: {e}; expected {{\"layer of the adapter\": \"initialiser or node\"}}",
            path.display()
        ))
    })
}

fn render(s: &Summary) -> String {
    let mut text = String::new();
    if !s.layers.is_empty() {
        let mut table = Table::new(&["layer", "weight", ">rank", ">alpha", ">change"]);
        for l in &s.layers {
            table.row([
                shortened(&l.layer, 40),
                shortened(&l.weight, 32),
                l.rank.to_string(),
                l.alpha.to_string(),
                format!("{:.2} %", 100.0 * l.change),
            ]);
        }
        text += &table.render();
        text += "\n";
    }
    let mut rows = vec![("written", s.output.display().to_string())];
    if !s.layers.is_empty() {
        rows.push(("merged", plural(s.layers.len(), "layer")));
    }
    if let Some(share) = s.base_share {
        rows.push(("mean", format!("{:.1} % of the base", 100.0 * share)));
    }
    rows.push(("nodes", format!("{}, as before", s.nodes)));
    text + &facts(&rows)
}
