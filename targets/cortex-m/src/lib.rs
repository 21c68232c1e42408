//! What the programs for the emulated boards share: output, marks for the instruction counter, and memory
//! that tells how much of it was used.

#![no_std]

pub mod marks;
pub mod paint;
pub mod print;

use ampoule_runtime::{Aligned, Artifact, OperatorSet, Operators};

/// The artifact that the build was given.
pub static MODEL: &[u8] = &FILE.0;
const BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model.amp"));
/// In a section of its own: `build.rs` decides on its memory.
#[unsafe(link_section = ".model")]
static FILE: Aligned<[u8; BYTES.len()]> =
    Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/model.amp")));

/// The operators of the artifact: no others are linked.
pub struct Linked;

impl Operators for Linked {
    const SET: OperatorSet = include!(concat!(env!("OUT_DIR"), "/operators.rs"));
}

/// The same, and the build has verified the artifact: the device knows it by its digest.
pub struct Proven;

impl Operators for Proven {
    const SET: OperatorSet = Linked::SET;
    const PROVEN: Option<[u8; 32]> = Some(*include_bytes!(concat!(env!("OUT_DIR"), "/digest")));
}

/// The artifact, verified; ends the program with a message when it is refused.
pub fn artifact<O: Operators>() -> Artifact<'static> {
    match Artifact::verify_for::<O>(MODEL) {
        Ok(artifact) => artifact,
        Err(_) => fail("the artifact is refused"),
    }
}

/// Ends the program with an error.
pub fn fail(message: &str) -> ! {
    print::line("error", message);
    semihosting::process::exit(1)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The message would bring the whole of `core::fmt`.
    fail("panic")
}

#[cortex_m_rt::exception]
unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
    fail("hard fault")
}
