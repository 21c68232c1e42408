//! Golden vectors and the hash of `ampoule selftest` on every instruction set of the (emulated) processor.
//!
//!     selftest MODEL.amp                the table
//!     selftest MODEL.amp --count ISA    one inference with the marks of `targets/icount` around each step
//!
//! Fails when a golden vector differs, or the hashes of two instruction sets.

use std::process::ExitCode;

use ampoule_runtime::artifact::golden_input;
use ampoule_runtime::{ARENA_ALIGN, Artifact, Error, Isa, Session};
use sha2::{Digest, Sha256};

/// Seeds of the inputs whose outputs are hashed, as in `ampoule selftest`.
const SEEDS: [u32; 4] = [1, 2, 3, 4];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &args[..] {
        [model] => table(model),
        [model, flag, isa] if flag == "--count" => count(model, isa),
        _ => Err("usage: selftest MODEL.amp [--count ISA]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Tests every instruction set.
fn table(model: &str) -> Result<(), String> {
    let file = std::fs::read(model).map_err(|e| format!("{model}: {e}"))?;
    let memory = Memory::holding(&file);
    let artifact = Artifact::verify(memory.bytes()).map_err(|e| format!("{model}: {e}"))?;
    let mut hashes = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let tested = test(artifact, isa);
        let (vectors, hash) = tested.map_err(|e| format!("{model} on {}: {e}", isa.name()))?;
        println!("{:<10} {vectors} vectors  {hash}", isa.name());
        hashes.push(hash);
    }
    hashes.dedup();
    match hashes.len() {
        1 => Ok(()),
        _ => Err(format!("{model}: the hashes differ")),
    }
}

/// Golden vectors that agree, and the hash.
fn test(artifact: Artifact<'_>, isa: Isa) -> Result<(usize, String), Error> {
    let mut banks = banks(&artifact);
    let banks = banks.iter_mut().map(Memory::bytes_mut);
    let mut session = Session::with_isa(artifact, banks, isa)?;
    let vectors = session.self_test()?;
    let mut hash = Sha256::new();
    for seed in SEEDS {
        inputs(&mut session, seed)?;
        session.run()?;
        for o in 0..artifact.outputs().count() {
            hash.update(session.output_bytes(o)?);
        }
    }
    let hash: String = hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((vectors, hash))
}

/// One inference; prints the operator of each step in the order of the marked regions.
fn count(model: &str, isa: &str) -> Result<(), String> {
    let file = std::fs::read(model).map_err(|e| format!("{model}: {e}"))?;
    let isa = Isa::from_name(isa).ok_or(format!("no instruction set {isa}"))?;
    let memory = Memory::holding(&file);
    let run = || {
        let artifact = Artifact::verify(memory.bytes())?;
        let mut banks = banks(&artifact);
        let banks = banks.iter_mut().map(Memory::bytes_mut);
        let mut session = Session::with_isa(artifact, banks, isa)?;
        inputs(&mut session, SEEDS[0])?;
        let mut names = Vec::with_capacity(artifact.steps().count());
        begin();
        let done = session.run_observed(|step| {
            end();
            names.push(step.step.name());
            begin();
        });
        end();
        done.map(|()| names)
    };
    for name in run().map_err(|e| format!("{model}: {e}"))? {
        println!("step {name}");
    }
    Ok(())
}

fn inputs(session: &mut Session<'_, '_>, seed: u32) -> Result<(), Error> {
    for i in 0..session.artifact().inputs().count() {
        let dtype = session.input(i)?.tensor.dtype;
        golden_input(seed.wrapping_add(i as u32), dtype, session.input_bytes(i)?);
    }
    Ok(())
}

/// Memory for each bank.
fn banks(artifact: &Artifact<'_>) -> Vec<Memory> {
    (0..artifact.banks())
        .map(|bank| Memory::holding(&vec![0; artifact.bank_bytes(bank)]))
        .collect()
}

/// Aligned bytes.
struct Memory {
    data: Vec<u8>,
    start: usize,
    len: usize,
}

impl Memory {
    fn holding(bytes: &[u8]) -> Self {
        let mut data = vec![0; bytes.len() + ARENA_ALIGN];
        let start = data.as_ptr().align_offset(ARENA_ALIGN);
        data[start..start + bytes.len()].copy_from_slice(bytes);
        let len = bytes.len();
        Memory { data, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.start + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.start + self.len]
    }
}

/// Marks the beginning of a region for the instruction counter.
#[inline(always)]
fn begin() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the hint executes as NOP.
    unsafe {
        std::arch::asm!("hint #126");
    }
}

/// Marks its end.
#[inline(always)]
fn end() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the hint executes as NOP.
    unsafe {
        std::arch::asm!("hint #127");
    }
}
