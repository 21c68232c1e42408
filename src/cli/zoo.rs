//! `ampoule zoo`: student networks, what they cost, and their ONNX files.

use std::path::PathBuf;

use ampoule::distill::export::{self, ExportError, Opset, Settings};
use ampoule::distill::zoo::{self, Config, MODELS, Network, Part, Weights, ZooError};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::error::Failure;
use super::files::{check_output, save};
use super::output::{self, Table, bytes, count, facts, plural, print, print_json, shape};

const EXAMPLES: &str = "\
Examples:
  ampoule zoo list
  ampoule zoo info tinyvit-5m
  ampoule zoo export tiny-moat-0 --size 512 --window 14,7 -o moat.onnx
  ampoule zoo export tinyvit-21m-384 --weights tiny_vit_21m.safetensors -o tinyvit.onnx
  ampoule zoo export tinyvit-5m --opset 20 --fold -o tinyvit.onnx
  ampoule zoo list --json";

/// Student networks: TinyViT, MOAT and MCi, listed, explained and written as ONNX files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Zoo {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Info(Info),
    Export(Export),
}

impl Zoo {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        match &self.command {
            Command::List(c) => c.execute(),
            Command::Info(c) => c.execute(),
            Command::Export(c) => c.execute(),
        }
    }
}

/// List the networks with input size, parameters and multiply-accumulates
#[derive(Debug, Args)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    fn execute(&self) -> Result<(), Failure> {
        let all = MODELS.iter().map(|m| Summary::of(m.name, &m.config));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        if self.json {
            return print_json(&all);
        }
        let mut table = Table::new(&["name", "input", ">classes", ">parameters", ">GMACs"]);
        for m in all {
            table.row([
                m.name.to_owned(),
                shape(&m.input),
                m.classes.to_string(),
                m.parameters.to_string(),
                gmacs(m.macs),
            ]);
        }
        print(&table.render())
    }
}

/// Which network, and how it differs from the published one.
#[derive(Debug, Args)]
struct Choice {
    /// The network; `ampoule zoo list` shows them
    #[arg(value_parser = model())]
    name: &'static zoo::Model,
    /// Number of classes [default: 1000; 9 for minis]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    classes: Option<u32>,
    /// Height and width of the input, a multiple of 32. TinyViT's windows grow with it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// MOAT: attention in windows with these sides in the last two stages, instead of global
    #[arg(long, value_name = "A,B", value_parser = windows)]
    window: Option<[usize; 2]>,
}

impl Choice {
    /// The configuration and its network.
    fn build(&self) -> Result<(Config, Network), Failure> {
        let configure = || {
            let mut config = self.name.config.clone();
            if let Some(classes) = self.classes {
                config = config.with_classes(classes as usize);
            }
            if let Some(size) = self.size {
                config = config.with_size(size as usize)?;
            }
            if let Some(windows) = self.window {
                config = config.with_windows(windows)?;
            }
            let network = config.build()?;
            Ok((config, network))
        };
        configure().map_err(|e: ZooError| Failure::Usage(e.to_string()))
    }
}

/// Show what a network is made of and what each part costs
#[derive(Debug, Args)]
struct Info {
    #[command(flatten)]
    choice: Choice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Info {
    fn execute(&self) -> Result<(), Failure> {
        let (config, network) = self.choice.build()?;
        let details = Details {
            name: self.choice.name.name,
            parameters: network.parameter_count(),
            macs: network.macs(),
            parts: network.parts(),
            config,
        };
        if self.json {
            return print_json(&details);
        }
        let mut table = Table::new(&["part", "operator", "output", ">parameters", ">MACs"]);
        for p in details.parts {
            table.row([
                p.name.clone(),
                p.operator.clone(),
                shape(&p.output),
                p.parameters.to_string(),
                count(p.macs),
            ]);
        }
        let rows = [
            ("input", shape(&picture(&details.config))),
            ("parameters", details.parameters.to_string()),
            ("GMACs", gmacs(details.macs)),
        ];
        print(&format!("{}\n{}", table.render(), facts(&rows)))
    }
}

/// Write a network as an ONNX file, with random weights or given ones
#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    choice: Choice,
    /// File to write
    #[arg(short, long, value_name = "FILE.onnx")]
    output: PathBuf,
    /// Weights by parameter name: safetensors, or an ONNX file with them as initialisers
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Seed of random weights
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        conflicts_with = "weights"
    )]
    seed: u64,
    /// Version of ONNX' operator set; 20 has GELU as one node
    #[arg(long, default_value = "17", value_name = "17|20", value_parser = opset())]
    opset: Opset,
    /// Make batch norms part of the convolutions next to them, and branches one convolution, for inference
    #[arg(long)]
    fold: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Export {
    fn execute(&self) -> Result<(), Failure> {
        let inputs: Vec<_> = self.weights.iter().map(PathBuf::as_path).collect();
        check_output(&self.output, &inputs)?;
        let (_, network) = self.choice.build()?;
        let weights = match &self.weights {
            Some(path) => Weights::read(&network, path)?,
            None => Weights::random(&network, self.seed),
        };
        let name = self.choice.name.name;
        let settings = Settings {
            opset: self.opset,
            fold: self.fold,
            metadata: &[("architecture", name), ("weights", weights.source())],
            ..Settings::default()
        };
        let file = export::onnx(network.graph(), weights.values(), &settings)
            .map_err(|e: ExportError| Failure::Usage(e.to_string()))?;
        save(&self.output, &file)?;
        let exported = Exported {
            name,
            file: &self.output,
            bytes: file.len(),
            parameters: network.parameter_count(),
            macs: network.macs(),
            opset: self.opset.number(),
            folded: self.fold,
            weights: weights.source(),
            resized: weights.resized(),
        };
        match self.json {
            true => print_json(&exported),
            false => print(&exported.render()),
        }
    }
}

