//! TFLite models against the reference kernels of TFLite, whose results the `.npy` files hold.
//!
//! Codes of a layer differ by at most one, near ties (docs/numerics.md), and deep networks amplify that:
//! TFLite's own XNNPACK kernels, which round as this runtime does, are as far from its reference kernels.
//! Integer results are the same everywhere, so how many outputs are off by how much is pinned exactly.

use std::fmt;
use std::path::Path;

use ampoule_quantize::graph::Graph;
use ampoule_quantize::import::{self, Imported};
use ampoule_quantize::model::Model;
use ampoule_quantize::pipeline::{QuantizeOptions, prepare, take_over};
use ampoule_quantize::scheme::is_quantised;
use ampoule_runtime::Isa;

use crate::fixtures::{data, fixtures};

/// How the bytes of the recorded input become the model's.
#[derive(Clone, Copy)]
enum Input {
    /// Signed codes, or floats, as they are.
    Own,
    /// Codes are pixels less 128.
    Codes,
    /// Real values are so many times the pixels, less so much.
    Real(f32, f32),
}

/// A model and its recorded input.
struct Case {
    model: &'static str,
    input: &'static str,
    kind: Input,
    wanted: Wanted,
}

/// How close the results are.
enum Wanted {
    /// Float, with at most this difference.
    Float(f32),
    /// Int8, with so many outputs off by 1, 2 and more steps.
    Int8([usize; 3]),
}

const fn float_case(model: &'static str, input: &'static str, kind: Input) -> Case {
    Case {
        model,
        input,
        kind,
        wanted: Wanted::Float(1e-4),
    }
}

const fn int8_case(model: &'static str, input: &'static str, kind: Input, off: [usize; 3]) -> Case {
    Case {
        model,
        input,
        kind,
        wanted: Wanted::Int8(off),
    }
}

const RAW: Input = Input::Real(1.0, 0.0);
const UNIT: Input = Input::Real(1.0 / 255.0, 0.0);
const SIGNED: Input = Input::Real(1.0 / 127.5, 1.0);

/// In the repository.
const FIXTURES: [Case; 2] = [
    float_case("kws_dscnn_float", "kws_input_f32", Input::Own),
    int8_case("kws_dscnn_int8", "kws_input_i8", Input::Own, [0, 0, 0]),
];

const MLPERF_TINY: [Case; 10] = [
    float_case("kws_dscnn_float", "kws_input_f32", Input::Own),
    float_case("ad_autoencoder_float", "ad_input_f32", Input::Own),
    int8_case("ad_autoencoder_int8", "ad_input_i8", Input::Own, [0, 0, 0]),
    float_case("ic_resnet8_float", "ic_input_u8", RAW),
    int8_case("ic_resnet8_int8", "ic_input_u8", Input::Codes, [11, 3, 12]),
    int8_case(
        "ic_resnet8_large_int8",
        "ic_input_u8",
        Input::Codes,
        [6, 2, 7],
    ),
    int8_case("kws_dscnn_int8", "kws_input_i8", Input::Own, [0, 0, 0]),
    int8_case("sww_streaming_int8", "sww_input_i8", Input::Own, [0, 0, 0]),
    float_case("vww_mobilenet025_float", "vww_input_u8", UNIT),
    int8_case(
        "vww_mobilenet025_int8",
        "vww_input_u8",
        Input::Codes,
        [8, 4, 0],
    ),
];

const VISION: [Case; 6] = [
    int8_case(
        "coral_mobilenet_v1_0.25_128_quant",
        "input_128_u8",
        Input::Codes,
        [82, 14, 19],
    ),
    int8_case(
        "coral_mobilenet_v2_1.0_224_quant",
        "input_224_u8",
        Input::Codes,
        [9, 1, 6],
    ),
    int8_case(
        "coral_tf2_mobilenet_v2_1.0_224_ptq",
        "input_224_u8",
        Input::Codes,
        [19, 3, 3],
    ),
    int8_case("mcunet_vww", "input_vww80_u8", SIGNED, [16, 1, 1]),
    float_case(
        "tfs_mobilenet_v1_0.25_224_1_default_1",
        "input_224_u8",
        SIGNED,
    ),
    int8_case(
        "tfs_mobilenet_v1_0.25_224_quant",
        "input_224_u8",
        Input::Codes,
        [89, 13, 17],
    ),
];

