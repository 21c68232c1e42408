//! `ampoule extract`: networks cut out of an elastic one.

use std::path::PathBuf;

use ampoule::distill::elastic::Elastic;
use ampoule::distill::export::{self, Settings};
use ampoule::distill::train::TrainError;
use clap::Args;
use serde_json::json;

use super::distill::elastic::Described;
use super::error::Failure;
use super::files::{check_output, save};
use super::output::{Table, facts, print, print_json};

const EXAMPLES: &str = "\
Examples:
  ampoule distill --elastic 0.34,0.67 --student tinyvit-mini … -o student.onnx
  ampoule extract student.safetensors
  ampoule extract student.safetensors --max-macs 4M -o small.onnx";

/// Cut a network of some size out of an elastic one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Extract {
    /// What `ampoule distill --elastic` wrote
    #[arg(value_name = "FILE.safetensors")]
    pub elastic: PathBuf,
    /// The largest size with at most so many multiply-accumulates for a picture, as 4M
    #[arg(long, value_name = "N", value_parser = number, requires = "output")]
    pub max_macs: Option<u64>,
    /// The ONNX file to write; sizes are only listed without
    #[arg(short, long, value_name = "FILE.onnx", requires = "max_macs")]
    pub output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Extract {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let (elastic, values) = Elastic::read(&self.elastic).map_err(TrainError::from)?;
        let (Some(budget), Some(output)) = (self.max_macs, &self.output) else {
            let sizes: Vec<_> = elastic.sizes().iter().map(Described::new).collect();
            return match self.json {
                true => print_json(&sizes),
                false => print(&table(&sizes)),
            };
        };
        check_output(output, &[&self.elastic])?;
        let size = elastic.within(budget).map_err(TrainError::from)?;
        let weights = elastic.extract(size, &values).map_err(TrainError::from)?;
        let settings = Settings {
            metadata: &[("weights", "ampoule extract")],
            ..Settings::default()
        };
        let file = export::onnx(size.network().graph(), weights.values(), &settings)?;
        save(output, &file)?;
        let described = Described::new(size);
        if self.json {
            return print_json(&json!({ "output": output, "size": described }));
        }
        let written = facts(&[("written", output.display().to_string())]);
        print(&format!("{}\n{written}", table(&[described])))
    }
}

fn table(sizes: &[Described]) -> String {
    let mut table = Table::new(&["widths", "blocks", ">parameters", ">MACs"]);
    for size in sizes {
        table.row(size.cells());
    }
    table.render()
}

/// A number with k, M or G behind it.
fn number(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 1e3),
        Some('M') => (&text[..text.len() - 1], 1e6),
        Some('G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let parsed = digits.parse::<f64>().ok();
    let fits = parsed.filter(|n| n.is_finite() && *n > 0.0 && *n < 1e9);
    let number = fits.map(|n| (n * factor) as u64);
    number.ok_or_else(|| "expected a number, as 4M, 800k or 1.2G".to_owned())
}
