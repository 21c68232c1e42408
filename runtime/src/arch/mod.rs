//! Instruction-set specific kernels: the only place of the crate, beside the thread pool, where
//! `unsafe` is allowed.
//!
//! Each kernel takes a *capability token*: a value that exists only where the processor has the
//! feature, so that safe code can't reach an instruction that would fault.

#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
#[cfg(arm_dsp)]
pub mod cortex_m;
#[cfg(any(target_arch = "x86_64", simd128))]
mod f32_panel;
#[cfg(simd128)]
pub(crate) mod simd128;
#[cfg(wasm_simd128)]
pub mod wasm32;
#[cfg(target_arch = "x86_64")]
pub mod x86;

/// Splits `total` into the fewest parts of at most `most`, as equal as can be: `(start, length)`.
#[cfg(any(target_arch = "x86_64", simd128))]
fn parts(total: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let count = total.div_ceil(most.max(1)).max(1);
    let (short, longer) = (total / count, total % count);
    (0..count).map(move |i| (i * short + i.min(longer), short + usize::from(i < longer)))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::parts;

    #[test]
    fn parts_cover_everything_once() {
        for total in 1..100 {
            for most in 1..20 {
                let mut at = 0;
                for (start, length) in parts(total, most) {
                    assert_eq!(start, at);
                    assert!((1..=most).contains(&length));
                    at += length;
                }
                assert_eq!(at, total);
            }
        }
    }
}