/// A row of the list.
#[derive(Debug, Serialize)]
struct Summary {
    name: &'static str,
    input: [usize; 3],
    classes: usize,
    parameters: u64,
    macs: u64,
}

impl Summary {
    fn of(name: &'static str, config: &Config) -> Result<Self, Failure> {
        let network = config.build()?;
        Ok(Summary {
            name,
            input: picture(config),
            classes: config.classes(),
            parameters: network.parameter_count(),
            macs: network.macs(),
        })
    }
}

/// What `zoo info` shows.
#[derive(Debug, Serialize)]
struct Details<'a> {
    name: &'static str,
    config: Config,
    parameters: u64,
    macs: u64,
    parts: &'a [Part],
}

/// What `zoo export` wrote.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    name: &'static str,
    #[serde(serialize_with = "output::path")]
    file: &'a std::path::Path,
    bytes: usize,
    parameters: u64,
    macs: u64,
    opset: i64,
    /// Whether batch norms are part of convolutions.
    folded: bool,
    weights: &'a str,
    /// Position tables that were resized.
    resized: &'a [String],
}

impl Exported<'_> {
    fn render(&self) -> String {
        let mut rows = vec![
            (
                "file",
                format!("{}, {}", self.file.display(), bytes(self.bytes)),
            ),
            ("parameters", self.parameters.to_string()),
            ("GMACs", gmacs(self.macs)),
            ("opset", self.opset.to_string()),
            ("weights", self.weights.to_owned()),
        ];
        if !self.resized.is_empty() {
            rows.push(("resized", plural(self.resized.len(), "position table")));
        }
        facts(&rows)
    }
}

/// Shape of the input.
fn picture(config: &Config) -> [usize; 3] {
    [3, config.size(), config.size()]
}

fn gmacs(macs: u64) -> String {
    format!("{:.3}", macs as f64 / 1e9)
}

/// Takes a network by name.
fn model() -> impl TypedValueParser<Value = &'static zoo::Model> {
    let names = PossibleValuesParser::new(MODELS.iter().map(|m| m.name));
    names.try_map(|name| zoo::find(&name).ok_or("no such network"))
}

/// Takes an operator set by number.
fn opset() -> impl TypedValueParser<Value = Opset> {
    const ALL: [Opset; 2] = [Opset::V17, Opset::V20];
    PossibleValuesParser::new(["17", "20"]).try_map(|number| {
        let found = ALL.into_iter().find(|o| o.number().to_string() == number);
        found.ok_or("no such operator set")
    })
}

/// `14,7`.
fn windows(text: &str) -> Result<[usize; 2], String> {
    let sides = text
        .split_once(',')
        .and_then(|(a, b)| Some([a.trim().parse().ok()?, b.trim().parse().ok()?]));
    sides
        .filter(|s| s.iter().all(|side| (1..=512).contains(side)))
        .ok_or_else(|| "expected two sides from 1, for example 14,7".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_sides() {
        assert_eq!(windows("14, 7"), Ok([14, 7]));
        assert!(
            ["", "14", "0,7", "a,b", "1,2,3", "9999,1"]
                .iter()
                .all(|t| windows(t).is_err())
        );
    }
}
