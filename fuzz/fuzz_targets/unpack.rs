//! Any byte string: unpacking returns, within the memory it was given, and what is packed comes back.
#![no_main]

use ampoule_quantize::seal::{pack, unpack};
use ampoule_runtime::packed::MAGIC;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = unpack(&[&MAGIC[..], data].concat());
    let packed = pack(data);
    assert_eq!(unpack(&packed).as_deref(), Ok(data));
});
