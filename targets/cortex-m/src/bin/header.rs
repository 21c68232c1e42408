//! Damages the artifact in every bit of its header and its section table, one at a time, and lets it be
//! verified: each must be refused with an error. Without the digest some pass, and must then run without a fault.

#![no_std]
#![no_main]

use ampoule_runtime::artifact::layout::{HEADER_LEN, SECTION_ENTRY, field, u32_at};
use ampoule_runtime::{Aligned, Arena, Artifact, Session, arena_bytes};
use cortex_m_runner::{Linked, MODEL, Proven, fail, print};

static mut COPY: Aligned<[u8; MODEL.len()]> = Aligned([0; MODEL.len()]);
static mut ARENA: Arena<{ arena_bytes(MODEL) }> = Arena::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    // SAFETY: `main` runs once, and nothing else names either.
    let (copy, arena) = unsafe {
        (
            &mut (*core::ptr::addr_of_mut!(COPY)).0,
            &mut *core::ptr::addr_of_mut!(ARENA),
        )
    };
    copy.copy_from_slice(MODEL);
    let sections = u32_at(MODEL, field::SECTIONS).unwrap_or(0) as usize;
    let bits = 8 * (HEADER_LEN + sections * SECTION_ENTRY);
    let (mut refused, mut ran) = (0, 0);
    for bit in 0..bits {
        copy[bit / 8] ^= 1 << (bit % 8);
        if accepts(copy) {
            fail("damage went unnoticed");
        }
        refused += 1;
        if let Ok(artifact) = Artifact::verify_structure_for::<Linked>(copy)
            && let Ok(mut session) = Session::<Linked>::linked(artifact, [arena.bytes()])
        {
            ran += usize::from(session.run().is_ok());
        }
        copy[bit / 8] ^= 1 << (bit % 8);
    }
    print::number("bits", bits);
    print::number("refused", refused);
    print::number("ran_without_digest", ran);
    if !accepts(copy) {
        fail("the artifact is refused");
    }
    semihosting::process::exit(0)
}

/// Whether a program takes the artifact: one that verifies it, or one whose build has verified it.
fn accepts(bytes: &[u8]) -> bool {
    Artifact::verify_for::<Linked>(bytes).is_ok() || Artifact::verify_for::<Proven>(bytes).is_ok()
}
