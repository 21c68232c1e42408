//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};
use std::vec::Vec;

/// Attention over a map of `h × w` tokens cut into windows, from one tensor with q, k and v of each
/// head side by side.
fn windows(map: [u32; 2], window: [u32; 2], heads: u32, depth: u32, width: u32) -> Geometry {
    let channels = heads * (2 * depth + width);
    let view = |start: u32, head: u32, channels: u32| View {
        start,
        outer: [window[0] * map[1] * channels, window[1] * channels, head, 0],
        token: [map[1] * channels, channels],
    };
    let head = 2 * depth + width;
    Geometry {
        outer: [map[0] / window[0], map[1] / window[1], heads, 1],
        queries: window,
        keys: window,
        depth,
        width,
        q: view(0, head, channels),
        k: view(depth, head, channels),
        v: view(2 * depth, head, channels),
        y: view(0, width, heads * width),
    }
}

fn cases() -> Vec<Geometry> {
    let mut out = Vec::new();
    for (map, window, heads, depth, width) in [
        ([1, 1], [1, 1], 1, 1, 1),
        ([1, 5], [1, 5], 2, 3, 5),
        ([4, 4], [2, 2], 3, 12, 12),
        ([1, 65], [1, 65], 1, 10, 10),
        ([7, 7], [7, 7], 1, 32, 32),
        ([6, 18], [6, 9], 1, 16, 32),
        ([17, 2], [17, 2], 1, 64, 20),
        ([3, 19], [3, 19], 1, 7, 33),
    ] {
        out.push(windows(map, window, heads, depth, width));
    }
    // Fewer queries than keys.
    let mut pooled = windows([1, 50], [1, 50], 2, 16, 16);
    pooled.queries = [1, 1];
    pooled.y = View {
        outer: [0, 0, 16, 0],
        ..View::default()
    };
    out.push(pooled);
    out
}

fn elements(g: &Geometry) -> (usize, usize) {
    let [a, b, heads, _] = g.outer.map(|n| n as usize);
    let x = a * b * g.key_count() * heads * (2 * g.depth + g.width) as usize;
    (x, g.outer_count() * g.query_count() * g.width as usize)
}

/// Uneven parts of a result, as threads share it; one where it cannot be split.
fn parts<'y, T>(g: &Geometry, y: &'y mut [T]) -> Vec<(usize, &'y mut [T])> {
    let grain = g.grain().unwrap_or(y.len());
    let (mut out, mut first, mut rest) = (Vec::new(), 0, y);
    for count in (1..).map(|n| 3 * n) {
        if rest.is_empty() {
            break;
        }
        let (part, tail) = rest.split_at_mut(rest.len().min(count * grain));
        let len = part.len();
        out.push((first, part));
        (first, rest) = (first + len, tail);
    }
    out
}

#[test]
fn results_are_split_where_no_row_is_cut() {
    // Heads side by side within a token; windows beside each other; one query for all keys.
    assert_eq!(windows([14, 14], [7, 7], 4, 8, 8).grain(), Some(8));
    assert_eq!(windows([7, 7], [7, 7], 1, 8, 8).grain(), Some(8));
    assert_eq!(windows([1, 1], [1, 1], 1, 1, 1).grain(), None);
    // Queries whose rows do not follow each other.
    let mut transposed = windows([4, 4], [2, 2], 3, 12, 12);
    transposed.y.token.reverse();
    assert_eq!(transposed.grain(), None);
    let g = windows([4, 4], [2, 2], 3, 12, 12);
    assert_eq!(g.queries_within([0, 0, 0, 0], &(0..36 * 4)), 0..2);
    assert_eq!(g.queries_within([0, 0, 2, 0], &(36..36 * 5)), 1..3);
    assert!(g.queries_within([1, 0, 0, 0], &(0..36 * 8)).is_empty());
    let (x, y) = elements(&g);
    assert!(g.fits_part(x, x, x, &(36..y)) && !g.fits_part(x, x, x, &(35..y)));
    assert!(!g.fits_part(x, x, x, &(36..y + 36)));
}

/// Values of a bias in either layout, and none.
fn biases(g: &Geometry, random: &mut Random) -> Vec<Option<(Vec<f32>, BiasLayout)>> {
    let (keys, heads) = (g.key_count(), g.outer[2] as usize);
    let padded = keys.next_multiple_of(16);
    let mut full = Vec::new();
    for _ in 0..heads * g.query_count() {
        full.extend(random.reals(keys, -6.0, 6.0));
        full.resize(full.len() + padded - keys, BARRED);
    }
    let step = (g.query_count() * padded) as u32;
    let mut out = std::vec![
        None,
        Some((
            full,
            BiasLayout::Full {
                outer: [0, 0, step, 0]
            }
        ))
    ];
    if g.queries == g.keys {
        let [h, w] = g.keys;
        let step = (2 * h - 1) * (2 * w - 1);
        let values = random.reals(heads * step as usize + 16, -6.0, 6.0);
        out.push(Some((
            values,
            BiasLayout::Relative {
                outer: [0, 0, step, 0],
            },
        )));
    }
    out
}

/// Tokens that keys stand for.
fn sizes(g: &Geometry, random: &mut Random) -> Vec<i32> {
    (0..g.key_count())
        .map(|_| 1 + random.below(40) as i32)
        .collect()
}

