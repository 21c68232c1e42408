//! One grid of cases for every instruction set.

use super::*;
use crate::isa::Capability;
use crate::ops::testing::{Guarded, Random, capabilities};

const CHANNELS: [usize; 10] = [1, 2, 7, 16, 30, 64, 100, 192, 320, 1000];

#[test]
fn integers_equal_the_reference() {
    let caps = capabilities("layer norm int8 and int16");
    let mut random = Random::new(61);
    for c in CHANNELS {
        for epsilon in [1e-20, 0.3, 1e6] {
            let (gain, offset) = (random.reals(c, -40.0, 40.0), random.reals(c, -60.0, 60.0));
            let op = LayerNorm {
                gain: &gain,
                offset: &offset,
                epsilon,
                zero: i32::from(random.code()),
            };
            let mut narrow = random.codes(5 * c);
            // Constant rows have no variance.
            narrow[..c].fill(-128);
            let mut wide: std::vec::Vec<i16> = (0..5 * c).map(|_| random.bits() as i16).collect();
            wide[..c].fill(i16::MIN);
            let (mut from_narrow, mut from_wide) = (std::vec![0; 5 * c], std::vec![0; 5 * c]);
            layer_norm_reference(&op, &narrow, &mut from_narrow);
            layer_norm_reference(&op, &wide, &mut from_wide);
            for &cap in &caps {
                let name = cap.isa().name();
                let mut y = Guarded::new(5 * c, 9);
                layer_norm_i8(cap, &op, &narrow, y.get()).unwrap();
                assert!(y.check() == from_narrow, "{c} channels, i8, {name}");
                let mut z = Guarded::holding(&narrow, 9);
                layer_norm_i8_in_place(cap, &op, z.get()).unwrap();
                assert!(z.check() == from_narrow, "{c} channels, in place, {name}");
                layer_norm_i16(cap, &op, &wide, y.get()).unwrap();
                assert!(y.check() == from_wide, "{c} channels, i16, {name}");
            }
        }
    }
}

#[test]
fn int8_is_near_the_real_function() {
    let mut random = Random::new(62);
    let (scale, zero, to) = (0.05f64, -20, 0.02f64);
    let x = random.codes(96);
    let (gain, offset) = (random.reals(96, -2.0, 2.0), random.reals(96, -1.0, 1.0));
    let over = |v: &[f32]| {
        v.iter()
            .map(|&v| (f64::from(v) / to) as f32)
            .collect::<std::vec::Vec<_>>()
    };
    let (g, o) = (over(&gain), over(&offset));
    let epsilon = (96.0 * 96.0 * 1e-5 / (scale * scale)) as f32;
    let op = LayerNorm {
        gain: &g,
        offset: &o,
        epsilon,
        zero: 3,
    };
    let mut y = [0; 96];
    layer_norm_i8(Capability::Portable, &op, &x, &mut y).unwrap();
    let mut real: std::vec::Vec<f32> = x
        .iter()
        .map(|&c| (scale * f64::from(i32::from(c) - zero)) as f32)
        .collect();
    layer_norm_in_place(Capability::Portable, &mut real, &gain, &offset, 1e-5).unwrap();
    for (&code, &real) in y.iter().zip(&real) {
        let expected = (f64::from(real) / to + 3.0).clamp(-128.0, 127.0);
        assert!(
            (f64::from(code) - expected).abs() <= 0.51,
            "{code} {expected}"
        );
    }
}

#[test]
fn float_normalises() {
    for cap in capabilities("layer norm f32") {
        let mut y = [1.0, 3.0];
        layer_norm_in_place(cap, &mut y, &[2.0, 2.0], &[1.0, 0.0], 0.0).unwrap();
        assert_eq!(y, [-1.0, 2.0]);
    }
}

#[test]
fn rows_must_be_whole() {
    let (gain, offset) = ([1.0; 3], [0.0; 3]);
    let op = LayerNorm {
        gain: &gain,
        offset: &offset,
        epsilon: 1.0,
        zero: 0,
    };
    let cap = Capability::Portable;
    assert!(layer_norm_i8(cap, &op, &[0; 6], &mut [0; 6]).is_ok());
    assert!(layer_norm_i8(cap, &op, &[0; 7], &mut [0; 7]).is_err());
    assert!(layer_norm_i8(cap, &op, &[0; 6], &mut [0; 3]).is_err());
    let short = LayerNorm {
        offset: &offset[..2],
        ..op
    };
    assert!(layer_norm_i16(cap, &short, &[0; 6], &mut [0; 6]).is_err());
}
