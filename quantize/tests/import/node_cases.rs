//! The node tests of the ONNX project, on the interpreter and on the runtime, before and after the
//! passes.
//!
//! Cases that do not pass are listed with the reason in `not-passed.txt` beside the cases; the test fails
//! when a listed case passes or another one does not. `AMPOULE_BLESS=1` writes the list anew.

use std::collections::BTreeMap;

use ampoule_quantize::graph::GraphError;
use ampoule_quantize::import::{self, ImportOptions};
use ampoule_quantize::passes;
use tract_onnx::data_resolver::MmapDataResolver;
use tract_onnx::prelude::DatumType;
use tract_onnx::tensor::{load_tensor, proto_from_reader};

use rayon::prelude::*;

use crate::fixtures::{Executor, difference, fixtures, run, sealed, source_shape};
use crate::interpret::interpret;
use crate::protobuf::field;

struct Case {
    name: String,
    model: Vec<u8>,
    inputs: Vec<Input>,
    outputs: Vec<Vec<f32>>,
}

struct Input {
    /// The TensorProto as it is in the file.
    encoded: Vec<u8>,
    name: String,
    data: Vec<f32>,
    /// Whether it can be an activation: f32 with elements.
    is_float: bool,
}

/// What runs each case.
const EXECUTORS: [(&str, Executor); 2] = [("interpreted", interpret), ("sealed", sealed)];

#[test]
fn node_cases_pass_or_are_listed() {
    let folder = fixtures().join("onnx-node");
    let bytes = std::fs::read(folder.join("cases.bin")).unwrap();
    let cases = cases(&bytes);
    let failed: BTreeMap<String, String> = cases
        .par_iter()
        .filter_map(|case| Some((case.name.clone(), attempt(case).err()?)))
        .collect();
    println!(
        "{} of {} cases pass",
        cases.len() - failed.len(),
        cases.len()
    );
    let list = folder.join("not-passed.txt");
    if std::env::var_os("AMPOULE_BLESS").is_some() {
        let lines: String = failed
            .iter()
            .map(|(name, reason)| format!("{name}\t{reason}\n"))
            .collect();
        std::fs::write(&list, format!("# Node cases that are not imported or differ, and why. Written by the test with AMPOULE_BLESS=1.\n{lines}")).unwrap();
    }
    let text = std::fs::read_to_string(&list).unwrap_or_default();
    let listed: Vec<&str> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split('\t').next())
        .collect();
    let unlisted: Vec<_> = failed
        .iter()
        .filter(|(name, _)| !listed.contains(&&***name))
        .collect();
    let passing: Vec<_> = listed
        .iter()
        .filter(|name| !failed.contains_key(**name))
        .collect();
    assert!(unlisted.is_empty(), "cases that should pass: {unlisted:#?}");
    assert!(
        passing.is_empty(),
        "listed cases that pass now, take them off the list: {passing:#?}"
    );
}

/// Imports a case, with float operands as inputs or, if that fails, all but the first as constants, and
/// compares before and after optimisation.
fn attempt(case: &Case) -> Result<(), String> {
    one(case, usize::MAX).or_else(
        |first| match case.inputs.iter().filter(|i| i.is_float).count() {
            0 | 1 => Err(first),
            _ => one(case, 1),
        },
    )
}

fn one(case: &Case, activations: usize) -> Result<(), String> {
    let floats: Vec<&Input> = case
        .inputs
        .iter()
        .filter(|i| i.is_float)
        .take(activations)
        .collect();
    let mut model = case.model.clone();
    for input in case
        .inputs
        .iter()
        .filter(|i| !floats.iter().any(|f| f.name == i.name))
    {
        // Fields of a repeated message merge, so initializers can be added to the graph at the end.
        let tensor = [&input.encoded[..], &field(8, input.name.as_bytes())].concat();
        model.extend(field(7, &field(5, &tensor)));
    }
    let mut graph = import::onnx_bytes(&model, &ImportOptions::default())
        .map_err(|e| e.problem.to_string())?
        .graph;
    let data: Vec<Vec<f32>> = floats.iter().map(|i| i.data.clone()).collect();
    for stage in ["imported", "optimised"] {
        graph.validate().map_err(|e| e.to_string())?;
        let lengths: Vec<usize> = graph
            .inputs
            .iter()
            .map(|p| source_shape(&graph, p).iter().product())
            .collect();
        if lengths != data.iter().map(Vec::len).collect::<Vec<_>>() {
            return Err(format!("{stage}: inputs {lengths:?} differ from the data"));
        }
        for (name, execute) in EXECUTORS {
            let got = run(&graph, execute, &data).map_err(|e| format!("{stage}, {name}: {e}"))?;
            let d = got
                .iter()
                .zip(&case.outputs)
                .map(|(g, e)| difference(g, e))
                .fold(0.0, f32::max);
            // Some expected outputs are rounded to four digits; the project itself compares to 1e-3.
            if d > 1e-3 || got.len() != case.outputs.len() {
                let (got, expected) = (got.len(), case.outputs.len());
                return Err(format!(
                    "{stage}, {name}: differs by {d:.0e} ({got} outputs, expected {expected})"
                ));
            }
        }
        passes::optimise::<GraphError>(&mut graph, None).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn cases(mut bytes: &[u8]) -> Vec<Case> {
    let count = number(&mut bytes, 4);
    (0..count)
        .map(|_| {
            let length = number(&mut bytes, 2);
            let name = String::from_utf8(take(&mut bytes, length).to_vec()).unwrap();
            let length = number(&mut bytes, 4);
            let model = take(&mut bytes, length).to_vec();
            let names = input_names(&model);
            let inputs = tensors(&mut bytes)
                .into_iter()
                .zip(names)
                .map(|(t, name)| Input { name, ..t })
                .collect();
            let outputs = tensors(&mut bytes).into_iter().map(|t| t.data).collect();
            Case {
                name,
                model,
                inputs,
                outputs,
            }
        })
        .collect()
}

fn input_names(model: &[u8]) -> Vec<String> {
    use tract_onnx::prelude::Framework;
    let proto = tract_onnx::onnx()
        .proto_model_for_read(&mut &*model)
        .unwrap();
    proto
        .graph
        .unwrap()
        .input
        .into_iter()
        .map(|i| i.name)
        .collect()
}

fn tensors(bytes: &mut &[u8]) -> Vec<Input> {
    let count = number(bytes, 2);
    (0..count)
        .map(|_| {
            let length = number(bytes, 4);
            let encoded = take(bytes, length).to_vec();
            let proto = proto_from_reader(&*encoded).unwrap();
            let tensor = load_tensor(&MmapDataResolver, &proto, None).unwrap();
            let floats = tensor.cast_to::<f32>().unwrap();
            let data = floats
                .try_as_plain_ram()
                .unwrap()
                .as_slice::<f32>()
                .unwrap()
                .to_vec();
            let is_float = tensor.datum_type() == DatumType::F32 && !data.is_empty();
            Input {
                encoded,
                name: String::new(),
                data,
                is_float,
            }
        })
        .collect()
}

fn number(bytes: &mut &[u8], size: usize) -> usize {
    take(bytes, size)
        .iter()
        .rev()
        .fold(0, |n, &b| n << 8 | usize::from(b))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(length);
    *bytes = tail;
    head
}
