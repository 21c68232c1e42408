//! Students from which networks of many sizes are cut.

use ampoule::distill::elastic::{Elastic, Size};
use ampoule::distill::train::classify::Classification;
use ampoule::distill::train::{Evaluator, TrainError};
use ampoule::distill::zoo::Config;
use ampoule_distill_kernels::engine::Engine;
use ampoule_quantize::metrics::Rate;
use clap::Args;
use serde::Serialize;

use super::student::Student;
use crate::cli::error::Failure;
use crate::cli::output::{Table, count};

/// Sizes of a student.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sizes")]
pub struct ElasticArgs {
    /// Train a TinyViT from which networks with these shares of its widths and blocks can be cut
    /// (`ampoule extract`), as 0.34,0.67
    #[arg(
        long,
        value_name = "SHARE,…",
        value_delimiter = ',',
        conflicts_with_all = ["pairs", "qat", "scalekd", "attention_sparsity", "layer_decay", "shrink"],
    )]
    pub elastic: Option<Vec<f64>>,
    /// The student is a TinyViT with these shares of its widths and blocks, as 0.34,0.67
    #[arg(long, value_name = "WIDTHS,BLOCKS", conflicts_with = "pairs", value_parser = two)]
    pub shrink: Option<[f64; 2]>,
}

/// A size and what it knows.
#[derive(Debug, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub size: Described,
    pub top1: Option<Rate>,
}

/// A size.
#[derive(Debug, Serialize)]
pub struct Described {
    pub widths: [usize; 4],
    pub depths: [usize; 4],
    pub parameters: u64,
    pub macs: u64,
}

impl Described {
    pub fn new(size: &Size) -> Self {
        Described {
            widths: size.config().widths,
            depths: size.config().depths,
            parameters: size.network().parameter_count(),
            macs: size.macs(),
        }
    }

    /// Cells of a table: widths, blocks, parameters, multiply-accumulates.
    pub fn cells(&self) -> [String; 4] {
        let list = |numbers: [usize; 4]| numbers.map(|n| n.to_string()).join(" ");
        [
            list(self.widths),
            list(self.depths),
            count(self.parameters),
            count(self.macs),
        ]
    }
}

impl ElasticArgs {
    /// The sizes that are asked for.
    pub fn sizes(&self, student: &Student) -> Result<Option<Elastic>, Failure> {
        let Some(shares) = &self.elastic else {
            return Ok(None);
        };
        let config = student.tiny_vit.clone().ok_or_else(|| {
            let what = "--elastic is for a TinyViT of the zoo, such as tinyvit-mini";
            Failure::Usage(what.to_owned())
        })?;
        let elastic = Elastic::new(config, shares).map_err(TrainError::from)?;
        Ok(Some(elastic))
    }
}

/// A TinyViT with these shares of widths and blocks.
pub fn shrunk(name: &str, config: Config, shares: [f64; 2]) -> Result<Config, Failure> {
    match config {
        Config::TinyVit(config) => {
            let shrunk = Elastic::shrunk(&config, shares).map_err(TrainError::from)?;
            Ok(Config::TinyVit(shrunk))
        }
        _ => Err(Failure::Usage(format!(
            "--shrink is for a TinyViT, such as tinyvit-mini; `{name}` is another"
        ))),
    }
}

/// What each size knows of the measured samples.
pub fn measure(
    elastic: &Elastic,
    values: &[Vec<f32>],
    task: &Classification,
    threads: usize,
) -> Result<Vec<Measured>, Failure> {
    let one = |size: &Size| {
        let weights = elastic.extract(size, values).map_err(TrainError::from)?;
        let mut weights = weights.into_values();
        let engine = Engine::new(size.network().graph().clone(), threads);
        let mut engine = engine.map_err(TrainError::from)?;
        let confusion = task.confusion(&mut Evaluator::new(&mut engine, &mut weights))?;
        let (hits, total) = confusion.right();
        let (hits, total) = (hits as u64, total as u64);
        Ok(Measured {
            size: Described::new(size),
            top1: (total > 0).then_some(Rate { hits, total }),
        })
    };
    elastic.sizes().iter().map(one).collect()
}

/// The sizes as text.
pub fn table(sizes: &[Measured]) -> String {
    let mut table = Table::new(&["widths", "blocks", ">parameters", ">MACs", ">top-1"]);
    for m in sizes {
        let [widths, blocks, parameters, macs] = m.size.cells();
        let top1 = m.top1.map(|t| format!("{:.1} %", 100.0 * t.value()));
        let top1 = top1.unwrap_or_else(|| "–".to_owned());
        table.row([widths, blocks, parameters, macs, top1]);
    }
    table.render()
}

fn two(text: &str) -> Result<[f64; 2], String> {
    let pair = text.split_once(',');
    let pair = pair.and_then(|(a, b)| Some([a.parse().ok()?, b.parse().ok()?]));
    pair.ok_or_else(|| "expected two shares, as 0.34,0.67".to_owned())
}
