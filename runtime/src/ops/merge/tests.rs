//! One grid of cases for every instruction set.

use super::*;
use crate::error::Error;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};
use std::vec::Vec;

/// Tokens whose keys and queries and values are packed in one row, as after a `qkv` layer.
fn matching(tokens: u32, heads: u32, depth: u32, protected: u32, merged: u32) -> Matching {
    let width = heads * depth;
    Matching {
        tokens,
        heads,
        depth,
        start: width,
        head: depth,
        token: 3 * width,
        protected,
        merged,
    }
}

fn cases() -> [Matching; 8] {
    [
        matching(2, 1, 1, 0, 1),
        matching(3, 1, 5, 1, 1),
        matching(9, 2, 3, 0, 5),
        matching(9, 2, 3, 0, 2),
        matching(65, 3, 10, 1, 13),
        matching(66, 3, 17, 2, 32),
        matching(69, 1, 64, 5, 8),
        matching(197, 3, 64, 1, 13),
    ]
}

fn elements(m: &Matching) -> usize {
    (m.tokens * m.token) as usize
}

fn scratch<K: Key>(m: &Matching) -> Vec<u64> {
    std::vec![0xa5a5_a5a5_a5a5_a5a5; m.scratch_bytes::<K>().div_ceil(8)]
}

/// Codes with a few equal tokens and one whose sum of keys is nothing.
fn codes(m: &Matching, zero: i8, random: &mut Random) -> Vec<i8> {
    let mut x = random.codes(elements(m));
    let row = m.token as usize;
    for _ in 0..m.tokens / 4 {
        let (from, to) = (
            random.below(m.tokens as usize),
            random.below(m.tokens as usize),
        );
        x.copy_within(from * row..(from + 1) * row, to * row);
    }
    let blank = random.below(m.tokens as usize);
    x[blank * row..(blank + 1) * row].fill(zero);
    x
}

#[test]
fn int8_places_equal_the_reference() {
    let caps = capabilities("token matching int8");
    let mut random = Random::new(71);
    for m in cases() {
        for zero in [0, random.code(), -128] {
            let x = codes(&m, zero, &mut random);
            let mut expected = std::vec![0; m.tokens as usize];
            let mut best = std::vec![(0, 0.0); m.tokens as usize];
            let key = |at: usize| f64::from(x[at]) - f64::from(zero);
            match_tokens_reference(&m, key, &mut best, &mut expected);
            let mut counts = std::vec![0; m.left()];
            expected.iter().for_each(|&p| counts[p as usize] += 1);
            assert!(counts.iter().all(|&n| n > 0), "every place is taken: {m:?}");
            for &cap in &caps {
                let mut places = Guarded::new(m.tokens as usize, -9);
                let mut scratch = scratch::<i8>(&m);
                let bytes = bytemuck::cast_slice_mut(&mut scratch);
                match_tokens(cap, &m, zero.into(), &x, places.get(), bytes).unwrap();
                assert_eq!(places.check(), expected, "{} {m:?}", cap.isa().name());
            }
        }
    }
}

#[test]
fn float_places_are_those_of_the_nearest_tokens() {
    let caps = capabilities("token matching f32");
    let mut random = Random::new(72);
    for m in cases() {
        // Pairs of nearly equal neighbours, so that rounding decides nothing.
        let mut x = random.reals(elements(&m), -1.0, 1.0);
        let row = m.token as usize;
        let first = m.protected.next_multiple_of(2) as usize;
        for i in (first..m.tokens as usize - 1)
            .step_by(2)
            .take(m.merged as usize)
        {
            x.copy_within((i + 1) * row..(i + 2) * row, i * row);
            let change = 1.0 + i as f32 * 1e-3;
            x[i * row..][..row].iter_mut().for_each(|v| *v *= change);
        }
        let mut expected = std::vec![0; m.tokens as usize];
        let mut best = std::vec![(0, 0.0); m.tokens as usize];
        match_tokens_reference(&m, |at| x[at].into(), &mut best, &mut expected);
        for &cap in &caps {
            let mut places = Guarded::new(m.tokens as usize, -9);
            let mut scratch = scratch::<f32>(&m);
            let bytes = bytemuck::cast_slice_mut(&mut scratch);
            match_tokens(cap, &m, 0, &x, places.get(), bytes).unwrap();
            assert_eq!(places.check(), expected, "{} {m:?}", cap.isa().name());
        }
    }
}

#[test]
fn the_most_alike_join_and_order_is_kept() {
    // Token 0 is protected. 2 is like 3 and 6 like 1, 4 is like nobody.
    let keys = [9, 9, 1, 0, 5, 1, 5, 1, -9, -4, 2, 0, 0, -7].map(|v: i8| v);
    let m = Matching {
        tokens: 7,
        heads: 1,
        depth: 2,
        start: 0,
        head: 0,
        token: 2,
        protected: 1,
        merged: 2,
    };
    let mut places = [0; 7];
    let mut scratch = scratch::<i8>(&m);
    let bytes = bytemuck::cast_slice_mut(&mut scratch);
    match_tokens(Capability::Portable, &m, 0, &keys, &mut places, bytes).unwrap();
    // [0], [4 or 6 unmerged], [1, 3, 5].
    assert_eq!(places[..2], [0, 2]);
    assert_eq!(places[2], places[3]);
    assert_eq!([places[3], places[5]], [3, 4]);
}

