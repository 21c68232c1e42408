//! A program whose build has verified its artifact takes that artifact alone, and computes the same with it.
#![allow(missing_docs)]

use ampoule_runtime::artifact::golden_input;
use ampoule_runtime::artifact::layout::{ALIGN, HEADER_LEN, SECTION_ENTRY, field, section, u32_at};
use ampoule_runtime::{
    AllOperators, Arena, Artifact, Error, OperatorSet, Operators, Session, arena_bytes,
    include_ampoule,
};
use sha2::{Digest, Sha256};

static MODEL: &[u8] = include_ampoule!("../../examples/firmware/model.amp");

/// What firmware's build script writes.
struct Proven;

impl Operators for Proven {
    const SET: OperatorSet = AllOperators::SET;
    const PROVEN: Option<[u8; 32]> = Some(digest_field(MODEL));
}

const fn digest_field(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    let mut i = 0;
    while i < digest.len() {
        digest[i] = bytes[field::DIGEST + i];
        i += 1;
    }
    digest
}

/// Calls `f` with a copy of the bytes at an aligned address.
fn with_copy<R>(bytes: &[u8], f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut memory = vec![0; bytes.len() + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let copy = &mut memory[start..][..bytes.len()];
    copy.copy_from_slice(bytes);
    f(copy)
}

/// What both entries say, which must be the same.
fn refusal(bytes: &[u8]) -> Option<Error> {
    let refused = Artifact::verify_for::<Proven>(bytes).err();
    let structure = Artifact::verify_structure_for::<Proven>(bytes).err();
    assert_eq!(refused, structure);
    refused
}

#[test]
fn outputs_are_those_of_a_program_that_verifies() {
    let artifact = Artifact::verify(MODEL).unwrap();
    let proven = Artifact::verify_for::<Proven>(MODEL).unwrap();
    let mut arena = Arena::<{ arena_bytes(MODEL) }>::new();
    let mut other = Arena::<{ arena_bytes(MODEL) }>::new();
    let mut session = Session::new(artifact, [arena.bytes()]).unwrap();
    let mut trusting = Session::<Proven>::linked(proven, [other.bytes()]).unwrap();
    assert!(trusting.self_test().unwrap() > 0);
    for seed in 1..4 {
        for (i, io) in artifact.inputs().enumerate() {
            golden_input(seed, io.tensor.dtype, session.input_bytes(i).unwrap());
            golden_input(seed, io.tensor.dtype, trusting.input_bytes(i).unwrap());
        }
        session.run().unwrap();
        trusting.run().unwrap();
        for o in 0..artifact.outputs().count() {
            assert_eq!(session.output_bytes(o), trusting.output_bytes(o));
        }
    }
}

#[test]
fn damage_is_refused() {
    let sections = u32_at(MODEL, field::SECTIONS).unwrap() as usize;
    let head = 8 * (HEADER_LEN + sections * SECTION_ENTRY);
    with_copy(MODEL, |copy| {
        assert_eq!(refusal(copy), None);
        for bit in (0..head).chain((head..8 * MODEL.len()).step_by(9973)) {
            copy[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(refusal(copy), Some(Error::Checksum), "bit {bit}");
            copy[bit / 8] ^= 1 << (bit % 8);
        }
    });
    for len in [0, 7, field::DIGEST, HEADER_LEN, MODEL.len() - 1] {
        assert_eq!(refusal(&MODEL[..len]), Some(Error::Checksum), "{len} bytes");
    }
}

#[test]
fn another_artifact_is_refused_though_it_is_sound() {
    with_copy(MODEL, |copy| {
        let artifact = Artifact::verify(MODEL).unwrap();
        let meta = artifact.section(section::META).unwrap();
        let start = meta.as_ptr() as usize - MODEL.as_ptr() as usize;
        // Facts for people: what the file computes stays the same.
        copy[start] ^= 1;
        let hash = Sha256::new()
            .chain_update(&copy[..field::DIGEST])
            .chain_update(&copy[HEADER_LEN..])
            .finalize();
        copy[field::DIGEST..HEADER_LEN].copy_from_slice(&hash);
        assert!(Artifact::verify(copy).is_ok());
        assert_eq!(refusal(copy), Some(Error::Checksum));
    });
}

#[test]
fn bytes_at_an_unaligned_address_are_refused() {
    let mut shifted = vec![0];
    shifted.extend_from_slice(MODEL);
    with_copy(&shifted, |copy| {
        assert_eq!(refusal(&copy[1..]), Some(Error::ArtifactMisaligned));
    });
}
