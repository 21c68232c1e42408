//! AdamW whose moments take one byte per parameter: "COAT: Compressing Optimizer states and Activation for
//! Memory-Efficient FP8 Training" (Xi et al., 2024).
//!
//! Moments are kept in groups of 128 as E4M3 numbers of eight bits. Their range of 2⁻⁹..448 is far wider
//! than that of most groups, so each group is first raised to a power that stretches it over the range
//! ("dynamic range expansion"), where the relative error of the number format is divided by that power.

use super::adamw::{self, Constants, MOMENTS};
use super::block::{Block, blocks};
use super::state::Given;
use super::{AdamWConfig, Optimizer, StateArray, StateData, StateError};
use crate::graph::Parameter;
use crate::isa::{self, Simd, kernel};
use crate::math;

/// Values that share a power and a largest value.
const GROUP: usize = 128;

/// Largest E4M3 number.
const MOST: f32 = 448.0;

/// Ratio that a group is stretched to: the range of E4M3 with some room below.
const RANGE: f32 = MOST * MOST / 2.0;

/// Powers are multiples of its reciprocal.
const STEPS: f32 = 16.0;

/// AdamW with one-byte moments.
#[derive(Debug, Clone, PartialEq)]
pub struct CoatAdamW {
    config: AdamWConfig,
    blocks: Vec<Block>,
    /// First and second moments, by parameter.
    moments: [Vec<Codes>; 2],
    steps: u64,
}

/// A moment of a parameter.
#[derive(Debug, Clone, PartialEq)]
struct Codes {
    /// E4M3.
    codes: Vec<u8>,
    /// Per group its largest value and its power.
    groups: Vec<[f32; 2]>,
}

impl CoatAdamW {
    /// For these parameters, with factors of their learning rates. Parameters of one axis, or without
    /// weight decay, are not decayed.
    pub fn new(parameters: &[Parameter], factors: &[f32], config: AdamWConfig) -> Self {
        let blocks = blocks(parameters, factors, config.weight_decay);
        let zeros = || {
            let codes = |b: &Block| Codes {
                codes: vec![0; b.len],
                groups: vec![[0.0, 1.0]; b.len.div_ceil(GROUP)],
            };
            blocks.iter().map(codes).collect()
        };
        CoatAdamW {
            config,
            moments: [zeros(), zeros()],
            blocks,
            steps: 0,
        }
    }
}

impl Optimizer for CoatAdamW {
    fn step(&mut self, parameters: &mut [Vec<f32>], gradients: &[Vec<f32>], rate: f32) {
        self.steps += 1;
        let [first, second] = &mut self.moments;
        for (i, block) in self.blocks.iter().enumerate() {
            let constants = Constants::new(&self.config, block, rate, self.steps);
            let weights = &mut parameters[i][..block.len];
            let gradients = &gradients[i][..block.len];
            update(constants, gradients, &mut first[i], &mut second[i], weights);
        }
    }

    fn state(&self) -> Vec<StateArray> {
        let mut state = vec![StateArray::new("steps", StateData::U64(vec![self.steps]))];
        for (moment, values) in MOMENTS.iter().zip(&self.moments) {
            for (block, values) in self.blocks.iter().zip(values).filter(|(b, _)| b.len > 0) {
                let codes = StateData::U8(values.codes.clone());
                let groups = StateData::F32(values.groups.as_flattened().to_vec());
                state.push(StateArray::new(format!("{moment}/{}", block.name), codes));
                state.push(StateArray::new(
                    format!("{moment} groups/{}", block.name),
                    groups,
                ));
            }
        }
        state
    }

    fn restore(&mut self, state: Vec<StateArray>) -> Result<(), StateError> {
        let mut given = Given::new(state);
        let steps = given.count("steps")?;
        let mut moments = self.moments.clone();
        for (moment, values) in MOMENTS.iter().zip(&mut moments) {
            for (block, values) in self.blocks.iter().zip(values).filter(|(b, _)| b.len > 0) {
                values.codes = given.u8(&format!("{moment}/{}", block.name), block.len)?;
                let name = format!("{moment} groups/{}", block.name);
                let groups = given.f32(&name, 2 * values.groups.len())?;
                values.groups = groups.as_chunks().0.to_vec();
            }
        }
        given.finish()?;
        (self.steps, self.moments) = (steps, moments);
        Ok(())
    }
}

kernel! {
    fn update<'a, S, simd>(
        constants: Constants,
        g: &'a [f32],
        first: &'a mut Codes,
        second: &'a mut Codes,
        w: &'a mut [f32],
    ) {
        let (mut m, mut v) = ([0.0; GROUP], [0.0; GROUP]);
        let groups = first.groups.iter_mut().zip(&mut second.groups);
        for (at, (of_m, of_v)) in groups.enumerate() {
            let start = at * GROUP;
            let range = start..w.len().min(start + GROUP);
            let n = range.len();
            let (first, second) = (&mut first.codes[range.clone()], &mut second.codes[range.clone()]);
            decode(simd, first, *of_m, &mut m);
            decode(simd, second, *of_v, &mut v);
            let w = &mut w[range.clone()];
            adamw::step(simd, constants, &g[range], &mut m[..n], &mut v[..n], w);
            *of_m = encode(simd, &m, first);
            *of_v = encode(simd, &v, second);
        }
    }
}

