//! Products of bytes: three instruction sets for one layout of weights, `[quad][channel][4]`.

use core::arch::aarch64::*;
use core::arch::asm;
use core::mem::MaybeUninit;

use super::{Dotprod, I8mm, Neon};
use crate::arch::simd128::conv::{Kernel, Rows, Strip, Weights};
use crate::arch::simd128::sparse::Part;
use crate::arch::simd128::{Multiply, Simd};
use crate::ops::conv::WIDTH;

/// Bytes of a vector.
const BYTES: usize = 16;

/// Compiles a tile with some features.
macro_rules! tile {
    ($features:literal) => {
        unsafe fn tile<const R: usize, const V: usize>(
            self,
            kernel: &Kernel<'_, Self>,
            rows: Rows,
            weights: Weights,
            pixel: usize,
            n: usize,
        ) {
            #[target_feature(enable = $features)]
            unsafe fn inner<const R: usize, const V: usize, M: Multiply>(
                kernel: &Kernel<'_, M>,
                rows: Rows,
                weights: Weights,
                pixel: usize,
                n: usize,
            ) {
                // SAFETY: as the caller.
                unsafe { kernel.tile::<R, V>(rows, weights, pixel, n) }
            }
            // SAFETY: as the caller; the token proves the features.
            unsafe { inner::<R, V, Self>(kernel, rows, weights, pixel, n) }
        }

        unsafe fn sparse<const T: usize>(self, part: &Part<'_, '_, Self>) {
            #[target_feature(enable = $features)]
            unsafe fn inner<const T: usize, M: Multiply>(part: &Part<'_, '_, M>) {
                // SAFETY: as the caller.
                unsafe { part.compute::<T>() }
            }
            // SAFETY: as the caller; the token proves the features.
            unsafe { inner::<T, Self>(part) }
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

/// Products are 16-bit integers, which are widened and added in pairs: there are two sums for each channel
/// until the end. Where no weight is −128, two products can be added before that.
impl Multiply for Neon {
    type Simd = Neon;
    const ROWS: [usize; 2] = [2, 4];
    const PAIRS: bool = true;

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
        weights: Weights,
        quads: usize,
        start: [int32x4_t; V],
    ) -> [[int32x4_t; V]; R] {
        let Weights {
            base,
            step,
            prepared,
        } = weights;
        let pairs = if prepared { quads / 2 } else { 0 };
        // SAFETY: the token proves NEON; the caller vouches for rows and weights.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); 2]; V]; R];
            let mut at = base;
            for k in 0..pairs {
                let mut x = [[vdupq_n_s8(0); 2]; R];
                for r in 0..R {
                    let row = rows.row(r).add(k * 8);
                    x[r] = [quad(self, row), quad(self, row.add(4))];
                }
                for v in 0..V {
                    let w0 = vld1q_s8(at.add(v * BYTES));
                    let w1 = vld1q_s8(at.add(step + v * BYTES));
                    for r in 0..R {
                        let products = Simd::products(self, x[r][0], w0);
                        let [low, high] = self.add_products(products, x[r][1], w1);
                        let [even, odd] = sums[r][v];
                        sums[r][v] = [vpadalq_s16(even, low), vpadalq_s16(odd, high)];
                    }
                }
                at = at.wrapping_add(2 * step);
            }
            for k in 2 * pairs..quads {
                let mut x = [vdupq_n_s8(0); R];
                for r in 0..R {
                    x[r] = quad(self, rows.row(r).add(k * 4));
                }
                for v in 0..V {
                    let w = vld1q_s8(at.add(v * BYTES));
                    for r in 0..R {
                        let [low, high] = Simd::products(self, x[r], w);
                        let [even, odd] = sums[r][v];
                        sums[r][v] = [vpadalq_s16(even, low), vpadalq_s16(odd, high)];
                    }
                }
                at = at.wrapping_add(step);
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

/// Adds the products of quad `I` of some rows with `V` vectors of weights.
///
/// # Safety
///
/// The processor has dot products; the weights can be read.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn add_quad<const R: usize, const V: usize, const I: usize>(
    sums: &mut [[int32x4_t; V]; R],
    x: &[int8x16_t; R],
    weights: *const i8,
) {
    for v in 0..V {
        // SAFETY: as the caller.
        unsafe {
            let w = vld1q_s8(weights.add(v * BYTES));
            for r in 0..R {
                sums[r][v] = sdot::<I>(sums[r][v], w, x[r]);
            }
        }
    }
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
        weights: Weights,
        quads: usize,
        start: [int32x4_t; V],
    ) -> [[int32x4_t; V]; R] {
        let mut sums = [start; R];
        let (mut weights, step) = (weights.base, weights.step);
        // SAFETY: the token proves the features; the caller vouches for rows and weights.
        unsafe {
            let mut k = 0;
            while k + 4 <= quads {
                let mut x = [vdupq_n_s8(0); R];
                for r in 0..R {
                    x[r] = vld1q_s8(rows.row(r).add(k * 4));
                }
                add_quad::<R, V, 0>(&mut sums, &x, weights);
                add_quad::<R, V, 1>(&mut sums, &x, weights.add(step));
                add_quad::<R, V, 2>(&mut sums, &x, weights.add(2 * step));
                add_quad::<R, V, 3>(&mut sums, &x, weights.add(3 * step));
                weights = weights.wrapping_add(4 * step);
                k += 4;
            }
            while k < quads {
                let mut x = [vdupq_n_s8(0); R];
                for r in 0..R {
                    x[r] = quad(self.neon(), rows.row(r).add(k * 4));
                }
                add_quad::<R, V, 0>(&mut sums, &x, weights);
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

/// Pairs of channels of two quads of four channels: the operands of SMMLA.
///
/// # Safety
///
/// Both quads can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn zip(first: *const i8, second: Option<*const i8>) -> [int8x16_t; 2] {
    // SAFETY: as the caller.
    unsafe {
        let first = vreinterpretq_s32_s8(vld1q_s8(first));
        let second = match second {
            Some(second) => vreinterpretq_s32_s8(vld1q_s8(second)),
            None => vdupq_n_s32(0),
        };
        [
            vreinterpretq_s8_s32(vzip1q_s32(first, second)),
            vreinterpretq_s8_s32(vzip2q_s32(first, second)),
        ]
    }
}

/// SMMLA for pairs of rows and pairs of channels. Two quads of four channels, zipped, are its operands; prepared
/// weights are zipped. One row alone has SDOT.
impl Multiply for I8mm {
    type Simd = Neon;
    const ROWS: [usize; 2] = [4, 8];
    const MANY: usize = 12;

    tile!("neon,dotprod,i8mm");

    #[inline(always)]
    fn simd(self) -> Neon {
        self.dotprod().neon()
    }

    #[inline(always)]
    fn dot(self, sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        self.dotprod().dot(sums, x, w)
    }

    unsafe fn prepare(
        self,
        weights: Weights,
        quads: usize,
        to: &mut MaybeUninit<Strip>,
    ) -> Weights {
        if quads.div_ceil(2) * ZIPPED > size_of::<Strip>() {
            return weights;
        }
        let to = to.as_mut_ptr().cast::<i8>();
        for pair in 0..quads.div_ceil(2) {
            for v in 0..WIDTH / 4 {
                let at = weights
                    .base
                    .wrapping_add(2 * pair * weights.step + v * BYTES);
                let second = (2 * pair + 1 < quads).then(|| at.wrapping_add(weights.step));
                // SAFETY: the caller vouches for the weights; the strip has room for each pair. The token
                // proves NEON.
                unsafe {
                    let to = to.add(pair * ZIPPED + 2 * v * BYTES);
                    let [low, high] = zip(at, second);
                    vst1q_s8(to, low);
                    vst1q_s8(to.add(BYTES), high);
                }
            }
        }
        Weights {
            base: to,
            step: ZIPPED,
            prepared: true,
        }
    }

    #[inline(always)]
    unsafe fn products<const R: usize, const V: usize>(
        self,
        rows: Rows,
        weights: Weights,
        quads: usize,
        start: [int32x4_t; V],
    ) -> [[int32x4_t; V]; R] {
        // SAFETY: as the caller; the token proves the features.
        unsafe {
            if weights.prepared {
                matrices::<R, V, true>(rows, weights, quads, start)
            } else if R == 1 {
                self.dotprod().products(rows, weights, quads, start)
            } else {
                matrices::<R, V, false>(rows, weights, quads, start)
            }
        }
    }
}

/// Bytes of two quads of a block, zipped.
const ZIPPED: usize = 2 * WIDTH * 4;

/// [`Multiply::products`] by SMMLA, of weights that are `ZIP`ped or not.
///
/// # Safety
///
/// As for [`Multiply::products`]; the processor has products of matrices.
#[target_feature(enable = "neon,i8mm")]
#[inline]
unsafe fn matrices<const R: usize, const V: usize, const ZIP: bool>(
    rows: Rows,
    weights: Weights,
    quads: usize,
    start: [int32x4_t; V],
) -> [[int32x4_t; V]; R] {
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
    let mut at = weights.base;
    let mut x = [vdupq_n_s8(0); R];
    // SAFETY: the caller vouches for rows and weights.
    unsafe {
        for k in (0..quads & !1).step_by(2) {
            for p in 0..pairs {
                let (a, b) = (row(2 * p).add(k * 4), row(2 * p + 1).add(k * 4));
                x[p] = vcombine_s8(vld1_s8(a), vld1_s8(b));
            }
            for v in 0..V {
                let w = if ZIP {
                    let at = at.add(2 * v * BYTES);
                    [vld1q_s8(at), vld1q_s8(at.add(BYTES))]
                } else {
                    let at = at.add(v * BYTES);
                    zip(at, Some(at.add(weights.step)))
                };
                add_matrices(&mut sums, v, &x, w);
            }
            at = at.wrapping_add(if ZIP { ZIPPED } else { 2 * weights.step });
        }
        if quads % 2 == 1 {
            for p in 0..pairs {
                let [a, b] = [row(2 * p), row(2 * p + 1)].map(|row| {
                    let quad = row.add((quads - 1) * 4).cast::<u32>();
                    vcreate_s8(quad.read_unaligned().into())
                });
                x[p] = vcombine_s8(a, b);
            }
            for v in 0..V {
                let w = if ZIP {
                    let at = at.add(2 * v * BYTES);
                    [vld1q_s8(at), vld1q_s8(at.add(BYTES))]
                } else {
                    zip(at.add(v * BYTES), None)
                };
                add_matrices(&mut sums, v, &x, w);
            }
        }
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

/// Adds the products of pairs of rows with the pairs of channels of vector `v`.
///
/// # Safety
///
/// The processor has products of matrices.
#[target_feature(enable = "neon,i8mm")]
#[inline]
unsafe fn add_matrices<const R: usize, const V: usize>(
    sums: &mut [[[int32x4_t; 2]; V]; R],
    v: usize,
    x: &[int8x16_t; R],
    [low, high]: [int8x16_t; 2],
) {
    for p in 0..R.div_ceil(2) {
        // SAFETY: as the caller.
        unsafe {
            let [even, odd] = sums[p][v];
            sums[p][v] = [smmla(even, x[p], low), smmla(odd, x[p], high)];
        }
    }
}
