//! Vector operations, and sums of products by `i32x4.dot_i16x8`.

use core::arch::wasm32::*;

use super::Simd128;
use crate::arch::simd128::conv::{Kernel, Rows, Weights};
use crate::arch::simd128::sparse::Part;
use crate::arch::simd128::{Multiply, Simd};

impl Simd for Simd128 {
    type Bytes = v128;
    type Shorts = v128;
    type Ints = v128;
    type Floats = v128;

    #[inline(always)]
    fn bytes(self, from: &[i8; 16]) -> v128 {
        // SAFETY: 16 bytes are read of 16.
        unsafe { v128_load(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn half(self, from: &[i8; 8]) -> v128 {
        // SAFETY: 8 bytes are read of 8.
        unsafe { v128_load64_zero(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 4]) -> v128 {
        // SAFETY: 16 bytes are read of 16.
        unsafe { v128_load(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 4]) -> v128 {
        // SAFETY: 16 bytes are read of 16.
        unsafe { v128_load(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn half_floats(self, from: &[u16; 4]) -> v128 {
        self.floats(&from.map(|bits| half::f16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    fn store(self, v: v128, to: &mut [i8; 16]) {
        // SAFETY: 16 bytes are written of 16.
        unsafe { v128_store(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn store_half(self, v: v128, to: &mut [i8; 8]) {
        // SAFETY: 8 bytes are written of 8.
        unsafe { v128_store64_lane::<0>(v, to.as_mut_ptr().cast()) }
    }

    #[inline(always)]
    fn store_ints(self, v: v128, to: &mut [i32; 4]) {
        // SAFETY: 16 bytes are written of 16.
        unsafe { v128_store(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn store_floats(self, v: v128, to: &mut [f32; 4]) {
        // SAFETY: 16 bytes are written of 16.
        unsafe { v128_store(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn splat_i32(self, v: i32) -> v128 {
        i32x4_splat(v)
    }

    #[inline(always)]
    fn splat(self, v: f32) -> v128 {
        f32x4_splat(v)
    }

    #[inline(always)]
    fn spread(self, v: v128) -> [v128; 4] {
        [
            i32x4_shuffle::<0, 0, 0, 0>(v, v),
            i32x4_shuffle::<1, 1, 1, 1>(v, v),
            i32x4_shuffle::<2, 2, 2, 2>(v, v),
            i32x4_shuffle::<3, 3, 3, 3>(v, v),
        ]
    }

    #[inline(always)]
    fn as_bytes(self, v: v128) -> v128 {
        v
    }

    #[inline(always)]
    fn as_ints(self, v: v128) -> v128 {
        v
    }

    #[inline(always)]
    fn bits(self, v: v128) -> v128 {
        v
    }

    #[inline(always)]
    fn floats_of(self, v: v128) -> v128 {
        v
    }

    #[inline(always)]
    fn convert(self, v: v128) -> v128 {
        f32x4_convert_i32x4(v)
    }

    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }

    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }

    #[inline(always)]
    fn mul(self, a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    fn fma(self, sum: v128, a: v128, b: v128) -> v128 {
        f32x4_add(sum, f32x4_mul(a, b))
    }

    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        f32x4_pmax(a, b)
    }

    #[inline(always)]
    fn min(self, a: v128, b: v128) -> v128 {
        f32x4_pmin(a, b)
    }

    #[inline(always)]
    fn add_i32(self, a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }

    #[inline(always)]
    fn sub_i32(self, a: v128, b: v128) -> v128 {
        i32x4_sub(a, b)
    }

    #[inline(always)]
    fn shift<const N: i32>(self, v: v128) -> v128 {
        i32x4_shl(v, N as u32)
    }

    #[inline(always)]
    fn widen(self, v: v128) -> [v128; 4] {
        let (low, high) = (i16x8_extend_low_i8x16(v), i16x8_extend_high_i8x16(v));
        [
            i32x4_extend_low_i16x8(low),
            i32x4_extend_high_i16x8(low),
            i32x4_extend_low_i16x8(high),
            i32x4_extend_high_i16x8(high),
        ]
    }

    #[inline(always)]
    fn narrow(self, [a, b, c, d]: [v128; 4]) -> v128 {
        let low = i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(a, b);
        let high = i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(c, d);
        i8x16_shuffle::<0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30>(low, high)
    }

    #[inline(always)]
    fn products(self, a: v128, b: v128) -> [v128; 2] {
        [i16x8_extmul_low_i8x16(a, b), i16x8_extmul_high_i8x16(a, b)]
    }

    #[inline(always)]
    fn add_products(self, sum: [v128; 2], a: v128, b: v128) -> [v128; 2] {
        let products = Simd::products(self, a, b);
        [
            i16x8_add(sum[0], products[0]),
            i16x8_add(sum[1], products[1]),
        ]
    }

    #[inline(always)]
    fn accumulate(self, sum: [v128; 4], v: [v128; 2]) -> [v128; 4] {
        [
            i32x4_add(sum[0], i32x4_extend_low_i16x8(v[0])),
            i32x4_add(sum[1], i32x4_extend_high_i16x8(v[0])),
            i32x4_add(sum[2], i32x4_extend_low_i16x8(v[1])),
            i32x4_add(sum[3], i32x4_extend_high_i16x8(v[1])),
        ]
    }

    #[inline(always)]
    fn contains(self, bytes: &[i8], byte: i8) -> bool {
        let (whole, rest) = bytes.as_chunks();
        let mut found = i32x4_splat(0);
        for bytes in whole {
            found = v128_or(found, i8x16_eq(self.bytes(bytes), i8x16_splat(byte)));
        }
        v128_any_true(found) || rest.contains(&byte)
    }

    /// Sixteenths of the table: a place outside of one gives 0.
    #[inline(always)]
    fn look_up(self, table: &[i8; 256], codes: v128) -> v128 {
        let (mut at, mut v) = (codes, i32x4_splat(0));
        for sixteenth in table.as_chunks().0 {
            v = v128_or(v, i8x16_swizzle(self.bytes(sixteenth), at));
            at = i8x16_sub(at, i8x16_splat(16));
        }
        v
    }

    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [v128; 4]) -> [v128; 4] {
        let low =
            |a, b| i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
        let high = |a, b| {
            i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b)
        };
        let (ab, cd, high_ab, high_cd) = (low(a, b), low(c, d), high(a, b), high(c, d));
        [
            i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(ab, cd),
            i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(ab, cd),
            i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(high_ab, high_cd),
            i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(high_ab, high_cd),
        ]
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [v128; 4]) -> [v128; 4] {
        let (ab, cd) = (
            i32x4_shuffle::<0, 4, 1, 5>(a, b),
            i32x4_shuffle::<0, 4, 1, 5>(c, d),
        );
        let (high_ab, high_cd) = (
            i32x4_shuffle::<2, 6, 3, 7>(a, b),
            i32x4_shuffle::<2, 6, 3, 7>(c, d),
        );
        [
            i64x2_shuffle::<0, 2>(ab, cd),
            i64x2_shuffle::<1, 3>(ab, cd),
            i64x2_shuffle::<0, 2>(high_ab, high_cd),
            i64x2_shuffle::<1, 3>(high_ab, high_cd),
        ]
    }

    #[inline(always)]
    fn largest(self, v: [v128; 4]) -> f32 {
        let m = f32x4_pmax(f32x4_pmax(v[0], v[1]), f32x4_pmax(v[2], v[3]));
        let m = f32x4_pmax(m, i64x2_shuffle::<1, 1>(m, m));
        f32x4_extract_lane::<0>(f32x4_pmax(m, i32x4_shuffle::<1, 1, 1, 1>(m, m)))
    }

    #[inline(always)]
    fn sum(self, v: [v128; 4]) -> i32 {
        let s = i32x4_add(i32x4_add(v[0], v[1]), i32x4_add(v[2], v[3]));
        let s = i32x4_add(s, i64x2_shuffle::<1, 1>(s, s));
        i32x4_extract_lane::<0>(i32x4_add(s, i32x4_shuffle::<1, 1, 1, 1>(s, s)))
    }
}

/// The sums of neighbours.
#[inline(always)]
fn add_pairs(low: v128, high: v128) -> v128 {
    let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
    i32x4_add(even, i32x4_shuffle::<1, 3, 5, 7>(low, high))
}

/// Operands are widened and multiplied in pairs, which leaves two sums for each channel until the end.
impl Multiply for Simd128 {
    type Simd = Simd128;
    const ROWS: [usize; 2] = [2, 4];

    unsafe fn tile<const R: usize, const V: usize>(
        self,
        kernel: &Kernel<'_, Self>,
        rows: Rows,
        weights: Weights,
        pixel: usize,
        n: usize,
    ) {
        // SAFETY: as the caller.
        unsafe { kernel.tile::<R, V>(rows, weights, pixel, n) }
    }

    unsafe fn sparse<const T: usize>(self, part: &Part<'_, '_, Self>) {
        // SAFETY: as the caller.
        unsafe { part.compute::<T>() }
    }

    #[inline(always)]
    fn simd(self) -> Simd128 {
        self
    }

    #[inline(always)]
    fn dot(self, sums: v128, x: v128, w: v128) -> v128 {
        let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(x), i16x8_extend_low_i8x16(w));
        let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(x), i16x8_extend_high_i8x16(w));
        i32x4_add(sums, add_pairs(low, high))
    }

    #[inline(always)]
    unsafe fn products<const R: usize, const V: usize>(
        self,
        rows: Rows,
        weights: Weights,
        quads: usize,
        start: [v128; V],
    ) -> [[v128; V]; R] {
        let (mut weights, step) = (weights.base, weights.step);
        let mut sums = [[[i32x4_splat(0); 2]; V]; R];
        for k in 0..quads {
            let mut x = [i32x4_splat(0); R];
            for r in 0..R {
                // SAFETY: the caller vouches for the rows.
                let quad = unsafe { v128_load32_splat(rows.row(r).add(k * 4).cast()) };
                x[r] = i16x8_extend_low_i8x16(quad);
            }
            for v in 0..V {
                // SAFETY: the caller vouches for the weights.
                let w = unsafe { v128_load(weights.add(v * 16).cast()) };
                let (low, high) = (i16x8_extend_low_i8x16(w), i16x8_extend_high_i8x16(w));
                for r in 0..R {
                    sums[r][v] = [
                        i32x4_add(sums[r][v][0], i32x4_dot_i16x8(x[r], low)),
                        i32x4_add(sums[r][v][1], i32x4_dot_i16x8(x[r], high)),
                    ];
                }
            }
            weights = weights.wrapping_add(step);
        }
        let mut totals = [start; R];
        for r in 0..R {
            for v in 0..V {
                let [low, high] = sums[r][v];
                totals[r][v] = i32x4_add(totals[r][v], add_pairs(low, high));
            }
        }
        totals
    }
}
