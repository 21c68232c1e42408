//! Any byte string: verification returns, and whatever it accepts runs to its end.
#![no_main]

use std::cell::RefCell;

use ampoule_runtime::{Artifact, Isa, Session};
use libfuzzer_sys::fuzz_target;

/// Largest arena a fuzzed header may ask for.
const LIMIT: usize = 1 << 24;
/// Largest number of elements in a tensor: keeps single runs short.
const ELEMENTS: usize = 1 << 18;

thread_local! {
    static MEMORY: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

fuzz_target!(|data: &[u8]| {
    MEMORY.with_borrow_mut(|(file, arena)| {
        let bytes = aligned(file, data.len());
        bytes.copy_from_slice(data);
        let Ok(artifact) = Artifact::verify_structure(bytes) else { return };
        let sizes: Vec<usize> = (0..artifact.banks()).map(|b| artifact.bank_bytes(b)).collect();
        let largest = (0..artifact.tensor_count() as u16)
            .filter_map(|id| artifact.tensor(id).ok())
            .map(|t| t.shape.elements())
            .max();
        if sizes.iter().sum::<usize>() > LIMIT || largest.is_none_or(|n| n > ELEMENTS) {
            return;
        }
        let spans: Vec<usize> = sizes.iter().map(|n| n.next_multiple_of(64)).collect();
        for isa in [Isa::Portable, Isa::best()] {
            let mut rest = aligned(arena, spans.iter().sum());
            let mut banks = Vec::new();
            for &span in &spans {
                let (bank, tail) = rest.split_at_mut(span);
                banks.push(bank);
                rest = tail;
            }
            let mut session = Session::with_isa(artifact, banks, isa).expect("sizes and alignment are right");
            session.run().expect("verified artifacts run");
        }
    });
});

/// `len` bytes at an aligned address.
fn aligned(storage: &mut Vec<u8>, len: usize) -> &mut [u8] {
    storage.resize(len + 64, 0);
    let start = storage.as_ptr().align_offset(64);
    &mut storage[start..start + len]
}
