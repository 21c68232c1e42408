//! Runs the artifact on the board: golden vectors, hash of the outputs (the one that `ampoule selftest`
//! prints), one inference between marks, and the memory it took.
//!
//! The golden vectors run as a program does that verifies its artifact on the device, all else as one does whose
//! build has verified it: both must compute the same.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;
use core::ptr::addr_of_mut;

use ampoule_runtime::artifact::golden_input;
use ampoule_runtime::artifact::layout::bank_bytes;
use ampoule_runtime::{Arena, Error, Session, arena_bytes};
use cortex_m_runner::marks::counted;
use cortex_m_runner::paint::stack_of;
use cortex_m_runner::{Linked, MODEL, Proven, artifact, fail, print};
use sha2::{Digest, Sha256};

/// Seeds of the inputs whose outputs are hashed, as in `ampoule selftest`.
const SEEDS: [u32; 4] = [1, 2, 3, 4];

/// Bytes of the second arena bank; 0 where the artifact has one.
const SECOND: usize = match bank_bytes(MODEL, 1) {
    Some(bytes) => bytes,
    None => 0,
};

static mut ARENA: Arena<{ arena_bytes(MODEL) }> = Arena::new();
/// In memory that nobody clears at boot.
#[unsafe(link_section = ".bank1")]
static mut BANK1: MaybeUninit<Arena<SECOND>> = MaybeUninit::uninit();

#[cortex_m_rt::entry]
fn main() -> ! {
    let (verified, stack) = stack_of(|| counted(artifact::<Linked>));
    print::hex("digest", verified.digest());
    print::number("stack_verify", stack);
    let (artifact, stack) = stack_of(|| counted(artifact::<Proven>));
    print::number("stack_identify", stack);
    // SAFETY: `main` runs once, and nothing else names the banks; all zeros are an arena.
    let mut banks = unsafe {
        addr_of_mut!(BANK1).write_bytes(0, 1);
        let second = (*addr_of_mut!(BANK1)).assume_init_mut();
        [(*addr_of_mut!(ARENA)).bytes(), second.bytes()]
    };
    let promised = banks.iter().map(|b| b.len()).sum();
    let used = [0xA5, 0x5A].map(|paint| {
        banks.iter_mut().for_each(|b| b.fill(paint));
        let painted = banks.each_mut().map(|b| &mut **b);
        let session = Session::<Proven>::linked(artifact, painted);
        let Ok(mut session) = session else {
            fail("no session")
        };
        if inputs(&mut session, SEEDS[0])
            .and_then(|()| session.run())
            .is_err()
        {
            fail("the first run failed");
        }
        let last = |b: &[u8]| b.iter().rposition(|&b| b != paint).map_or(0, |i| i + 1);
        banks.each_ref().map(|b| last(b))
    });
    let used: [usize; 2] = [0, 1].map(|bank| used[0][bank].max(used[1][bank]));
    if SECOND > 0 {
        for (bytes, used) in banks.iter().zip(used) {
            print::number("bank", bytes.len());
            print::number("bank_used", used);
        }
    }
    print::number("arena", promised);
    print::number("arena_used", used.iter().sum());

    let again = banks.each_mut().map(|b| &mut **b);
    match Session::<Linked>::linked(verified, again).and_then(|mut session| session.self_test()) {
        Ok(vectors) => print::number("vectors", vectors),
        Err(_) => fail("the self-test differs"),
    }
    let Ok(mut session) = Session::<Proven>::linked(artifact, banks) else {
        fail("no session")
    };
    print::line("isa", session.isa().name());
    let mut hash = Sha256::new();
    for seed in SEEDS {
        let done = inputs(&mut session, seed).and_then(|()| session.run());
        if done.is_err() {
            fail("a run failed");
        }
        for o in 0..artifact.outputs().count() {
            hash.update(session.output_bytes(o).unwrap_or_default());
        }
    }
    print::hex("hash", &hash.finalize()[..8]);

    if inputs(&mut session, SEEDS[0]).is_err() {
        fail("no inputs");
    }
    let (done, stack) = stack_of(|| counted(|| session.run()));
    print::number("stack_run", stack);
    semihosting::process::exit(i32::from(done.is_err()))
}

fn inputs(session: &mut Session<'_, '_, Proven>, seed: u32) -> Result<(), Error> {
    for i in 0..session.artifact().inputs().count() {
        let dtype = session.input(i)?.tensor.dtype;
        golden_input(seed.wrapping_add(i as u32), dtype, session.input_bytes(i)?);
    }
    Ok(())
}
