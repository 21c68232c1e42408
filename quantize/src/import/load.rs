//! From bytes to a typed tract model.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ampoule_runtime::artifact::layout::MAGIC;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::optim::Optimizer;

use super::error::Problem;
use super::guard::guarded;
use super::quantised::{self, Stated};
use super::{check, inputs, marker};

/// A checked ONNX file with fixed input shapes.
pub(super) struct Source {
    pub proto: ModelProto,
    pub opset: i64,
    pub nodes: Nodes,
    /// What a quantised model states.
    pub stated: Stated,
    folder: Option<PathBuf>,
}

/// What lowering needs to know of the file beside the typed model.
pub(super) struct Nodes {
    /// Names of all nodes.
    pub names: HashSet<String>,
    /// The Resize nodes by name: tract keeps the type of its own Resize private.
    pub resizes: HashMap<String, NodeProto>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

impl Nodes {
    fn of(graph: &GraphProto) -> Nodes {
        let resizes = graph.node.iter().filter(|n| n.op_type == "Resize");
        Nodes {
            names: graph.node.iter().map(|n| n.name.clone()).collect(),
            resizes: resizes.map(|n| (n.name.clone(), n.clone())).collect(),
            outputs: graph.output.iter().map(|o| o.name.clone()).collect(),
        }
    }
}

impl Source {
    /// Parses and checks a model, and spells out what is quantised. `folder` is where its external weights
    /// may be.
    pub fn parse(
        bytes: &[u8],
        folder: Option<&Path>,
        shapes: &HashMap<String, Vec<usize>>,
    ) -> Result<Source, Problem> {
        Source::read(bytes, folder, shapes, true)
    }

    /// [`Source::parse`], leaving quantised operators to tract.
    pub fn as_it_is(
        bytes: &[u8],
        folder: Option<&Path>,
        shapes: &HashMap<String, Vec<usize>>,
    ) -> Result<Source, Problem> {
        Source::read(bytes, folder, shapes, false)
    }

    fn read(
        bytes: &[u8],
        folder: Option<&Path>,
        shapes: &HashMap<String, Vec<usize>>,
        spell_out: bool,
    ) -> Result<Source, Problem> {
        let mut proto = read(bytes)?;
        let folder = folder.map(named);
        let opset = check::check(&proto, folder.as_deref())?;
        let Some(graph) = &mut proto.graph else {
            return Err(Problem::NotOnnx("it has no graph".into()));
        };
        inputs::unique_names(graph);
        let stated = match spell_out {
            true => quantised::rewrite(graph, folder.as_deref().and_then(Path::to_str))?,
            false => Stated::default(),
        };
        let known = onnx().op_register.0;
        check::check_operators(graph, |name| known.contains_key(name))?;
        inputs::fix_shapes(graph, shapes)?;
        inputs::explicit_zeros(graph);
        let nodes = Nodes::of(graph);
        Ok(Source {
            proto,
            opset,
            nodes,
            stated,
            folder,
        })
    }

    /// Infers shapes and types and folds constants, keeping activations whole for lowering.
    pub fn typed(&self) -> Result<TypedModel, Problem> {
        let mut framework = onnx();
        marker::register(&mut framework.op_register);
        let inferred = self.infer(framework)?;
        guarded("inferring shapes", || {
            let mut model = inferred.into_typed().map_err(invalid("inferring shapes"))?;
            Optimizer::prop_consts()
                .optimize(&mut model)
                .map_err(invalid("folding constants"))?;
            Ok(model)
        })
    }

    /// The model as tract runs it, for the oracle.
    pub fn optimised(&self) -> Result<TypedModel, Problem> {
        let inferred = self.infer(onnx())?;
        guarded("optimising", || {
            inferred.into_optimized().map_err(invalid("optimising"))
        })
    }

    fn infer(
        &self,
        framework: tract_onnx::Onnx,
    ) -> Result<tract_onnx::tract_hir::infer::InferenceModel, Problem> {
        let folder = self.folder.as_deref().and_then(Path::to_str);
        guarded("translating operators", || {
            let parsed = framework
                .parse(&self.proto, folder)
                .map_err(invalid("translating operators"))?;
            match &*parsed.unresolved_inputs {
                [] => Ok(parsed.model),
                names => Err(Problem::Invalid {
                    stage: "translating operators",
                    what: format!("nothing produces {names:?}"),
                }),
            }
        })
    }
}

/// The file's message, not yet checked.
pub(super) fn read(bytes: &[u8]) -> Result<ModelProto, Problem> {
    if bytes.is_empty() {
        return Err(Problem::NotOnnx("the file is empty".into()));
    }
    let other = match bytes {
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some("a TFLite model"),
        _ if bytes.starts_with(&MAGIC) => Some("a sealed artifact"),
        _ => None,
    };
    if let Some(other) = other {
        return Err(Problem::OtherKind(other));
    }
    guarded("parsing", || {
        onnx()
            .proto_model_for_read(&mut &*bytes)
            .map_err(|e| Problem::NotOnnx(e.to_string()))
    })
}

/// A folder with a name, even where it is the current one.
pub(crate) fn named(folder: &Path) -> PathBuf {
    match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_path_buf(),
    }
}

pub(super) fn invalid(stage: &'static str) -> impl Fn(TractError) -> Problem {
    move |error| Problem::Invalid {
        stage,
        what: format!("{error:#}"),
    }
}
