//! Functions of one number that vectorise.

use crate::isa::Simd;

/// eˣ, relative error below 2e-7. Below -87 it stays at e⁻⁸⁷, above 88 at e⁸⁸.
/// The polynomial is Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: f32) -> f32 {
    // Adding this rounds to an integer and leaves that in the low bits.
    const MAGIC: f32 = 12582912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = simd.mul_add(x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = simd.mul_add(n, -0.693359375, x);
    let r = simd.mul_add(n, 2.12194440e-4, r);
    let p = simd.mul_add(1.9875691500e-4, r, 1.3981999507e-3);
    let p = simd.mul_add(p, r, 8.3334519073e-3);
    let p = simd.mul_add(p, r, 4.1665795894e-2);
    let p = simd.mul_add(p, r, 1.6666665459e-1);
    let p = simd.mul_add(p, r, 5.0000001201e-1);
    let p = simd.mul_add(p, r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    p * power
}

/// The logarithm of a positive normal number to base 2, absolute error below 3e-7 · (1 + |log2 x|).
#[inline(always)]
pub(crate) fn log2<S: Simd>(simd: S, x: f32) -> f32 {
    // The mantissa is brought into [√½, √2).
    const HALF_ROOT: u32 = 0x3f35_04f3;
    let above = x.to_bits().wrapping_sub(HALF_ROOT);
    let exponent = (above as i32 >> 23) as f32;
    let mantissa = f32::from_bits((above & 0x007f_ffff) + HALF_ROOT);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let p = simd.mul_add(square, 1.0 / 9.0, 1.0 / 7.0);
    let p = simd.mul_add(p, square, 1.0 / 5.0);
    let p = simd.mul_add(p, square, 1.0 / 3.0);
    let p = simd.mul_add(p, square, 1.0);
    simd.mul_add(2.0 * std::f32::consts::LOG2_E * s, p, exponent)
}

/// φ(x), the density of the normal distribution, absolute error below 1e-7.
#[inline(always)]
pub(crate) fn density<S: Simd>(simd: S, x: f32) -> f32 {
    0.398942280 * exp(simd, -0.5 * x * x)
}

/// Φ(x), with an absolute error below 3e-7. The rational form of erf is that of Eigen's `generic_fast_erf`.
#[inline(always)]
pub(crate) fn distribution<S: Simd>(simd: S, x: f32) -> f32 {
    let z = x * std::f32::consts::FRAC_1_SQRT_2;
    let z = if z < -4.0 { -4.0 } else { z };
    let z = if z > 4.0 { 4.0 } else { z };
    let square = z * z;
    let p = simd.mul_add(-2.72614225801306e-10, square, 2.77068142495902e-8);
    let p = simd.mul_add(p, square, -2.10102402082508e-6);
    let p = simd.mul_add(p, square, -5.69250639462346e-5);
    let p = simd.mul_add(p, square, -7.34990630326855e-4);
    let p = simd.mul_add(p, square, -2.95459980854025e-3);
    let p = simd.mul_add(p, square, -1.60960333262415e-2);
    let q = simd.mul_add(-1.45660718464996e-5, square, -2.13374055278905e-4);
    let q = simd.mul_add(q, square, -1.68282697438203e-3);
    let q = simd.mul_add(q, square, -7.37332916720468e-3);
    let q = simd.mul_add(q, square, -1.42647390514189e-2);
    simd.mul_add(0.5 * z, p / q, 0.5)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: f32) -> f32 {
    1.0 / (1.0 + exp(simd, -x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{self, Loop};

    /// Largest errors of exp (relative), Φ, φ (absolute) and log2 over a fine grid.
    struct Errors;

    impl Loop for Errors {
        type Output = [f64; 4];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [f64; 4] {
            let mut worst = [0.0f64; 4];
            for i in -86_000..86_000 {
                let x = i as f32 * 1e-3;
                let exact = (x as f64).exp();
                worst[0] = worst[0].max((exp(simd, x) as f64 / exact - 1.0).abs());
                let log = (exact as f32 as f64).log2();
                let error = (log2(simd, exact as f32) as f64 - log).abs();
                worst[3] = worst[3].max(error / (1.0 + log.abs()));
                let x = x * 0.1;
                let (below, bell) = (distribution(simd, x), density(simd, x));
                let exact =
                    (-0.5 * x as f64 * x as f64).exp() / (2.0 * std::f64::consts::PI).sqrt();
                worst[1] = worst[1].max((below as f64 - exact_distribution(x as f64)).abs());
                worst[2] = worst[2].max((bell as f64 - exact).abs());
            }
            worst
        }
    }

    /// Φ by the series of erf, or its continued fraction where the series cancels.
    fn exact_distribution(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let erfc = if z < 3.0 {
            let (mut term, mut sum) = (z, z);
            for n in 1..200 {
                term *= -z * z / n as f64;
                sum += term / (2 * n + 1) as f64;
            }
            1.0 - sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let fraction = (1..100).rev().fold(z, |f, n| z + n as f64 / 2.0 / f);
            (-z * z).exp() / fraction / std::f64::consts::PI.sqrt()
        };
        if x < 0.0 {
            0.5 * erfc
        } else {
            1.0 - 0.5 * erfc
        }
    }

    #[test]
    fn errors() {
        let [exp, below, bell, log] = isa::run(Errors);
        assert!(
            exp < 2e-7 && below < 3e-7 && bell < 1e-7 && log < 3e-7,
            "{exp:e} {below:e} {bell:e} {log:e}"
        );
    }

    #[test]
    fn not_a_number_stays() {
        assert!(exp(isa::Portable, f32::NAN).is_nan());
        assert!(distribution(isa::Portable, f32::NAN).is_nan());
        assert!(density(isa::Portable, f32::NAN).is_nan());
    }
}
