//! Any byte string: verification returns, and whatever it accepts runs to its end, with the same
//! integers on every instruction set.
//!
//! Mutations know the container: they change a record, a field of a step or a constant, and put the
//! length and the digest right, so that most of them get past the header.
#![no_main]

mod container;
mod execute;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| {
    execute::verify_and_run(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = container::Random::new(seed);
    let mutant = match container::Container::parse(&data[..size]) {
        Some(mut container) if random.below(8) != 0 => {
            for _ in 0..1 + random.below(3) {
                container.mutate(&mut random);
            }
            container.bytes()
        }
        _ => {
            let len = fuzzer_mutate(data, size, max_size);
            container::seal(&mut data[..len]);
            return len;
        }
    };
    if mutant.len() > max_size {
        return size;
    }
    data[..mutant.len()].copy_from_slice(&mutant);
    mutant.len()
});
