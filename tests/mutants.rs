//! Artifacts made to do harm, checked as `fuzz/` checks them: verification refuses them, or they run
//! to their end with the same integers on every instruction set.
#![allow(missing_docs)]

#[path = "../fuzz/fuzz_targets/container.rs"]
mod container;
#[path = "../fuzz/fuzz_targets/execute.rs"]
mod execute;

use std::path::{Path, PathBuf};

use container::{Container, Random};

/// Mutants per seed.
const MUTANTS: u32 = 1000;

fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/fuzz")
        .join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let read = |p: PathBuf| (p.clone(), std::fs::read(p).unwrap());
    paths.into_iter().map(read).collect()
}

/// What fuzzing has found.
#[test]
fn findings_stay_fixed() {
    for (path, bytes) in files("findings") {
        println!("{}", path.display());
        execute::verify_and_run(&bytes);
    }
}

#[test]
fn structured_mutants_do_no_harm() {
    let mut accepted = 0;
    for (path, bytes) in files("seeds") {
        for seed in 0..MUTANTS {
            let mut random = Random::new(seed);
            let mut container = Container::parse(&bytes).unwrap();
            for _ in 0..1 + random.below(3) {
                container.mutate(&mut random);
            }
            println!("{} {seed}", path.display());
            accepted += usize::from(execute::verify_and_run(&container.bytes()));
        }
    }
    println!("{accepted} mutants were accepted and ran");
    assert!(accepted > 800, "{accepted}");
}