#[test]
fn fixtures_match_the_reference_kernels() {
    let folder = fixtures().join("models/tflite");
    check(&FIXTURES, &folder, &folder);
}

/// These have no golden tensors: they import, and their own golden vectors hold.
#[test]
fn other_models_of_the_data_folder_run() {
    let Some(data) = data() else {
        eprintln!("skipped: no data folder; set AMPOULE_DATA");
        return;
    };
    for (name, outputs) in [
        ("tflm_person_detect", 1),
        ("mcunet_detection", 3),
        ("coral_deeplabv3_mnv2_dm05_pascal_quant", 1),
    ] {
        let path = data.join(format!("tflite-vision/{name}.tflite"));
        let imported = import::tflite(&path).unwrap_or_else(|e| panic!("{e}"));
        let steps = imported.weight_steps;
        let done = take_over(imported.graph, &steps, &QuantizeOptions::default());
        let done = done.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(done.compiled.program.islands, [], "{name}");
        assert_eq!(done.graph.outputs.len(), outputs, "{name}");
        println!("{name:40} arena {}", done.compiled.plan.total());
        let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
        assert!(model.session(Isa::best()).unwrap().self_test().unwrap() > 0);
    }
}

#[test]
fn models_of_the_data_folder_match_the_reference_kernels() {
    let Some(data) = data() else {
        eprintln!("skipped: no data folder; set AMPOULE_DATA");
        return;
    };
    for (name, cases) in [
        ("mlperf-tiny", &MLPERF_TINY[..]),
        ("tflite-vision", &VISION),
    ] {
        let folder = data.join(name);
        check(cases, &folder, &folder.join("golden"));
    }
}

