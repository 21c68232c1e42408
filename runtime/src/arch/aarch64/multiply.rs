//! Products of bytes: three instruction sets for one layout of weights, `[quad][channel][4]`.

use core::arch::aarch64::*;
use core::arch::asm;

use super::{Dotprod, I8mm, Neon};
use crate::arch::simd128::Multiply;
use crate::arch::simd128::conv::{Kernel, Rows};

/// Bytes of a vector.
const BYTES: usize = 16;

/// Compiles a tile with some features.
macro_rules! tile {
    ($features:literal) => {
        unsafe fn tile<const R: usize, const V: usize>(
            self,
            kernel: &Kernel<'_, Self>,
            rows: Rows,
            pixel: usize,
            n: usize,
        ) {
            #[target_feature(enable = $features)]
            unsafe fn inner<const R: usize, const V: usize, M: Multiply>(
                kernel: &Kernel<'_, M>,
                rows: Rows,
                pixel: usize,
                n: usize,
            ) {
                // SAFETY: as the caller.
                unsafe { kernel.tile::<R, V>(rows, pixel, n) }
            }
            // SAFETY: as the caller; the token proves the features.
            unsafe { inner::<R, V, Self>(kernel, rows, pixel, n) }
        }
    };
}

/// A quad everywhere.
///
/// # Safety
///
/// Four bytes are readable.
#[inline(always)]
unsafe fn quad(_: Neon, at: *const i8) -> int8x16_t {
    // SAFETY: as the caller; the token proves NEON.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())) }
}

/// Products are widened and added in pairs, which leaves two sums for each channel until the end.
impl Multiply for Neon {
    type Simd = Neon;
    const ROWS: [usize; 2] = [3, 6];

    tile!("neon");

    #[inline(always)]
    fn simd(self) -> Neon {
        self
    }

    #[inline(always)]
    fn dot(self, sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the token proves NEON; only values are involved.
        unsafe {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(w)));
            let high = vpaddlq_s16(vmull_high_s8(x, w));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }

    #[inline(always)]
    unsafe fn products<const R: usize, const V: usize>(
        self,
        rows: Rows,
        mut weights: *const i8,
        step: usize,
        quads: usize,
        start: [int32x4_t; V],
    ) -> [[int32x4_t; V]; R] {
        // SAFETY: the token proves NEON; the caller vouches for rows and weights.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); 2]; V]; R];
            for k in 0..quads {
                let mut x = [vdupq_n_s8(0); R];
                for r in 0..R {
                    x[r] = quad(self, rows.row(r).add(k * 4));
                }
                for v in 0..V {
                    let w = vld1q_s8(weights.add(v * BYTES));
                    for r in 0..R {
                        let low = vmull_s8(vget_low_s8(x[r]), vget_low_s8(w));
                        let high = vmull_high_s8(x[r], w);
                        sums[r][v] = [
                            vpadalq_s16(sums[r][v][0], low),
                            vpadalq_s16(sums[r][v][1], high),
                        ];
                    }
                }
                weights = weights.wrapping_add(step);
            }
            let mut totals = [start; R];
            for r in 0..R {
                for v in 0..V {
                    let [low, high] = sums[r][v];
                    totals[r][v] = vaddq_s32(totals[r][v], vpaddq_s32(low, high));
                }
            }
            totals
        }
    }
}

/// Adds the products of each quad of `w` with quad `I` of `x`.
///
/// # Safety
///
/// The processor has dot products.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn sdot<const I: usize>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the enabled feature is the instruction's; only values are involved.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) sums, in(vreg) w, in(vreg) x,
            const I, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// SDOT by a quad of a row, four of which are read at a time.
impl Multiply for Dotprod {
    type Simd = Neon;
    const ROWS: [usize; 2] = [6, 8];

    tile!("neon,dotprod");

    #[inline(always)]
    fn simd(self) -> Neon {
        self.neon()
    }

