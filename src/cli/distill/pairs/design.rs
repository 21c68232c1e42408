//! The towers of a run.

use std::path::{Path, PathBuf};

use ampoule::distill::text::WordPiece;
use ampoule::distill::zoo::{self, TextConfig, Towers, Weights};
use serde_json::json;

use super::Distill;
use crate::cli::distill::student;
use crate::cli::error::Failure;

/// The first temperature (CLIP).
const FIRST_TEMPERATURE: f32 = 0.07;

/// The towers, and where they start.
pub(super) struct Design {
    pub towers: Towers,
    pub text: TextConfig,
    /// Side of the pictures.
    pub size: usize,
    /// All that decides the towers' layers.
    pub config: serde_json::Value,
    /// With the temperature.
    pub first: Vec<Vec<f32>>,
    /// Whether the picture tower is another network's.
    pub is_trunk: bool,
}

impl Design {
    /// `clip-mini`, or its text tower beside a picture tower from a file.
    pub fn open(args: &Distill, tokenizer: &WordPiece) -> Result<Self, Failure> {
        let mut config = zoo::clip_mini(tokenizer.len());
        let file = Path::new(&args.student);
        let is_trunk = file
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
        if !is_trunk && args.student != "clip-mini" {
            return Err(Failure::Usage(format!(
                "there is no pair of towers `{}`; there is clip-mini, and FILE.onnx for another picture tower",
                args.student
            )));
        }
        let read = |network: &zoo::Network, path: &Option<PathBuf>, seed| match path {
            Some(path) => Weights::read(network, path),
            None => Ok(Weights::initial(network, seed)),
        };
        let seed = args.recipe.seed;
        let (towers, size, mut first) = if is_trunk {
            let (towers, size, first) = on_trunk(args, file, &config.text)?;
            (towers, size, first)
        } else {
            if let Some(rate) = args.recipe.drop_path {
                config.image = config.image.with_drop_path(rate as f32);
            }
            let towers = config.build()?;
            let first = read(&towers.image, &args.init, seed)?.into_values();
            (towers, config.image.size(), first)
        };
        first.extend(read(&towers.text, &args.pairs.text_init, seed + 1)?.into_values());
        first.push(vec![(1.0 / FIRST_TEMPERATURE).ln()]);
        Ok(Design {
            config: match is_trunk {
                true => json!({"image": "a file", "text": config.text}),
                false => json!(config),
            },
            text: config.text,
            towers,
            size,
            first,
            is_trunk,
        })
    }
}

/// Towers with a picture tower from a file, the side of its pictures, and its first weights.
fn on_trunk(
    args: &Distill,
    file: &Path,
    text: &TextConfig,
) -> Result<(Towers, usize, Vec<Vec<f32>>), Failure> {
    let student = student::read(args, file)?;
    let graph = student.network.graph();
    let inputs = graph.inputs().iter().map(|&v| graph.map(v));
    let inputs: Vec<_> = inputs.map(|m| [m.height, m.width, m.channels]).collect();
    let size = match inputs[..] {
        [[height, width, 3]] if height == width => height,
        _ => {
            return Err(Failure::Unfit {
                path: file.to_owned(),
                what: format!(
                    "takes {inputs:?} (height, width, channels); expected one square picture in colour"
                ),
                hint: "a network that takes pictures, as a picture tower",
            });
        }
    };
    let towers = Towers::on_trunk(student.network, text)?;
    let mut first = Weights::initial(&towers.image, args.recipe.seed).into_values();
    for (first, known) in first.iter_mut().zip(student.weights.into_values()) {
        *first = known;
    }
    Ok((towers, size, first))
}
