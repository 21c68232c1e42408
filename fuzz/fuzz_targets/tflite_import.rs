//! Bytes as a TFLite model.
#![no_main]

mod import;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(imported) = ampoule_quantize::import::tflite_bytes(bytes) {
        import::seal(imported);
    }
});
