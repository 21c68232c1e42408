//! What the runtime promises, on whole models: the same integers on every instruction set and number
//! of threads, memory exactly as announced, no heap, and no harm from damaged files.
#![allow(missing_docs)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ampoule_quantize::lower::LowerOptions;
use ampoule_quantize::model::{Model, compile};
use ampoule_quantize::pipeline::QuantizeOptions;
use ampoule_quantize::plan::PlanOptions;
use ampoule_quantize::seal::{AlignedBytes, Extras};
use ampoule_runtime::artifact::layout::{HEADER_LEN, field};
use ampoule_runtime::{Artifact, Error, Isa, Pool, Session, arena_bytes};
use common::{Builder, Lcg, inverted_residual, outputs, quantized, zoo_net};

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System.alloc` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn artifact_bytes() -> AlignedBytes {
    quantized(zoo_net(1), &QuantizeOptions::default())
        .compiled
        .bytes
}

#[test]
fn every_isa_and_thread_count_gives_the_same_bytes() {
    let mut model = Model::from_bytes(artifact_bytes()).unwrap();
    let expected: Vec<_> = (0..4)
        .map(|s| outputs(&mut model.session(Isa::Portable).unwrap(), s))
        .collect();
    let mut skipped = Vec::new();
    for isa in Isa::ALL {
        if !isa.is_available() {
            skipped.push(isa.name());
            continue;
        }
        let pools = [Pool::new(1), Pool::new(2), Pool::new(3)];
        for pool in &pools {
            let mut session = model.session_with_pool(isa, pool).unwrap();
            for (seed, expected) in expected.iter().enumerate() {
                assert_eq!(
                    &outputs(&mut session, seed as u32),
                    expected,
                    "{} × {}",
                    isa.name(),
                    pool.threads()
                );
            }
        }
        assert_eq!(
            model.session(isa).unwrap().self_test(),
            Ok(2),
            "{}",
            isa.name()
        );
    }
    println!("instruction sets not on this processor: {skipped:?}");
}

/// Attention, layer normalisation and linear layers that are large enough to be split, in int8 and f32.
#[test]
fn transformers_give_the_same_bytes_on_any_number_of_threads() {
    let net = || {
        let mut b = Builder::new(4);
        let x = b.graph.input("image", &[1, 14, 14, 48]);
        let y = b.attention(x, 3);
        b.graph.output("y", y);
        b
    };
    let values = Lcg(6).values(14 * 14 * 48, 1.0);
    let int8 = quantized(net(), &QuantizeOptions::default()).compiled.bytes;
    for mut model in [
        Model::from_bytes(int8).unwrap(),
        Model::float(&net().graph).unwrap(),
    ] {
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            let output = |session: &mut Session<'_, '_>| {
                session.write_f32(0, &values).unwrap();
                session.run().unwrap();
                session.output_bytes(0).unwrap().to_vec()
            };
            let expected = output(&mut model.session(isa).unwrap());
            for threads in 2..=5 {
                let pool = Pool::new(threads);
                let got = output(&mut model.session_with_pool(isa, &pool).unwrap());
                assert!(got == expected, "{} × {threads}", isa.name());
            }
        }
    }
}

#[test]
fn the_arena_is_exactly_as_large_as_announced() {
    let bytes = artifact_bytes();
    let artifact = Artifact::verify(&bytes).unwrap();
    let promise = arena_bytes(&bytes);
    assert_eq!(artifact.bank_bytes(0), promise);
    let mut touched = vec![false; promise + 256];
    for paint in [0x5au8, 0xa5] {
        let mut arena = AlignedBytes::zeroed(promise + 256);
        arena.fill(paint);
        let mut session = Session::new(artifact, [&mut arena[..]]).unwrap();
        for seed in 0..8 {
            outputs(&mut session, seed);
        }
        let after = session.bank(0).unwrap();
        touched
            .iter_mut()
            .zip(after)
            .for_each(|(t, &b)| *t |= b != paint);
    }
    let high_water = touched.iter().rposition(|&t| t).unwrap() + 1;
    assert!(
        high_water <= promise,
        "wrote up to {high_water}, promised {promise}"
    );
    // Buffers end on a multiple of the alignment, so the last ones may have padding behind them.
    assert!(
        promise - high_water < 64,
        "only {high_water} of {promise} promised bytes are used"
    );
    let mut short = AlignedBytes::zeroed(promise - 1);
    let refused = Session::new(artifact, [&mut short[..]]).map(|_| ());
    assert_eq!(refused, Err(Error::ArenaTooSmall(0)));
    let mut shifted = AlignedBytes::zeroed(promise + 1);
    let refused = Session::new(artifact, [&mut shifted[1..]]).map(|_| ());
    assert_eq!(refused, Err(Error::ArenaMisaligned(0)));
}

#[test]
fn a_depthwise_layer_at_the_peak_runs_in_place() {
    let net = || quantized(inverted_residual(), &QuantizeOptions::default());
    let done = net();
    let options = PlanOptions {
        in_place: false,
        ..PlanOptions::default()
    };
    let apart = compile(
        &done.graph,
        Some(&done.scheme),
        &LowerOptions::default(),
        &options,
        &Extras::default(),
    )
    .unwrap();
    let (map, all) = (2 * 24 * 20 * 64, done.compiled.plan.total());
    assert!(all < 2 * map && 2 * map < apart.plan.total(), "{all}");
    let mut apart = Model::from_bytes(apart.bytes).unwrap();
    let expected = outputs(&mut apart.session(Isa::Portable).unwrap(), 3);
    let mut model = Model::from_bytes(done.compiled.bytes).unwrap();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for threads in 1..=4 {
            let pool = Pool::new(threads);
            let mut session = model.session_with_pool(isa, &pool).unwrap();
            let got = outputs(&mut session, 3);
            assert!(got == expected, "{} × {threads}", isa.name());
        }
    }
    // Float too.
    let float = |options: &PlanOptions| {
        let lowering = LowerOptions::default();
        let compiled = compile(&done.graph, None, &lowering, options, &Extras::default());
        Model::from_bytes(compiled.unwrap().bytes).unwrap()
    };
    let x = inverted_residual().samples(1).swap_remove(0);
    let (mut a, mut b) = (float(&PlanOptions::default()), float(&options));
    assert!(a.artifact().unwrap().bank_bytes(0) < 8 * map);
    assert_eq!(a.run_f32(&x).unwrap(), b.run_f32(&x).unwrap());
}

#[test]
fn a_run_allocates_nothing() {
    let mut model = Model::from_bytes(artifact_bytes()).unwrap();
    let pool = Pool::new(2);
    for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
        let mut session = model.session_with_pool(isa, &pool).unwrap();
        session.run().unwrap();
        let before = ALLOCATIONS.with(Cell::get);
        session.run().unwrap();
        let after = ALLOCATIONS.with(Cell::get);
        assert_eq!(after, before, "{}", isa.name());
    }
    let before = ALLOCATIONS.with(Cell::get);
    let _probe = std::hint::black_box(Box::new(1u8));
    assert!(
        ALLOCATIONS.with(Cell::get) > before,
        "the counter does not count"
    );
}

#[test]
fn every_truncation_is_refused() {
    let bytes = artifact_bytes();
    for len in (0..bytes.len()).step_by(7).chain(0..HEADER_LEN + 200) {
        let cut = AlignedBytes::from(&bytes[..len]);
        assert!(Artifact::verify(&cut).is_err(), "length {len}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(
        Artifact::verify(&AlignedBytes::from(&longer[..])).map(|_| ()),
        Err(Error::Truncated)
    );
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = artifact_bytes();
    let mut damaged = bytes.clone();
    for bit in (0..HEADER_LEN * 8 + 2000).chain((0..bytes.len() * 8).step_by(1009)) {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Artifact::verify(&damaged).is_err(), "bit {bit}");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(Artifact::verify(&damaged).is_ok());
}

#[test]
fn damage_has_the_right_name() {
    let bytes = artifact_bytes();
    let with = |at: usize, value: u8| {
        let mut copy = bytes.clone();
        copy[at] = value;
        Artifact::verify(&copy).map(|_| ())
    };
    assert_eq!(with(0, b'B'), Err(Error::BadMagic));
    assert_eq!(
        with(field::MAJOR, 9),
        Err(Error::UnsupportedVersion { major: 9, minor: 3 })
    );
    assert_eq!(
        with(field::MINOR, 9),
        Err(Error::UnsupportedVersion { major: 1, minor: 9 })
    );
    assert_eq!(
        with(bytes.len() - 1, !bytes[bytes.len() - 1]),
        Err(Error::Checksum)
    );
    assert_eq!(Artifact::verify(&[]).map(|_| ()), Err(Error::Truncated));
    assert_eq!(
        Artifact::verify(&AlignedBytes::from(&[7u8; 4096][..])).map(|_| ()),
        Err(Error::BadMagic)
    );
    let mut misaligned = AlignedBytes::zeroed(bytes.len() + 1);
    misaligned[1..].copy_from_slice(&bytes);
    assert_eq!(
        Artifact::verify(&misaligned[1..]).map(|_| ()),
        Err(Error::ArtifactMisaligned)
    );
}

/// Whatever passes the structural check must run to its end without a panic: the digest is no
/// protection against somebody who can compute one.
#[test]
fn mutants_that_verify_run_safely() {
    let bytes = artifact_bytes();
    let mut rng = Lcg(99);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..6000 {
        let mut mutant = bytes.clone();
        // Weights are most of the file and the dullest target: aim mostly at what is before and after.
        for _ in 0..1 + rng.next() % 3 {
            let at = if round % 4 == 0 {
                rng.next() as usize % bytes.len()
            } else {
                rng.next() as usize % 6000 % bytes.len()
            };
            mutant[at] = match rng.next() % 4 {
                0 => rng.next() as u8,
                1 => mutant[at] ^ 1 << (rng.next() % 8),
                2 => 0xff,
                _ => mutant[at].wrapping_add(1),
            };
        }
        let Ok(artifact) = Artifact::verify_structure(&mutant) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let mut banks: Vec<AlignedBytes> = (0..artifact.banks())
            .map(|b| AlignedBytes::zeroed(artifact.bank_bytes(b).min(1 << 26)))
            .collect();
        for isa in [Isa::Portable, Isa::best()] {
            match Session::with_isa(artifact, banks.iter_mut().map(|b| &mut b[..]), isa) {
                Ok(mut session) => {
                    let outcome = session.run();
                    assert!(
                        outcome.is_ok(),
                        "{outcome:?} at {:?}",
                        artifact.steps().collect::<Vec<_>>()
                    );
                }
                Err(e) => assert!(matches!(e, Error::ArenaTooSmall(_)), "{e}"),
            }
        }
    }
    println!("mutants: {accepted} accepted and run, {refused} refused");
    assert!(accepted > 100 && refused > 1000, "{accepted} {refused}");
}
