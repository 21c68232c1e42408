//! Bytes as an ONNX model.
#![no_main]

mod import;

use ampoule_quantize::import::ImportOptions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(imported) = ampoule_quantize::import::onnx_bytes(bytes, &ImportOptions::default()) {
        import::seal(imported);
    }
});
