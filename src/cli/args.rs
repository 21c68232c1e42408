//! Arguments that several commands share, and their parsers.

use std::collections::HashMap;
use std::path::Path;

use ampoule_quantize::import::ImportOptions;
use ampoule_quantize::model::Model;
use ampoule_runtime::{Isa, Pool, Session};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::error::Failure;

/// How the ONNX file is read.
#[derive(Debug, Clone, Default, Args)]
pub struct ImportArgs {
    /// Shape of an input that the model leaves open; may be repeated
    #[arg(long = "input-shape", value_name = "NAME:D,D,…", value_parser = input_shape)]
    input_shapes: Vec<(String, Vec<usize>)>,
}

impl ImportArgs {
    /// Fails when something is given: an artifact has its shapes.
    pub fn refuse_for_artifact(&self) -> Result<(), Failure> {
        match self.input_shapes.is_empty() {
            true => Ok(()),
            false => Err(Failure::Usage(
                "--input-shape is for ONNX files; an artifact has its shapes".to_owned(),
            )),
        }
    }

    /// As the importer takes them.
    pub fn options(&self) -> ImportOptions {
        ImportOptions {
            input_shapes: self.input_shapes.iter().cloned().collect::<HashMap<_, _>>(),
        }
    }
}

/// How the artifact is executed.
#[derive(Debug, Clone, Copy, Args)]
pub struct ExecArgs {
    /// Instruction set to force [default: the best there is]
    #[arg(long, value_parser = isa())]
    isa: Option<Isa>,
    /// Threads that share each layer
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

impl ExecArgs {
    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::best)
    }

    /// The threads, when there are several.
    pub fn pool(&self) -> Option<Pool> {
        (self.threads > 1).then(|| Pool::new(usize::from(self.threads)))
    }

    /// A session that runs as asked.
    pub fn session<'m>(
        &self,
        model: &'m mut Model,
        pool: Option<&'m Pool>,
    ) -> Result<Session<'m, 'm>, Failure> {
        Ok(match pool {
            Some(pool) => model.session_with_pool(self.isa(), pool)?,
            None => model.session(self.isa())?,
        })
    }

    /// Number of threads asked for.
    pub fn threads(&self) -> usize {
        usize::from(self.threads)
    }
}

/// Takes any instruction set by name, this architecture's or not.
pub fn any_isa() -> impl TypedValueParser<Value = Isa> {
    let names =
        PossibleValuesParser::new(Isa::ALL.iter().map(|isa| PossibleValue::new(isa.name())));
    names.try_map(|name| Isa::from_name(&name).ok_or("no such instruction set"))
}

/// Takes an instruction set by name.
pub fn isa() -> impl TypedValueParser<Value = Isa> {
    let value = |isa: Isa| match isa {
        // OneDNN's name, which benches/peers passes.
        Isa::AvxVnni => PossibleValue::new(isa.name()).alias("avx2vnni"),
        isa => PossibleValue::new(isa.name()),
    };
    let names = PossibleValuesParser::new(Isa::OF_ARCHITECTURE.iter().copied().map(value));
    names.try_map(|name| match name.as_str() {
        "avx2vnni" => Ok(Isa::AvxVnni),
        name => Isa::from_name(name).ok_or("no such instruction set"),
    })
}

/// `name:1,3,224,224`.
fn input_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let expected =
        || "expected NAME:D,D,… with sizes from 1, for example input:1,3,224,224".to_owned();
    // A name may hold colons; sizes do not.
    let (name, dims) = text.rsplit_once(':').ok_or_else(expected)?;
    let dims: Option<Vec<usize>> = dims
        .split(',')
        .map(|d| d.trim().parse().ok().filter(|&d| d > 0))
        .collect();
    Ok((name.to_owned(), dims.ok_or_else(expected)?))
}

/// `WxH`.
pub fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed = text
        .split_once(['x', '×'])
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed
        .filter(|&(w, h)| w > 0 && h > 0)
        .ok_or_else(|| "expected WxH in pixels, for example 224x224".to_owned())
}

/// `r,g,b`, or one number for all three.
pub fn triple(text: &str) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> = text
        .split(',')
        .map(|n| n.trim().parse().ok().filter(|n: &f32| n.is_finite()))
        .collect();
    match numbers.as_deref() {
        Some([all]) => Ok([*all; 3]),
        Some([r, g, b]) => Ok([*r, *g, *b]),
        _ => Err("expected one number or three, for example 0.485,0.456,0.406".to_owned()),
    }
}

/// Whether a path names a model to import: ONNX or TFLite.
pub fn is_source(path: &Path) -> bool {
    is_onnx(path) || is_tflite(path)
}

/// Whether a path names an ONNX model.
pub fn is_onnx(path: &Path) -> bool {
    has_extension(path, "onnx")
}

/// Whether a path names a TFLite model.
pub fn is_tflite(path: &Path) -> bool {
    has_extension(path, "tflite")
}

/// Whether a path names an array file.
pub fn is_npy(path: &Path) -> bool {
    has_extension(path, "npy")
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_values() {
        assert_eq!(size("96x64"), Ok((96, 64)));
        assert!(
            ["", "96", "0x4", "4x", "99999x1"]
                .iter()
                .all(|s| size(s).is_err())
        );
        assert_eq!(triple("1"), Ok([1.0; 3]));
        assert_eq!(triple("1, 2,3"), Ok([1.0, 2.0, 3.0]));
        assert!(
            ["", "1,2", "nan", "1,2,3,4"]
                .iter()
                .all(|s| triple(s).is_err())
        );
        assert_eq!(input_shape("a:b:1,3"), Ok(("a:b".to_owned(), vec![1, 3])));
        assert!(
            ["a", "a:", "a:0,1", "a:x"]
                .iter()
                .all(|s| input_shape(s).is_err())
        );
    }
}
