//! From 16-lane accumulators to stored codes.

use core::arch::x86_64::*;

use crate::numerics::MAGIC;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, WIDTH};

/// What an epilogue does beyond rounding and clamping.
#[derive(Clone, Copy)]
struct Extra {
    /// The residual's values, at the call's first pixel; null for none.
    residual: *const i8,
    residual_zero: __m512i,
    residual_multiplier: __m512,
    /// The table in four quarters.
    table: Option<[__m512i; 4]>,
}

/// The epilogue of one call, broadcast to vectors.
pub(super) struct Epilogue {
    multipliers: *const f32,
    base: __m512,
    /// Bounds of the sums with [`MAGIC`], as bits: those of floats above 0 are ordered like integers,
    /// and sums below 0 have the sign bit. (Integer units are idler than those for floats.)
    lo: __m512i,
    hi: __m512i,
    /// Byte `i` of each 16 is byte `4 · i` of the source: the low byte of lane `i`.
    low_bytes: __m512i,
    y: *mut i8,
    channels: usize,
    extra: Option<Extra>,
}

impl Epilogue {
    /// For the pixels of `call`, whose output it takes over.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub(super) fn new(call: &mut CallI8<'_, '_>) -> Self {
        let e = &call.conv.epilogue;
        let low = _mm_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
        Epilogue {
            multipliers: call.conv.multipliers.as_ptr(),
            base: _mm512_set1_ps(MAGIC + e.zero as f32),
            lo: _mm512_set1_epi32((MAGIC + f32::from(e.lo)).to_bits() as i32),
            hi: _mm512_set1_epi32((MAGIC + f32::from(e.hi)).to_bits() as i32),
            low_bytes: _mm512_broadcast_i32x4(low),
            y: core::mem::take(&mut call.y).as_mut_ptr(),
            channels: call.conv.output[2],
            extra: extra(call.conv, call.first),
        }
    }

    /// Whether nothing but rounding and clamping is asked for.
    pub(super) fn is_plain(&self) -> bool {
        self.extra.is_none()
    }

    /// Multipliers of `B` blocks from channel `n` on.
    ///
    /// # Safety
    ///
    /// The blocks are blocks of the call's output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub(super) unsafe fn multipliers<const B: usize>(&self, n: usize) -> [__m512; B] {
        // SAFETY: multipliers are padded to whole blocks.
        core::array::from_fn(|b| unsafe { _mm512_loadu_ps(self.multipliers.add(n + b * WIDTH)) })
    }

    /// Position of channel `n` of a pixel (counted from the call's first) in the call's output.
    #[inline]
    pub(super) fn position(&self, pixel: usize, n: usize) -> usize {
        pixel * self.channels + n
    }

    /// Values from one pixel to the next.
    #[inline]
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// [`Epilogue::finish`] for neighbouring pixels, whatever is asked for. Rarer and longer than the
    /// plain epilogue, so it is compiled once for all numbers of rows.
    ///
    /// # Safety
    ///
    /// As for [`Epilogue::finish`], for each of the rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline(never)]
    pub(super) unsafe fn finish_rows<const B: usize>(
        &self,
        rows: &[[__m512i; B]],
        multipliers: [__m512; B],
        at: usize,
        count: usize,
    ) {
        for (r, &sums) in rows.iter().enumerate() {
            // SAFETY: as the caller.
            unsafe {
                self.finish::<B, false>(sums, multipliers, at + r * self.channels, count);
            }
        }
    }

    /// Finishes the sums of `B` neighbouring blocks of one pixel, of which `count` channels from
    /// position `at` on exist, and stores the codes. `PLAIN` must be [`Epilogue::is_plain`].
    ///
    /// # Safety
    ///
    /// `count`, more than `B - 1` blocks and at most `B`, values from `at` on belong to the call's
    /// output.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    pub(super) unsafe fn finish<const B: usize, const PLAIN: bool>(
        &self,
        sums: [__m512i; B],
        multipliers: [__m512; B],
        at: usize,
        count: usize,
    ) {
        for b in 0..B {
            let mut t = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[b]), multipliers[b]);
            let (at, count) = (at + b * WIDTH, count - b * WIDTH);
            if !PLAIN && let Some(extra) = &self.extra {
                // SAFETY: the residual covers the pixels of the call.
                t = unsafe { extra.add_residual(t, at, count) };
            }
            let sum = _mm512_add_ps(t, self.base);
            let bits = _mm512_max_epi32(_mm512_castps_si512(sum), self.lo);
            let bits = _mm512_min_epi32(bits, self.hi);
            let mut codes = _mm512_permutexvar_epi8(self.low_bytes, bits);
            if !PLAIN
                && let Some(Extra {
                    table: Some(table), ..
                }) = &self.extra
            {
                codes = look_up(table, codes);
            }
            let codes = _mm512_castsi512_si128(codes);
            // SAFETY: the values belong to the output; the mask covers no more than `count`.
            unsafe {
                let y = self.y.add(at);
                if b + 1 < B || count == WIDTH {
                    _mm_storeu_si128(y.cast(), codes);
                } else {
                    _mm_mask_storeu_epi8(y, _cvtu32_mask16((1 << count) - 1), codes);
                }
            }
        }
    }
}

impl Extra {
    /// Adds the residual's values `at..at + count`, if there is one.
    ///
    /// # Safety
    ///
    /// The values belong to the call's pixels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    unsafe fn add_residual(&self, t: __m512, at: usize, count: usize) -> __m512 {
        if self.residual.is_null() {
            return t;
        }
        let mask = _cvtu32_mask16(((1u32 << count.min(WIDTH)) - 1) & 0xffff);
        // SAFETY: the mask covers no more than the `count` values.
        let codes = unsafe { _mm_maskz_loadu_epi8(mask, self.residual.wrapping_add(at)) };
        let offset = _mm512_sub_epi32(_mm512_cvtepi8_epi32(codes), self.residual_zero);
        _mm512_add_ps(
            t,
            _mm512_mul_ps(_mm512_cvtepi32_ps(offset), self.residual_multiplier),
        )
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn extra(conv: &ConvI8<'_>, first: usize) -> Option<Extra> {
    let (residual, table) = (conv.epilogue.residual, conv.epilogue.table);
    if residual.is_none() && table.is_none() {
        return None;
    }
    let start = first * conv.output[2];
    Some(Extra {
        residual: residual.map_or(core::ptr::null(), |r| r.data[start..].as_ptr()),
        residual_zero: _mm512_set1_epi32(residual.map_or(0, |r| r.zero)),
        residual_multiplier: _mm512_set1_ps(residual.map_or(0.0, |r| r.multiplier)),
        // SAFETY: four quarters of 64 bytes make the table.
        table: table.map(|t| unsafe {
            core::array::from_fn(|i| _mm512_loadu_si512(t.as_ptr().add(i * 64).cast()))
        }),
    })
}

/// `table[code as u8]` of 64 codes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
#[inline]
fn look_up(table: &[__m512i; 4], codes: __m512i) -> __m512i {
    let positive = _mm512_permutex2var_epi8(table[0], codes, table[1]);
    let negative = _mm512_permutex2var_epi8(table[2], codes, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), positive, negative)
}
