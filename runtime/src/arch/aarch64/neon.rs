//! Vector operations.

use core::arch::aarch64::*;
use core::arch::asm;

use super::Neon;
use crate::arch::simd128::Simd;

/// An intrinsic on values.
macro_rules! neon {
    ($call:expr) => {{
        // SAFETY: the token proves NEON; only values are involved.
        unsafe { $call }
    }};
}

impl Simd for Neon {
    type Bytes = int8x16_t;
    type Shorts = int16x8_t;
    type Ints = int32x4_t;
    type Floats = float32x4_t;

    #[inline(always)]
    fn bytes(self, from: &[i8; 16]) -> int8x16_t {
        // SAFETY: the token proves NEON; 16 bytes are read of 16.
        unsafe { vld1q_s8(from.as_ptr()) }
    }

    #[inline(always)]
    fn half(self, from: &[i8; 8]) -> int8x16_t {
        // SAFETY: the token proves NEON; 8 bytes are read of 8.
        unsafe { vcombine_s8(vld1_s8(from.as_ptr()), vdup_n_s8(0)) }
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 4]) -> int32x4_t {
        // SAFETY: the token proves NEON; 16 bytes are read of 16.
        unsafe { vld1q_s32(from.as_ptr()) }
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 4]) -> float32x4_t {
        // SAFETY: the token proves NEON; 16 bytes are read of 16.
        unsafe { vld1q_f32(from.as_ptr()) }
    }

    #[inline(always)]
    fn half_floats(self, from: &[u16; 4]) -> float32x4_t {
        let floats;
        // SAFETY: the token proves NEON, which the instruction is part of; 8 bytes are read of 8.
        unsafe {
            asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) floats, in(vreg) vld1_u16(from.as_ptr()),
                options(pure, nomem, nostack, preserves_flags));
        }
        floats
    }

    #[inline(always)]
    fn store(self, v: int8x16_t, to: &mut [i8; 16]) {
        // SAFETY: the token proves NEON; 16 bytes are written of 16.
        unsafe { vst1q_s8(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn store_half(self, v: int8x16_t, to: &mut [i8; 8]) {
        // SAFETY: the token proves NEON; 8 bytes are written of 8.
        unsafe { vst1_s8(to.as_mut_ptr(), vget_low_s8(v)) }
    }

    #[inline(always)]
    fn store_ints(self, v: int32x4_t, to: &mut [i32; 4]) {
        // SAFETY: the token proves NEON; 16 bytes are written of 16.
        unsafe { vst1q_s32(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn store_floats(self, v: float32x4_t, to: &mut [f32; 4]) {
        // SAFETY: the token proves NEON; 16 bytes are written of 16.
        unsafe { vst1q_f32(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn splat_i32(self, v: i32) -> int32x4_t {
        neon!(vdupq_n_s32(v))
    }

    #[inline(always)]
    fn splat(self, v: f32) -> float32x4_t {
        neon!(vdupq_n_f32(v))
    }

    #[inline(always)]
    fn spread(self, v: float32x4_t) -> [float32x4_t; 4] {
        neon!([
            vdupq_laneq_f32::<0>(v),
            vdupq_laneq_f32::<1>(v),
            vdupq_laneq_f32::<2>(v),
            vdupq_laneq_f32::<3>(v),
        ])
    }

    #[inline(always)]
    fn as_bytes(self, v: int32x4_t) -> int8x16_t {
        neon!(vreinterpretq_s8_s32(v))
    }

    #[inline(always)]
    fn as_ints(self, v: int8x16_t) -> int32x4_t {
        neon!(vreinterpretq_s32_s8(v))
    }

    #[inline(always)]
    fn bits(self, v: float32x4_t) -> int32x4_t {
        neon!(vreinterpretq_s32_f32(v))
    }

    #[inline(always)]
    fn floats_of(self, v: int32x4_t) -> float32x4_t {
        neon!(vreinterpretq_f32_s32(v))
    }

    #[inline(always)]
    fn convert(self, v: int32x4_t) -> float32x4_t {
        neon!(vcvtq_f32_s32(v))
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vfmaq_f32(sum, a, b))
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vmaxq_f32(a, b))
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vminq_f32(a, b))
    }

    #[inline(always)]
    fn add_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!(vaddq_s32(a, b))
    }

    #[inline(always)]
    fn sub_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!(vsubq_s32(a, b))
    }

    #[inline(always)]
    fn shift<const N: i32>(self, v: int32x4_t) -> int32x4_t {
        neon!(vshlq_n_s32::<N>(v))
    }

    #[inline(always)]
    fn widen(self, v: int8x16_t) -> [int32x4_t; 4] {
        neon!({
            let (low, high) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        })
    }

    #[inline(always)]
    fn narrow(self, [a, b, c, d]: [int32x4_t; 4]) -> int8x16_t {
        neon!({
            let low = vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            let high = vuzp1q_s16(vreinterpretq_s16_s32(c), vreinterpretq_s16_s32(d));
            vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high))
        })
    }

    #[inline(always)]
    fn products(self, a: int8x16_t, b: int8x16_t) -> [int16x8_t; 2] {
        neon!([
            vmull_s8(vget_low_s8(a), vget_low_s8(b)),
            vmull_high_s8(a, b)
        ])
    }

    #[inline(always)]
    fn add_products(self, sum: [int16x8_t; 2], a: int8x16_t, b: int8x16_t) -> [int16x8_t; 2] {
        neon!([
            vmlal_s8(sum[0], vget_low_s8(a), vget_low_s8(b)),
            vmlal_high_s8(sum[1], a, b),
        ])
    }

    #[inline(always)]
    fn accumulate(self, sum: [int32x4_t; 4], v: [int16x8_t; 2]) -> [int32x4_t; 4] {
        neon!([
            vaddw_s16(sum[0], vget_low_s16(v[0])),
            vaddw_high_s16(sum[1], v[0]),
            vaddw_s16(sum[2], vget_low_s16(v[1])),
            vaddw_high_s16(sum[3], v[1]),
        ])
    }

    #[inline(always)]
    fn contains(self, bytes: &[i8], byte: i8) -> bool {
        let (whole, rest) = bytes.as_chunks();
        let mut found = neon!(vdupq_n_u8(0));
        for bytes in whole {
            let equal = neon!(vceqq_s8(self.bytes(bytes), vdupq_n_s8(byte)));
            found = neon!(vorrq_u8(found, equal));
        }
        neon!(vmaxvq_u8(found)) != 0 || rest.contains(&byte)
    }

    /// Quarters of the table: a place outside of one gives 0 in the first and changes nothing in the others.
    #[inline(always)]
    fn look_up(self, table: &[i8; 256], codes: int8x16_t) -> int8x16_t {
        let quarters = table.as_chunks::<64>().0;
        // SAFETY: the token proves NEON; 64 bytes are read of 64.
        let quarter = |i: usize| unsafe { vld1q_s8_x4(quarters[i].as_ptr()) };
        neon!({
            let at = vreinterpretq_u8_s8(codes);
            let v = vqtbl4q_s8(quarter(0), at);
            let v = vqtbx4q_s8(v, quarter(1), vsubq_u8(at, vdupq_n_u8(64)));
            let v = vqtbx4q_s8(v, quarter(2), vsubq_u8(at, vdupq_n_u8(128)));
            vqtbx4q_s8(v, quarter(3), vsubq_u8(at, vdupq_n_u8(192)))
        })
    }

    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [int8x16_t; 4]) -> [int8x16_t; 4] {
        neon!({
            let (ab, cd) = (
                vreinterpretq_s16_s8(vzip1q_s8(a, b)),
                vreinterpretq_s16_s8(vzip1q_s8(c, d)),
            );
            let (high_ab, high_cd) = (
                vreinterpretq_s16_s8(vzip2q_s8(a, b)),
                vreinterpretq_s16_s8(vzip2q_s8(c, d)),
            );
            [
                vreinterpretq_s8_s16(vzip1q_s16(ab, cd)),
                vreinterpretq_s8_s16(vzip2q_s16(ab, cd)),
                vreinterpretq_s8_s16(vzip1q_s16(high_ab, high_cd)),
                vreinterpretq_s8_s16(vzip2q_s16(high_ab, high_cd)),
            ]
        })
    }

    #[inline(always)]
    fn transpose(self, v: [int8x16_t; 4]) -> [int8x16_t; 4] {
        neon!({
            let [a, b, c, d] = [
                vreinterpretq_s32_s8(v[0]),
                vreinterpretq_s32_s8(v[1]),
                vreinterpretq_s32_s8(v[2]),
                vreinterpretq_s32_s8(v[3]),
            ];
            let (ab, cd) = (
                vreinterpretq_s64_s32(vzip1q_s32(a, b)),
                vreinterpretq_s64_s32(vzip1q_s32(c, d)),
            );
            let (high_ab, high_cd) = (
                vreinterpretq_s64_s32(vzip2q_s32(a, b)),
                vreinterpretq_s64_s32(vzip2q_s32(c, d)),
            );
            [
                vreinterpretq_s8_s64(vzip1q_s64(ab, cd)),
                vreinterpretq_s8_s64(vzip2q_s64(ab, cd)),
                vreinterpretq_s8_s64(vzip1q_s64(high_ab, high_cd)),
                vreinterpretq_s8_s64(vzip2q_s64(high_ab, high_cd)),
            ]
        })
    }

    #[inline(always)]
    fn largest(self, v: [float32x4_t; 4]) -> f32 {
        neon!(vmaxvq_f32(vmaxq_f32(
            vmaxq_f32(v[0], v[1]),
            vmaxq_f32(v[2], v[3])
        )))
    }

    #[inline(always)]
    fn sum(self, v: [int32x4_t; 4]) -> i32 {
        neon!(vaddvq_s32(vaddq_s32(
            vaddq_s32(v[0], v[1]),
            vaddq_s32(v[2], v[3])
        )))
    }
}