fn check(cases: &[Case], models: &Path, golden: &Path) {
    let mut wrong = Vec::new();
    for case in cases {
        let path = models.join(format!("{}.tflite", case.model));
        let imported = import::tflite(&path).unwrap_or_else(|e| panic!("{e}"));
        let inputs = npy(&golden.join(format!("{}.npy", case.input)));
        let wanted = npy(&golden.join(format!("{}.npy", case.model)));
        let found = match is_quantised(&imported.graph) {
            true => int8(imported, &inputs, &wanted, case),
            false => float(imported.graph, &inputs, &wanted, case),
        };
        println!("{:40} {found}", case.model);
        let close = match case.wanted {
            Wanted::Float(most) => found.worst <= most,
            Wanted::Int8(off) => found.off[1..] == off && found.islands == 0,
        };
        if !close || found.top != found.samples {
            wrong.push(format!("{}: {found}", case.model));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a model gave, beside what it should.
#[derive(Default)]
struct Found {
    samples: usize,
    /// Samples whose largest output is that of the reference.
    top: usize,
    outputs: usize,
    /// Outputs that are so many steps off, for int8.
    off: [usize; 4],
    worst: f32,
    /// Bytes of arena.
    arena: usize,
    islands: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "top-1 {}/{}; of {} outputs off by 0, 1, 2, more steps: {:?}; worst {:.2e}; arena {}; islands {}",
            self.top, self.samples, self.outputs, self.off, self.worst, self.arena, self.islands
        )
    }
}

impl Found {
    fn sample(&mut self, got: &[f32], wanted: &[f32]) {
        assert_eq!(got.len(), wanted.len());
        self.samples += 1;
        self.outputs += got.len();
        // Of equal outputs any may be the first.
        let best = wanted.iter().copied().fold(f32::MIN, f32::max);
        self.top += usize::from(wanted[largest(got)] == best);
        for (g, w) in got.iter().zip(wanted) {
            let off = (g - w).abs();
            self.off[(off as usize).min(3)] += 1;
            self.worst = self.worst.max(off);
        }
    }
}

pub fn largest(values: &[f32]) -> usize {
    let best = values.iter().copied().fold(f32::MIN, f32::max);
    values.iter().position(|&v| v == best).unwrap()
}

fn int8(imported: Imported, inputs: &Npy, wanted: &Npy, case: &Case) -> Found {
    let done = take_over(
        imported.graph,
        &imported.weight_steps,
        &QuantizeOptions::default(),
    );
    let done = done.unwrap_or_else(|e| panic!("{}: {e}", case.model));
    let mut found = Found {
        arena: done.compiled.plan.bank_bytes.iter().sum(),
        islands: done.compiled.program.islands.len(),
        ..Found::default()
    };
    let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
    let mut session = model.session(Isa::best()).unwrap();
    assert!(session.self_test().unwrap() > 0);
    for (x, y) in inputs.samples().zip(wanted.samples()) {
        match case.kind {
            Input::Own => session.write_i8(0, &codes(&x)).unwrap(),
            Input::Codes => {
                let x: Vec<f32> = x.iter().map(|v| v - 128.0).collect();
                session.write_i8(0, &codes(&x)).unwrap();
            }
            Input::Real(scale, less) => {
                let x: Vec<f32> = x.iter().map(|v| v * scale - less).collect();
                session.write_f32(0, &x).unwrap();
            }
        }
        session.run().unwrap();
        let t = session.output(0).unwrap().tensor;
        let y: Vec<f32> = match wanted.kind {
            Kind::U8 => y.iter().map(|v| v - 128.0).collect(),
            Kind::I8 => y,
            Kind::F32 => {
                let code = |v: &f32| (v / t.scale).round() + t.zero_point as f32;
                y.iter().map(code).collect()
            }
        };
        let got: Vec<f32> = session
            .output_i8(0)
            .unwrap()
            .iter()
            .map(|&c| c.into())
            .collect();
        found.sample(&got, &y);
    }
    found
}

fn float(mut graph: Graph, inputs: &Npy, wanted: &Npy, case: &Case) -> Found {
    prepare(&mut graph, false).unwrap_or_else(|e| panic!("{}: {e}", case.model));
    let mut model = Model::float(&graph).unwrap();
    let mut found = Found::default();
    for (x, y) in inputs.samples().zip(wanted.samples()) {
        let x = match case.kind {
            Input::Real(scale, less) => x.iter().map(|v| v * scale - less).collect(),
            _ => x,
        };
        found.sample(&model.run_f32(&[x]).unwrap()[0], &y);
    }
    found
}

fn codes(values: &[f32]) -> Vec<i8> {
    values.iter().map(|&v| v as i8).collect()
}

#[derive(Clone, Copy)]
pub enum Kind {
    U8,
    I8,
    F32,
}

/// A NumPy array whose first axis is the sample.
pub struct Npy {
    kind: Kind,
    samples: usize,
    values: Vec<f32>,
}

impl Npy {
    pub fn samples(&self) -> impl Iterator<Item = Vec<f32>> {
        let each = self.values.len() / self.samples;
        self.values.chunks_exact(each).map(<[f32]>::to_vec)
    }
}

/// Reads version 1 of NumPy's format.
pub fn npy(path: &Path) -> Npy {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = bytes[10..].split_at(length);
    let header = std::str::from_utf8(header).unwrap();
    let after = |key: &str| {
        header
            .split(key)
            .nth(1)
            .unwrap()
            .trim_start_matches([' ', ':', '(', '\''])
    };
    let first: String = after("'shape'")
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let (kind, values) = match &after("'descr'")[..3] {
        "|u1" => (Kind::U8, data.iter().map(|&b| b.into()).collect()),
        "|i1" => (Kind::I8, data.iter().map(|&b| (b as i8).into()).collect()),
        "<f4" => {
            let words = data.as_chunks::<4>().0.iter();
            (Kind::F32, words.map(|w| f32::from_le_bytes(*w)).collect())
        }
        other => panic!("{}: type {other}", path.display()),
    };
    Npy {
        kind,
        samples: first.parse().unwrap(),
        values,
    }
}
