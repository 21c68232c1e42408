//! Files that are no models: each gives an error or a model, never a panic.

use ampoule_quantize::import::{ImportOptions, onnx, onnx_bytes};

fn small_model() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/models/mlperf-tiny"
    );
    let models = std::fs::read_dir(path)
        .unwrap()
        .filter_map(|e| Some(e.ok()?.path()));
    let mut models: Vec<_> = models
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    models.sort_by_key(|p| std::fs::metadata(p).unwrap().len());
    std::fs::read(&models[0]).unwrap()
}

#[test]
fn prefixes_are_refused() {
    let bytes = small_model();
    let lengths = (0..64).chain((64..bytes.len()).step_by(bytes.len() / 20));
    for len in lengths {
        assert!(
            onnx_bytes(&bytes[..len], &ImportOptions::default()).is_err(),
            "length {len}"
        );
    }
}

#[test]
fn mutations_never_panic() {
    let bytes = small_model();
    let mut state = 5u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    let (mut imported, mut refused) = (0, 0);
    for _ in 0..60 {
        let mut mutant = bytes.clone();
        let at = next() % mutant.len();
        mutant[at] = next() as u8;
        match onnx_bytes(&mutant, &ImportOptions::default()) {
            Ok(_) => imported += 1,
            Err(_) => refused += 1,
        }
    }
    println!("mutants: {imported} imported, {refused} refused");
    assert_eq!(imported + refused, 60);
}

#[test]
fn a_missing_file_is_named() {
    let message = onnx("/no/such/model.onnx").err().map(|e| e.to_string());
    assert!(message.is_some_and(|m| m.contains("/no/such/model.onnx")));
}