    #[inline(always)]
    fn dot(self, mut sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        #[target_feature(enable = "neon,dotprod")]
        #[inline]
        unsafe fn inner(sums: &mut int32x4_t, x: int8x16_t, w: int8x16_t) {
            // SAFETY: the enabled feature is the instruction's; only values are involved.
            unsafe {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) *sums, in(vreg) x,
                    in(vreg) w, options(pure, nomem, nostack, preserves_flags));
            }
        }
        // SAFETY: the token proves the feature.
        unsafe { inner(&mut sums, x, w) };
        sums
    }

    #[inline(always)]
    unsafe fn products<const R: usize, const V: usize>(
        self,
        rows: Rows,
        mut weights: *const i8,
        step: usize,
        quads: usize,
        start: [int32x4_t; V],
    ) -> [[int32x4_t; V]; R] {
        let mut sums = [start; R];
        // SAFETY: the token proves the features; the caller vouches for rows and weights.
        unsafe {
            let mut k = 0;
            while k + 4 <= quads {
                let mut x = [vdupq_n_s8(0); R];
                for r in 0..R {
                    x[r] = vld1q_s8(rows.row(r).add(k * 4));
                }
                for i in 0..4 {
                    for v in 0..V {
                        let w = vld1q_s8(weights.add(v * BYTES));
                        for r in 0..R {
                            sums[r][v] = match i {
                                0 => sdot::<0>(sums[r][v], w, x[r]),
                                1 => sdot::<1>(sums[r][v], w, x[r]),
                                2 => sdot::<2>(sums[r][v], w, x[r]),
                                _ => sdot::<3>(sums[r][v], w, x[r]),
                            };
                        }
                    }
                    weights = weights.wrapping_add(step);
                }
                k += 4;
            }
            while k < quads {
                let mut x = [vdupq_n_s8(0); R];
                for r in 0..R {
                    x[r] = quad(self.neon(), rows.row(r).add(k * 4));
                }
                for v in 0..V {
                    let w = vld1q_s8(weights.add(v * BYTES));
                    for r in 0..R {
                        sums[r][v] = sdot::<0>(sums[r][v], w, x[r]);
                    }
                }
                weights = weights.wrapping_add(step);
                k += 1;
            }
        }
        sums
    }
}

/// Adds the products of two rows and two channels of eight values.
///
/// # Safety
///
/// The processor has products of matrices.
#[target_feature(enable = "neon,i8mm")]
#[inline]
unsafe fn smmla(mut sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: the enabled feature is the instruction's; only values are involved.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) x, in(vreg) w,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// SMMLA for pairs of rows and pairs of channels. Two quads of four channels, zipped, are its operands. One row
/// alone has SDOT.
impl Multiply for I8mm {
    type Simd = Neon;
    const ROWS: [usize; 2] = [6, 8];

    tile!("neon,dotprod,i8mm");

    #[inline(always)]
    fn simd(self) -> Neon {
        self.dotprod().neon()
    }

    #[inline(always)]
    fn dot(self, sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        self.dotprod().dot(sums, x, w)
    }

    #[inline(always)]
    unsafe fn products<const R: usize, const V: usize>(
        self,
        rows: Rows,
        mut weights: *const i8,
        step: usize,
        quads: usize,
        start: [int32x4_t; V],
    ) -> [[int32x4_t; V]; R] {
        // SAFETY: the token proves the features; the caller vouches for rows and weights.
        unsafe {
            if R == 1 {
                return self.dotprod().products(rows, weights, step, quads, start);
            }
            // An odd last row is multiplied twice.
            let pairs = R.div_ceil(2);
            let row = |r: usize| rows.row(r.min(R - 1));
            let mut sums = [[[vdupq_n_s32(0); 2]; V]; R];
            for v in 0..V {
                let pair = vreinterpretq_s64_s32(start[v]);
                let (low, high) = (vzip1q_s64(pair, pair), vzip2q_s64(pair, pair));
                for p in 0..pairs {
                    sums[p][v] = [vreinterpretq_s32_s64(low), vreinterpretq_s32_s64(high)];
                }
            }
            let mut k = 0;
            while k < quads {
                let whole = k + 2 <= quads;
                let mut x = [vdupq_n_s8(0); R];
                for p in 0..pairs {
                    let (a, b) = (row(2 * p).add(k * 4), row(2 * p + 1).add(k * 4));
                    x[p] = if whole {
                        vcombine_s8(vld1_s8(a), vld1_s8(b))
                    } else {
                        let [a, b] = [a, b].map(|at| at.cast::<u32>().read_unaligned());
                        let pair = vcombine_u64(vcreate_u64(a.into()), vcreate_u64(b.into()));
                        vreinterpretq_s8_u64(pair)
                    };
                }
                for v in 0..V {
                    let w0 = vreinterpretq_s32_s8(vld1q_s8(weights.add(v * BYTES)));
                    let w1 = if whole {
                        vreinterpretq_s32_s8(vld1q_s8(weights.add(step + v * BYTES)))
                    } else {
                        vdupq_n_s32(0)
                    };
                    let low = vreinterpretq_s8_s32(vzip1q_s32(w0, w1));
                    let high = vreinterpretq_s8_s32(vzip2q_s32(w0, w1));
                    for p in 0..pairs {
                        sums[p][v] = [
                            smmla(sums[p][v][0], x[p], low),
                            smmla(sums[p][v][1], x[p], high),
                        ];
                    }
                }
                weights = weights.wrapping_add(2 * step);
                k += 2;
            }
            let mut totals = [start; R];
            for r in 0..R {
                for v in 0..V {
                    let [low, high] = sums[r / 2][v].map(|v| vreinterpretq_s64_s32(v));
                    totals[r][v] = vreinterpretq_s32_s64(if r % 2 == 0 {
                        vzip1q_s64(low, high)
                    } else {
                        vzip2q_s64(low, high)
                    });
                }
            }
            totals
        }
    }
}
