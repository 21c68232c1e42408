//! `ampoule selftest`: the golden vectors on every instruction set of this processor.

use std::path::PathBuf;

use ampoule_quantize::model::Model;
use ampoule_runtime::artifact::golden_input;
use ampoule_runtime::{DType, Error, Isa};
use clap::Args;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::args::isa;
use super::error::Failure;
use super::models::read_artifact;
use super::output::{Table, hex, print, print_json};

const EXAMPLES: &str = "\
Examples:
  ampoule selftest model.amp
  ampoule selftest model.amp --isa portable --json";

/// Seeds of the inputs whose outputs are hashed.
const SEEDS: [u32; 4] = [1, 2, 3, 4];

/// Check that an artifact computes the same on every instruction set
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Selftest {
    /// The artifact
    model: PathBuf,
    /// Instruction set to test [default: all that this processor has]
    #[arg(long, value_parser = isa())]
    isa: Option<Isa>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Outcome for one instruction set.
#[derive(Debug, Clone, Serialize)]
pub struct Tested {
    pub isa: &'static str,
    pub available: bool,
    /// Golden vectors that agree; none when one does not.
    pub vectors: Option<usize>,
    /// Hash of the outputs for generated inputs.
    pub hash: Option<String>,
}

impl Selftest {
    /// Runs the command.
    pub fn execute(&self) -> Result<(), Failure> {
        let mut model = read_artifact(&self.model)?;
        let tested = match self.isa {
            None => test_all(&mut model)?,
            Some(isa) => {
                // A set asked for by name must be there.
                ampoule_runtime::Capability::new(isa)?;
                vec![test(&mut model, isa)?]
            }
        };
        match self.json {
            true => print_json(&tested)?,
            false => print(&render(&tested))?,
        }
        verdict(&model, &tested)
    }
}

/// Tests every instruction set.
pub fn test_all(model: &mut Model) -> Result<Vec<Tested>, Failure> {
    let isas = Isa::OF_ARCHITECTURE.iter();
    isas.map(|&isa| test(model, isa)).collect()
}

/// Fails when a golden vector differs, or the outputs of an integer program do.
pub fn verdict(model: &Model, tested: &[Tested]) -> Result<(), Failure> {
    if let Some(t) = tested.iter().find(|t| t.available && t.vectors.is_none()) {
        return Err(Failure::SelfTest(format!(
            "the outputs on {} differ from the golden vectors",
            t.isa
        )));
    }
    let mut hashes = tested
        .iter()
        .filter_map(|t| t.hash.as_ref().map(|h| (t.isa, h)));
    let first = hashes.next();
    match (first, hashes.find(|h| first.is_some_and(|f| f.1 != h.1))) {
        (Some((a, _)), Some((b, _))) if is_integer(model)? => Err(Failure::SelfTest(format!(
            "the outputs on {b} differ from those on {a}"
        ))),
        _ => Ok(()),
    }
}

fn test(model: &mut Model, isa: Isa) -> Result<Tested, Failure> {
    if !isa.is_available() {
        return Ok(Tested {
            isa: isa.name(),
            available: false,
            vectors: None,
            hash: None,
        });
    }
    let mut session = model.session(isa)?;
    let vectors = match session.self_test() {
        Ok(count) => Some(count),
        Err(Error::SelfTest(_)) => None,
        Err(other) => return Err(other.into()),
    };
    let mut hash = Sha256::new();
    for seed in SEEDS {
        for i in 0..session.artifact().inputs().count() {
            let dtype = session.input(i)?.tensor.dtype;
            golden_input(seed.wrapping_add(i as u32), dtype, session.input_bytes(i)?);
        }
        session.run()?;
        for o in 0..session.artifact().outputs().count() {
            hash.update(session.output_bytes(o)?);
        }
    }
    Ok(Tested {
        isa: isa.name(),
        available: true,
        vectors,
        hash: Some(hex(&hash.finalize()[..8])),
    })
}

/// Whether no step computes in float, so that outputs are equal on every processor.
fn is_integer(model: &Model) -> Result<bool, Failure> {
    let artifact = model.artifact()?;
    let floats = artifact.steps().any(|s| {
        artifact
            .tensor(s.output())
            .is_ok_and(|t| t.dtype == DType::F32)
    });
    Ok(!floats)
}

/// The outcomes as a table.
pub fn render(tested: &[Tested]) -> String {
    let mut table = Table::new(&["isa", "golden vectors", "outputs"]);
    for t in tested {
        let vectors = match (t.available, t.vectors) {
            (false, _) => "not on this processor".to_owned(),
            (true, None) => "DIFFERENT".to_owned(),
            (true, Some(0)) => "none inside".to_owned(),
            (true, Some(n)) => format!("{n} equal"),
        };
        table.row([
            t.isa.to_owned(),
            vectors,
            t.hash.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}