/// Writes the codes of the first values of a group; gives its largest value and power.
#[inline(always)]
fn encode<S: Simd>(simd: S, x: &[f32; GROUP], codes: &mut [u8]) -> [f32; 2] {
    let mut sizes = [0.0; GROUP];
    sizes[..codes.len()].copy_from_slice(&x[..codes.len()]);
    for size in &mut sizes {
        *size = size.abs();
    }
    let most = isa::max(simd, &sizes);
    if most < f32::MIN_POSITIVE {
        codes.fill(0);
        return [0.0, 1.0];
    }
    // The smallest is what the largest negative is.
    let mut negatives = [0.0; GROUP];
    for (negative, size) in negatives.iter_mut().zip(sizes) {
        let is_zero = size < f32::MIN_POSITIVE;
        *negative = if is_zero { f32::NEG_INFINITY } else { -size };
    }
    let least = -isa::max(simd, &negatives);
    let power = power(math::log2(simd, most) - math::log2(simd, least));
    let share = 1.0 / most;
    let mut wide = [0u32; GROUP];
    for i in 0..GROUP {
        let ratio = sizes[i] * share;
        let ratio = if ratio < f32::MIN_POSITIVE {
            f32::MIN_POSITIVE
        } else {
            ratio
        };
        let stretched = std::f32::consts::LN_2 * power * math::log2(simd, ratio);
        let bits = e4m3(MOST * math::exp(simd, stretched));
        let bits = if sizes[i] < f32::MIN_POSITIVE {
            0
        } else {
            bits
        };
        wide[i] = bits | (x[i].to_bits() >> 24 & 0x80);
    }
    for (code, wide) in codes.iter_mut().zip(wide) {
        *code = wide as u8;
    }
    [most, power]
}

/// The power that stretches a group with a largest ratio of 2^`log` over the range.
fn power(log: f32) -> f32 {
    let exact = STEPS * RANGE.log2() / log;
    // Values that are all alike need no power; the limit keeps it finite.
    (exact.floor() / STEPS).clamp(1.0 / STEPS, 64.0)
}

/// The values of a group. COAT's `|q · s|^(1/k) · c` is written with the largest value instead of `s` and
/// `c`: `(|q| / 448)^(1/k) · most`.
#[inline(always)]
fn decode<S: Simd>(simd: S, codes: &[u8], [most, power]: [f32; 2], x: &mut [f32; GROUP]) {
    let root = std::f32::consts::LN_2 / power;
    let mut wide = [0u32; GROUP];
    for (wide, &code) in wide.iter_mut().zip(codes) {
        *wide = code.into();
    }
    for (x, code) in x.iter_mut().zip(wide) {
        let log = math::log2(simd, of_e4m3(code & 0x7f) * (1.0 / MOST));
        let size = most * math::exp(simd, root * log);
        let size = if code & 0x7f == 0 { 0.0 } else { size };
        *x = f32::from_bits(size.to_bits() | (code & 0x80) << 24);
    }
}

/// The E4M3 number nearest to `x`, at least 0 and at most 448; ties go to even.
#[inline(always)]
fn e4m3(x: f32) -> u32 {
    let bits = x.to_bits();
    let normal = ((bits + 0x7_ffff + (bits >> 20 & 1)) >> 20).wrapping_sub(120 << 3);
    // Adding 2²³ rounds to an integer and leaves it in the low bits.
    let subnormal = (x * 512.0 + 8_388_608.0).to_bits() & 0xff;
    if x < 1.0 / 64.0 { subnormal } else { normal }
}

/// The value of an E4M3 number without sign.
#[inline(always)]
fn of_e4m3(code: u32) -> f32 {
    let normal = f32::from_bits((code << 20) + (120 << 23));
    if code < 8 {
        code as f32 / 512.0
    } else {
        normal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Loop;

    /// Codes of a group, its description, and its values again.
    struct Round([f32; GROUP]);

    impl Loop for Round {
        type Output = ([u8; GROUP], [f32; 2], [f32; GROUP]);
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let mut codes = [0; GROUP];
            let group = encode(simd, &self.0, &mut codes);
            let mut values = [f32::NAN; GROUP];
            decode(simd, &codes, group, &mut values);
            (codes, group, values)
        }
    }

    #[test]
    fn stretches_a_group_over_the_range() {
        let x: [f32; GROUP] = std::array::from_fn(|i| {
            let size = 10f64.powf(-6.0 + 3.0 * i as f64 / 127.0) as f32;
            if i % 3 == 0 { -size } else { size }
        });
        let (codes, [most, power], values) = isa::run(Round(x));
        assert_eq!((most, power), (x[127].abs(), 1.625));
        // 0.00597 is about 3/512.
        assert_eq!((codes[127], codes[1] & 0x7f), (0x7e, 3));
        for (x, y) in x.iter().zip(values) {
            // Half a step of three bits of mantissa, or of the subnormal numbers' even steps.
            let stretched = MOST * (x / most).abs().powf(power);
            let step = (stretched / 16.0).max(1.0 / 1024.0) * 1.001;
            let at = MOST * (y / most).abs().powf(power);
            assert!(
                (at - stretched).abs() <= step && x.signum() == y.signum(),
                "{x} {y}"
            );
        }
    }

    #[test]
    fn zeros_and_equal_values_stay() {
        let mut x = [0.0; GROUP];
        assert_eq!(isa::run(Round(x)).2, x);
        x.fill(-3e-7);
        let alike = isa::run(Round(x));
        assert_eq!(alike.2, x);
        x[5] = 0.0;
        assert_eq!(isa::run(Round(x)).2, x);
    }

    #[test]
    fn codes_are_nearest() {
        for code in 0..0x7f {
            let x = of_e4m3(code);
            assert_eq!(e4m3(x), code);
            if code < 0x7e {
                let tie = (x + of_e4m3(code + 1)) / 2.0;
                assert_eq!(e4m3(tie), code + code % 2, "{x}");
                assert_eq!(e4m3(tie * 0.9999), code);
                assert_eq!(e4m3(tie * 1.0001), code + 1);
            }
        }
        assert_eq!(of_e4m3(0x7e), MOST);
    }
}