#[test]
fn int8_equals_the_reference() {
    let caps = capabilities("attention int8");
    let mut random = Random::new(51);
    for g in cases() {
        let (x_len, y_len) = elements(&g);
        for bias in biases(&g, &mut random) {
            for multiplier in [1e-4, 0.01, 3.0] {
                let x = random.codes(x_len);
                let sizes = sizes(&g, &mut random);
                let op = AttentionI8 {
                    geometry: g,
                    multiplier,
                    bias: bias.as_ref().map(|(v, layout)| Bias {
                        values: v,
                        layout: *layout,
                    }),
                    sizes: bias.is_none().then_some(&sizes),
                    q_zero: random.code(),
                    v_zero: random.code(),
                    ratio: random.real(0.2, 3.0),
                    y_zero: i32::from(random.code()),
                };
                assert!(op.bias.is_none_or(|b| b.is_sound(&g)));
                let mut expected = std::vec![0; y_len];
                attention_i8_reference(&op, &x, &x, &x, &mut expected);
                for &cap in &caps {
                    let mut y = Guarded::new(y_len, 9);
                    let mut scratch = Guarded::new(scratch_bytes(&g) + 3, 0xa5u8);
                    for (first, part) in parts(&g, y.get()) {
                        attention_i8(cap, &op, &x, &x, &x, first, part, scratch.get()).unwrap();
                    }
                    let (name, y) = (cap.isa().name(), y.check());
                    assert!(y == expected, "{name} {g:?} × {multiplier}");
                    scratch.check();
                }
            }
        }
    }
}

#[test]
fn float_is_close_to_double_precision() {
    let caps = capabilities("attention f32");
    let mut random = Random::new(52);
    for g in cases() {
        let (x_len, y_len) = elements(&g);
        for bias in biases(&g, &mut random) {
            let bias = bias.as_ref().map(|(v, layout)| Bias {
                values: v,
                layout: *layout,
            });
            let sizes = sizes(&g, &mut random);
            let sizes = bias.is_none().then_some(&sizes[..]);
            let x = random.reals(x_len, -2.0, 2.0);
            let mut expected = std::vec![0.0; y_len];
            attention_f32_reference(&g, 0.3, bias, sizes, &x, &x, &x, &mut expected);
            for &cap in &caps {
                let mut y = Guarded::new(y_len, 9.0);
                let mut scratch = std::vec![0xa5u8; scratch_bytes_f32(&g) + 3];
                attention_f32(
                    cap,
                    &g,
                    0.3,
                    bias,
                    sizes,
                    &x,
                    &x,
                    &x,
                    0,
                    y.get(),
                    &mut scratch,
                )
                .unwrap();
                let mut split = Guarded::new(y_len, 9.0);
                for (first, part) in parts(&g, split.get()) {
                    attention_f32(
                        cap,
                        &g,
                        0.3,
                        bias,
                        sizes,
                        &x,
                        &x,
                        &x,
                        first,
                        part,
                        &mut scratch,
                    )
                    .unwrap();
                }
                assert!(split.check() == y.check(), "{g:?} is not the same in parts");
                for (got, want) in y.check().iter().zip(&expected) {
                    assert!((got - want).abs() <= 1e-5, "{got} {want} {g:?}");
                }
            }
        }
    }
}

#[test]
fn exponential_is_accurate_to_a_code() {
    for i in 0..=16_000 {
        let d = -f64::from(i) / 1000.0;
        let exact = 255.0 * libm::exp2(d);
        let error = (f64::from(exp2_code(d as f32)) - exact).abs();
        assert!(error <= 0.53, "2^{d}: off by {error}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let g = windows([4, 4], [2, 2], 3, 12, 12);
    let (x, y) = elements(&g);
    assert!(g.fits(x, x, x, y));
    assert!(!g.fits(x - 25, x, x, y) && !g.fits(x, x - 13, x, y) && !g.fits(x, x, x - 1, y));
    assert!(!g.fits(x, x, x, y + 1) && !g.fits(x, x, x, y - 1));
    let far = u32::MAX;
    for broken in [
        Geometry { depth: 0, ..g },
        Geometry { keys: [0, 2], ..g },
        Geometry {
            keys: [far, far],
            ..g
        },
        Geometry {
            outer: [far; 4],
            ..g
        },
        Geometry {
            k: View { start: far, ..g.k },
            ..g
        },
        Geometry {
            q: View {
                outer: [far; 4],
                ..g.q
            },
            ..g
        },
    ] {
        assert!(!broken.fits(x, x, x, y), "{broken:?}");
    }
    // Where a `usize` can't count what such an attention needs, nothing is enough.
    let huge = Geometry {
        queries: [1, 1],
        keys: [1, 32768],
        depth: 32766,
        ..g
    };
    assert!(scratch_bytes_f32(&huge) as u64 >= 1 << 32 || scratch_bytes_f32(&huge) == usize::MAX);
    let bias = |len: usize, layout| Bias {
        values: [0.0; 4096][..len].to_vec().leak(),
        layout,
    };
    let full = BiasLayout::Full {
        outer: [0, 0, 64, 0],
    };
    assert!(bias(192, full).fits(&g) && !bias(191, full).fits(&g));
    let relative = BiasLayout::Relative {
        outer: [0, 0, 9, 0],
    };
    assert!(bias(43, relative).fits(&g) && !bias(42, relative).fits(&g));
    assert!(!bias(192, full).is_sound(&g), "the padding is not barred");
    let op = AttentionI8 {
        geometry: g,
        multiplier: 0.1,
        bias: None,
        sizes: None,
        q_zero: 0,
        v_zero: 0,
        ratio: 1.0,
        y_zero: 0,
    };
    let codes = std::vec![0; x];
    let mut short = std::vec![0; scratch_bytes(&g) - 1];
    let cap = Capability::Portable;
    let refused = attention_i8(
        cap,
        &op,
        &codes,
        &codes,
        &codes,
        0,
        &mut std::vec![0; y],
        &mut short,
    );
    assert!(refused.is_err());
}
