//! Damaged models: import gives an error or a model, without a panic and without memory that the file does
//! not account for. A quick pass over what `fuzz/` does at length.
#![allow(missing_docs, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ampoule_quantize::import::{self, ImportOptions, Imported};
use ampoule_quantize::pipeline::{QuantizeOptions, take_over};

/// Mutants of each model.
const MUTANTS: u32 = 400;

/// Largest block that import may ask for: far more than any of the models here has.
const LARGEST: usize = 64 << 20;

/// Elements of all values of a model that is small enough to be sealed here.
const SMALL: usize = 1 << 20;

/// Remembers the largest request.
struct Watched;

static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `System.alloc` with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        MOST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the block came from `System.alloc` with this layout.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/models")
        .join(name)
}

#[test]
fn damaged_tflite_models_are_refused_or_imported() {
    let names = [
        "tflite/kws_dscnn_int8.tflite",
        "tflite/kws_dscnn_float.tflite",
    ];
    damage(&names, |bytes| import::tflite_bytes(bytes).ok());
}

#[test]
fn damaged_onnx_models_are_refused_or_imported() {
    let names = [
        "quantised/qdq_int8.onnx",
        "quantised/operators.onnx",
        "quantised/dynamic.onnx",
        "quantised/float.onnx",
    ];
    let options = ImportOptions::default();
    damage(&names, |bytes| import::onnx_bytes(bytes, &options).ok());
}

fn damage(names: &[&str], import: impl Fn(&[u8]) -> Option<Imported>) {
    let (mut accepted, mut sealed) = (0, 0);
    for name in names {
        let good = std::fs::read(fixture(name)).unwrap();
        assert!(import(&good).is_some(), "{name}");
        for seed in 0..MUTANTS {
            let bytes = mutant(&good, seed);
            let Some(imported) = import(&bytes) else {
                continue;
            };
            accepted += 1;
            let values = imported.graph.values.iter();
            let elements = values
                .map(|v| v.shape.iter().product::<usize>())
                .sum::<usize>();
            // Errors are fine, here too.
            if elements < SMALL {
                let steps = &imported.weight_steps;
                let done = take_over(imported.graph, steps, &QuantizeOptions::default());
                sealed += usize::from(done.is_ok());
            }
        }
        let most = MOST.load(Ordering::Relaxed);
        assert!(most < LARGEST, "{name}: a block of {most} bytes");
    }
    println!(
        "{accepted} of {} mutants imported, {sealed} sealed",
        MUTANTS as usize * names.len()
    );
    assert!(accepted > 0, "mutants are too damaged to test anything");
}

/// A damaged copy: bits, bytes, words or lengths changed in a few places, a part copied over another, or the
/// end cut off. Mostly near the ends, where the structure of both formats is.
fn mutant(good: &[u8], seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below.max(1)
    };
    let mut bytes = good.to_vec();
    let n = bytes.len();
    for _ in 0..=next(4) {
        let at = match next(4) {
            0 => next(n.min(2048)),
            1 | 2 => n - 1 - next(n.min(16384)),
            _ => next(n),
        };
        match next(7) {
            0 => bytes[at] ^= 1 << next(8),
            1 => bytes[at] = next(256) as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
            3 | 4 => {
                const WORDS: [u32; 8] = [
                    0,
                    1,
                    2,
                    0x7fff_ffff,
                    0x8000_0000,
                    u32::MAX,
                    0x7f80_0000,
                    0x0001_0000,
                ];
                let at = at / 4 * 4;
                let word = WORDS[next(8)].to_le_bytes();
                if let Some(place) = bytes.get_mut(at..at + 4) {
                    place.copy_from_slice(&word);
                }
            }
            5 => {
                let (from, length) = (next(n), next(64));
                if from + length <= n && at + length <= n {
                    bytes.copy_within(from..from + length, at);
                }
            }
            _ => {}
        }
    }
    if next(12) == 0 {
        bytes.truncate(next(n));
    }
    bytes
}
