//! Loops in registers that run as fast as the processor can.
//!
//! They are assembly, because a compiler may move or merge what it sees to be always the same.

use core::arch::asm;
use core::arch::x86_64::*;

use super::{Avx2, Avx512Vnni, AvxVnni};

/// Sums side by side, so that the latency of an instruction does not matter.
const SUMS: usize = 12;

/// `rounds` times 8 operations that wait for each other; gives the cycles they take.
pub(crate) fn cycles(rounds: u64) -> u64 {
    let mut x = rounds;
    for _ in 0..rounds {
        // SAFETY: arithmetic on registers of its own.
        unsafe {
            asm!(
                "xor {x}, {y}", "xor {x}, {y}", "xor {x}, {y}", "xor {x}, {y}",
                "xor {x}, {y}", "xor {x}, {y}", "xor {x}, {y}", "xor {x}, {y}",
                x = inout(reg) x,
                y = in(reg) rounds,
                options(nomem, nostack),
            );
        }
    }
    8 * rounds
}

/// A function that runs `rounds` rounds of an instruction over [`SUMS`] sums and gives the
/// multiply-accumulates: token, features, type of a register and its zero, multiply-accumulates of an
/// instruction, and the instruction.
macro_rules! products {
    ($(#[$doc:meta])* $name:ident, $token:ty, $features:literal, $register:ty, $zero:ident, $macs:literal,
        ($sum:ident, $x:ident, $w:ident) => $asm:expr) => {
        $(#[$doc])*
        pub(crate) fn $name(_: $token, rounds: u64) -> u64 {
            #[target_feature(enable = $features)]
            fn inner(rounds: u64) {
                let mut sums: [$register; SUMS] = [$zero(); SUMS];
                let ($x, $w) = ($zero(), $zero());
                for _ in 0..rounds {
                    for $sum in &mut sums {
                        // SAFETY: arithmetic on registers of its own.
                        unsafe { $asm }
                    }
                }
            }
            // SAFETY: the token proves the features.
            unsafe { inner(rounds) };
            rounds * SUMS as u64 * $macs
        }
    };
}

products!(
    /// `vpdpbusd` on 512 bits.
    int8_avx512vnni, Avx512Vnni, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512, 64,
    (sum, x, w) => asm!("vpdpbusd {s}, {x}, {w}", s = inout(zmm_reg) *sum, x = in(zmm_reg) x,
        w = in(zmm_reg) w, options(nomem, nostack, preserves_flags))
);
products!(
    /// `vpdpbusd` on 256 bits.
    int8_avxvnni, AvxVnni, "avx2,avxvnni", __m256i, _mm256_setzero_si256, 32,
    (sum, x, w) => asm!("{{vex}} vpdpbusd {s}, {x}, {w}", s = inout(ymm_reg) *sum, x = in(ymm_reg) x,
        w = in(ymm_reg) w, options(nomem, nostack, preserves_flags))
);
products!(
    /// `vpmaddwd` and an addition: without a dot-product instruction, the fastest that is exact.
    int8_avx2, Avx2, "avx2", __m256i, _mm256_setzero_si256, 16,
    (sum, x, w) => asm!("vpmaddwd {t}, {x}, {w}", "vpaddd {s}, {s}, {t}", t = out(ymm_reg) _,
        s = inout(ymm_reg) *sum, x = in(ymm_reg) x, w = in(ymm_reg) w,
        options(nomem, nostack, preserves_flags))
);
products!(
    /// Fused multiply-add on 512 bits.
    float_avx512, Avx512Vnni, "avx512f", __m512, _mm512_setzero_ps, 16,
    (sum, x, w) => asm!("vfmadd231ps {s}, {x}, {w}", s = inout(zmm_reg) *sum, x = in(zmm_reg) x,
        w = in(zmm_reg) w, options(nomem, nostack, preserves_flags))
);
products!(
    /// Fused multiply-add on 256 bits.
    float_avx2, Avx2, "avx2,fma", __m256, _mm256_setzero_ps, 8,
    (sum, x, w) => asm!("vfmadd231ps {s}, {x}, {w}", s = inout(ymm_reg) *sum, x = in(ymm_reg) x,
        w = in(ymm_reg) w, options(nomem, nostack, preserves_flags))
);
