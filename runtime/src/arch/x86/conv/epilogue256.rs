//! From 8-lane accumulators to stored codes.

use core::arch::x86_64::*;

use crate::numerics::MAGIC;
use crate::ops::conv::Residual;
use crate::ops::conv::kernel::CallI8;

/// Channels that are finished together.
pub(super) const LANES: usize = 8;

/// The epilogue of one call, broadcast to vectors.
pub(super) struct Epilogue<'a> {
    multipliers: &'a [f32],
    base: __m256,
    lo: __m256,
    hi: __m256,
    residual: Option<Residual<'a>>,
    table: Option<&'a [i8; 256]>,
    /// Position of the call's first value in the whole output.
    first: usize,
    y: *mut i8,
    channels: usize,
}

impl<'a> Epilogue<'a> {
    /// For the pixels of `call`, whose output it takes over.
    #[target_feature(enable = "avx2")]
    pub(super) fn new(call: &mut CallI8<'a, 'a>) -> Self {
        let e = &call.conv.epilogue;
        let channels = call.conv.output[2];
        Epilogue {
            multipliers: call.conv.multipliers,
            base: _mm256_set1_ps(MAGIC + e.zero as f32),
            lo: _mm256_set1_ps(MAGIC + f32::from(e.lo)),
            hi: _mm256_set1_ps(MAGIC + f32::from(e.hi)),
            residual: e.residual,
            table: e.table,
            first: call.first * channels,
            y: core::mem::take(&mut call.y).as_mut_ptr(),
            channels,
        }
    }

    /// Finishes the sums of [`LANES`] channels of one pixel and stores the codes.
    ///
    /// # Safety
    ///
    /// `pixel` (counted from the call's first) and channel `n` lie in the call's output; `n` is a
    /// multiple of [`LANES`].
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) unsafe fn finish(&self, sums: __m256i, pixel: usize, n: usize) {
        let count = (self.channels - n).min(LANES);
        let at = pixel * self.channels + n;
        // SAFETY: multipliers are padded to whole blocks.
        let multipliers = unsafe { _mm256_loadu_ps(self.multipliers.as_ptr().add(n)) };
        let mut t = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), multipliers);
        if let Some(r) = &self.residual {
            // SAFETY: the residual covers the pixels of the call.
            let codes = unsafe { load(r.data.as_ptr().add(self.first + at), count) };
            let offset = _mm256_sub_epi32(_mm256_cvtepi8_epi32(codes), _mm256_set1_epi32(r.zero));
            let addend = _mm256_mul_ps(_mm256_cvtepi32_ps(offset), _mm256_set1_ps(r.multiplier));
            t = _mm256_add_ps(t, addend);
        }
        let sum = _mm256_add_ps(t, self.base);
        let bits = _mm256_castps_si256(_mm256_min_ps(_mm256_max_ps(sum, self.lo), self.hi));
        let mut codes = low_bytes(bits);
        if let Some(table) = self.table {
            codes = codes.map(|c| table[c as u8 as usize]);
        }
        // SAFETY: `count` codes from `at` on belong to this pixel of the output.
        unsafe {
            let y = self.y.add(at);
            if count == LANES {
                y.cast::<[i8; LANES]>().write_unaligned(codes);
            } else {
                y.copy_from_nonoverlapping(codes.as_ptr(), count);
            }
        }
    }
}

/// The low byte of each lane.
#[target_feature(enable = "avx2")]
#[inline]
fn low_bytes(lanes: __m256i) -> [i8; LANES] {
    let pick = _mm256_set1_epi32(0x0c08_0400);
    let bytes = _mm256_shuffle_epi8(lanes, pick);
    let (low, high) = (
        _mm256_castsi256_si128(bytes),
        _mm256_extracti128_si256::<1>(bytes),
    );
    _mm_cvtsi128_si64(_mm_unpacklo_epi32(low, high))
        .to_le_bytes()
        .map(|b| b as i8)
}

/// `count` codes, at most [`LANES`], in the low bytes.
///
/// # Safety
///
/// As many are readable.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load(codes: *const i8, count: usize) -> __m128i {
    // SAFETY: as the caller.
    unsafe {
        if count == LANES {
            return _mm_loadl_epi64(codes.cast());
        }
        let mut bytes = [0i8; LANES];
        bytes.as_mut_ptr().copy_from_nonoverlapping(codes, count);
        _mm_loadl_epi64(bytes.as_ptr().cast())
    }
}
