//! The least that runs a model: boot, verification, input, run, output. Its size in flash is the runtime's.

#![no_std]
#![no_main]

use core::ptr::addr_of_mut;

use ampoule_runtime::artifact::layout::bank_bytes;
use ampoule_runtime::{
    Aligned, Arena, Artifact, Error, OperatorSet, Operators, Session, arena_bytes,
};

static MODEL: &[u8] = &MODEL_FILE.0;
const BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model.amp"));
/// In a section of its own: `build.rs` decides on its memory.
#[unsafe(link_section = ".model")]
static MODEL_FILE: Aligned<[u8; BYTES.len()]> =
    Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/model.amp")));
/// Bytes of the second arena bank; 0 where the artifact has one.
const SECOND: usize = match bank_bytes(MODEL, 1) {
    Some(bytes) => bytes,
    None => 0,
};

static mut ARENA: Arena<{ arena_bytes(MODEL) }> = Arena::new();
static mut BANK1: Arena<SECOND> = Arena::new();

struct Linked;

impl Operators for Linked {
    const SET: OperatorSet = include!(concat!(env!("OUT_DIR"), "/operators.rs"));
    /// The build has verified the model, unless the device is to do so.
    const PROVEN: Option<[u8; 32]> = match cfg!(feature = "verify") {
        true => None,
        false => Some(*include_bytes!(concat!(env!("OUT_DIR"), "/digest"))),
    };
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let _ = infer();
    loop {}
}

fn infer() -> Result<(), Error> {
    // SAFETY: `main` runs once, and nothing else names the banks.
    let (first, second) = unsafe { (&mut *addr_of_mut!(ARENA), &mut *addr_of_mut!(BANK1)) };
    let artifact = Artifact::verify_for::<Linked>(MODEL)?;
    let mut session = match SECOND {
        0 => Session::<Linked>::linked(artifact, [first.bytes()])?,
        _ => Session::<Linked>::linked(artifact, [first.bytes(), second.bytes()])?,
    };
    for byte in session.input_bytes(0)? {
        *byte = sample();
    }
    session.run()?;
    session.output_bytes(0)?.iter().for_each(|&byte| show(byte));
    Ok(())
}

/// What a sensor would give.
fn sample() -> u8 {
    // SAFETY: a byte of the artifact, which the compiler can't know.
    unsafe { core::ptr::read_volatile(MODEL.as_ptr()) }
}

/// What a display would take.
fn show(byte: u8) {
    // SAFETY: a variable of this function, written as a device register would be.
    unsafe { core::ptr::write_volatile(&mut { byte }, byte) };
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
