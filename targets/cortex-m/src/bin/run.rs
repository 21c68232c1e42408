//! Runs the artifact on the board: golden vectors, hash of the outputs (the one that `ampoule selftest`
//! prints), one inference between marks, and the memory it took.

#![no_std]
#![no_main]

use ampoule_runtime::artifact::golden_input;
use ampoule_runtime::{Arena, Error, Session, arena_bytes};
use cortex_m_runner::marks::counted;
use cortex_m_runner::paint::stack_of;
use cortex_m_runner::{Linked, MODEL, artifact, fail, print};
use sha2::{Digest, Sha256};

/// Seeds of the inputs whose outputs are hashed, as in `ampoule selftest`.
const SEEDS: [u32; 4] = [1, 2, 3, 4];

static mut ARENA: Arena<{ arena_bytes(MODEL) }> = Arena::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    let (artifact, stack) = stack_of(|| counted(artifact));
    print::hex("digest", artifact.digest());
    print::number("stack_verify", stack);
    // SAFETY: `main` runs once, and nothing else names the arena.
    let arena = unsafe { &mut *core::ptr::addr_of_mut!(ARENA) };
    let promised = arena.bytes().len();
    let used = [0xA5, 0x5A].map(|paint| {
        arena.bytes().fill(paint);
        let session = Session::linked(artifact, [arena.bytes()]);
        let Ok(mut session) = session else {
            fail("no session")
        };
        if inputs(&mut session, SEEDS[0])
            .and_then(|()| session.run())
            .is_err()
        {
            fail("the first run failed");
        }
        arena
            .bytes()
            .iter()
            .rposition(|&b| b != paint)
            .map_or(0, |last| last + 1)
    });
    print::number("arena", promised);
    print::number("arena_used", used[0].max(used[1]));

    let Ok(mut session) = Session::linked(artifact, [arena.bytes()]) else {
        fail("no session")
    };
    print::line("isa", session.isa().name());
    match session.self_test() {
        Ok(vectors) => print::number("vectors", vectors),
        Err(_) => fail("the self-test differs"),
    }
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

fn inputs(session: &mut Session<'_, '_, Linked>, seed: u32) -> Result<(), Error> {
    for i in 0..session.artifact().inputs().count() {
        let dtype = session.input(i)?.tensor.dtype;
        golden_input(seed.wrapping_add(i as u32), dtype, session.input_bytes(i)?);
    }
    Ok(())
}