#[test]
fn merging_equals_the_reference() {
    let caps = capabilities("token averages");
    let mut random = Random::new(73);
    for m in cases() {
        for channels in [1, 7, 64, 130] {
            let tokens = m.tokens as usize;
            // Each place once, the rest anywhere.
            let mut places: Vec<i32> = (0..tokens as i32).collect();
            for i in m.left()..tokens {
                places[i] = random.below(m.left()) as i32;
            }
            places.reverse();
            let sizes: Vec<i32> = (0..tokens).map(|_| 1 + random.below(9) as i32).collect();
            let zero = random.code();
            let x = random.codes(tokens * channels);
            let wide: Vec<i16> = (0..x.len()).map(|_| random.bits() as i16).collect();
            let real = random.reals(x.len(), -3.0, 3.0);
            for &cap in &caps {
                check(cap, channels, zero.into(), &x, &places, &sizes, m.left());
                check(cap, channels, 0, &wide, &places, &sizes, m.left());
                check(cap, channels, 0, &real, &places, &sizes, m.left());
            }
            let (mut got, mut expected) = (std::vec![0; m.left()], std::vec![0; m.left()]);
            merge_sizes(&sizes, &places, &mut got).unwrap();
            merge_sizes_reference(&sizes, &places, &mut expected);
            assert_eq!(got, expected);
            assert_eq!(got.iter().sum::<i32>(), sizes.iter().sum::<i32>());
        }
    }
}

fn check<T: Token + Default + PartialEq + core::fmt::Debug>(
    cap: Capability,
    channels: usize,
    zero: i32,
    x: &[T],
    places: &[i32],
    sizes: &[i32],
    left: usize,
) {
    let mut expected = std::vec![T::default(); left * channels];
    merge_reference(channels, zero, x, places, sizes, &mut expected);
    let mut y = Guarded::new(left * channels, T::default());
    merge(cap, channels, zero, x, places, sizes, y.get()).unwrap();
    assert!(y.check() == expected, "{} × {channels}", cap.isa().name());
}

#[test]
fn what_can_not_be_is_refused() {
    let m = matching(9, 2, 3, 1, 2);
    let len = 8 * 18 + 6 + 6;
    assert!(m.fits(len) && !m.fits(len - 1));
    for broken in [
        Matching { tokens: 0, ..m },
        Matching {
            tokens: 5000,
            merged: 1,
            token: 0,
            ..m
        },
        Matching { heads: 0, ..m },
        Matching { heads: 129, ..m },
        Matching {
            depth: 1 << 20,
            ..m
        },
        Matching {
            start: u32::MAX,
            ..m
        },
        Matching {
            token: u32::MAX,
            ..m
        },
        Matching { merged: 0, ..m },
        Matching { merged: 5, ..m },
        Matching { protected: 8, ..m },
        Matching {
            protected: u32::MAX,
            ..m
        },
    ] {
        assert!(!broken.fits(len), "{broken:?}");
    }
    let cap = Capability::Portable;
    let keys = std::vec![0i8; len];
    let mut short = std::vec![0u8; m.scratch_bytes::<i8>() - 1];
    assert!(match_tokens(cap, &m, 0, &keys, &mut [0; 9], &mut short).is_err());

    let run = |places: &[i32], sizes: &[i32]| {
        let mut y = [0i8; 2];
        let x = std::vec![1i8; places.len()];
        let whole = merge(cap, 1, 0, &x, places, sizes, &mut y);
        let mut y = [0; 2];
        let counts = merge_sizes(sizes, places, &mut y);
        (whole, counts)
    };
    let index = |i| Err(Error::IndexOutOfRange(i));
    assert_eq!(run(&[0, 1, 1], &[1, 2, 3]), (Ok(()), Ok(())));
    assert_eq!(run(&[0, 1, 2], &[1, 1, 1]), (index(2), index(2)));
    assert_eq!(run(&[0, -1, 1], &[1, 1, 1]), (index(-1), index(-1)));
    assert_eq!(run(&[0, 0, 0], &[1, 1, 1]), (index(1), index(1)));
    assert_eq!(run(&[0, 1, 1], &[1, 0, 1]), (index(0), index(0)));
    assert_eq!(run(&[0, 1, 1], &[1, 4096, 1]), (index(4097), index(4097)));
    assert!(run(&[0, 1, 1], &[1, i32::MAX, 1]).0.is_err());
    assert!(run(&[0, 1, 1], &[1, 1]).0.is_err());
}
