//! From 8-lane accumulators to stored codes.

use core::arch::x86_64::*;

use crate::arch::x86::elementwise::{look_up_avx2, table_steps};
use crate::numerics::MAGIC;
use crate::ops::conv::kernel::CallI8;
use crate::ops::conv::{ConvI8, Residual};

/// Channels that are finished together.
pub(super) const LANES: usize = 8;

/// The epilogue of one call, broadcast to vectors.
pub(super) struct Epilogue<'a> {
    multipliers: &'a [f32],
    base: __m256,
    lo: __m256,
    hi: __m256,
    /// Smallest and largest code.
    bounds: [__m256i; 2],
    /// Whether sums may be clamped as integers.
    packs: bool,
    residual: Option<Residual<'a>>,
    table: Option<&'a [i8; 256]>,
    /// The table for [`look_up_avx2`].
    steps: [[i8; 16]; 16],
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
            bounds: [_mm256_set1_epi8(e.lo), _mm256_set1_epi8(e.hi)],
            packs: stays_small(call.conv),
            residual: e.residual,
            table: e.table,
            steps: e.table.map_or([[0; 16]; 16], table_steps),
            first: call.first * channels,
            y: core::mem::take(&mut call.y).as_mut_ptr(),
            channels,
        }
    }

    /// Finishes a tile: the sums of `V` vectors of channels from `n` on in `R` pixels from `pixel` on.
    /// Channels that the output does not have are left out.
    ///
    /// # Safety
    ///
    /// The pixels (counted from the call's first) and channel `n`, a multiple of [`LANES`], lie in the
    /// call's output, and the vectors in its blocks.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) unsafe fn finish_tile<const R: usize, const V: usize>(
        &self,
        sums: [[__m256i; V]; R],
        pixel: usize,
        n: usize,
    ) {
        // SAFETY: as the caller; `pack` is for vectors that exist.
        unsafe {
            if !self.packs || n + V * LANES > self.channels {
                // A copy, so that the sums stay in registers otherwise.
                let copy = sums;
                self.finish_each(&copy, pixel, n);
            } else if self.table.is_some() {
                let copy = sums;
                self.pack_looked_up(&copy, pixel, n);
            } else if self.residual.is_some() {
                self.pack::<R, V, true, false>(sums, pixel, n);
            } else {
                self.pack::<R, V, false, false>(sums, pixel, n);
            }
        }
    }

    /// [`Epilogue::finish_tile`], vector by vector.
    ///
    /// # Safety
    ///
    /// As for [`Epilogue::finish_tile`].
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    unsafe fn finish_each<const R: usize, const V: usize>(
        &self,
        sums: &[[__m256i; V]; R],
        pixel: usize,
        n: usize,
    ) {
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sums) in sums.iter().enumerate() {
                let n = n + v * LANES;
                if n < self.channels {
                    // SAFETY: the pixel and the channel lie in the call's output.
                    unsafe { self.finish(sums, pixel + r, n) };
                }
            }
        }
    }

    /// [`Epilogue::pack`] with the table: longer, and out of the way of the products.
    ///
    /// # Safety
    ///
    /// As for [`Epilogue::pack`].
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    unsafe fn pack_looked_up<const R: usize, const V: usize>(
        &self,
        sums: &[[__m256i; V]; R],
        pixel: usize,
        n: usize,
    ) {
        // SAFETY: as the caller.
        unsafe {
            if self.residual.is_some() {
                self.pack::<R, V, true, true>(*sums, pixel, n);
            } else {
                self.pack::<R, V, false, true>(*sums, pixel, n);
            }
        }
    }

    /// [`Epilogue::finish_tile`] where all channels exist, `ADD`ing the residual and going through the
    /// `TABLE` or not. Rounded sums are packed, with saturation, four vectors at a time.
    ///
    /// # Safety
    ///
    /// As for [`Epilogue::finish_tile`]; all channels exist.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn pack<const R: usize, const V: usize, const ADD: bool, const TABLE: bool>(
        &self,
        sums: [[__m256i; V]; R],
        pixel: usize,
        n: usize,
    ) {
        let magic = _mm256_set1_epi32(MAGIC.to_bits() as i32);
        // Packing works in halves; this puts the vectors' codes in order.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let start = pixel * self.channels + n;
        let multipliers: [__m256; V] = core::array::from_fn(|v| {
            // SAFETY: multipliers are padded to whole blocks.
            unsafe { _mm256_loadu_ps(self.multipliers.as_ptr().add(n + v * LANES)) }
        });
        for first in (0..R * V).step_by(4) {
            let mut codes = [magic; 4];
            for i in first..(first + 4).min(R * V) {
                let (r, v) = (i / V, i % V);
                let mut t = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[r][v]), multipliers[v]);
                if ADD && let Some(residual) = &self.residual {
                    let at = self.first + start + r * self.channels + v * LANES;
                    // SAFETY: the residual covers the pixels of the call.
                    let codes = unsafe { _mm_loadl_epi64(residual.data.as_ptr().add(at).cast()) };
                    t = _mm256_add_ps(t, addend(residual, codes));
                }
                let bits = _mm256_castps_si256(_mm256_add_ps(t, self.base));
                codes[i - first] = _mm256_sub_epi32(bits, magic);
            }
            let [a, b, c, d] = codes;
            let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let bytes = _mm256_min_epi8(_mm256_max_epi8(bytes, self.bounds[0]), self.bounds[1]);
            let mut bytes = _mm256_permutevar8x32_epi32(bytes, order);
            if TABLE {
                bytes = look_up_avx2(&self.steps, bytes);
            }
            let halves = [
                _mm256_castsi256_si128(bytes),
                _mm256_extracti128_si256::<1>(bytes),
            ];
            for i in (first..(first + 4).min(R * V)).step_by(2) {
                let half = halves[(i - first) / 2];
                // SAFETY: the codes are those of channels of the call's output.
                unsafe {
                    let y = self.y.add(start + i / V * self.channels);
                    if V == 2 {
                        _mm_storeu_si128(y.cast(), half);
                        continue;
                    }
                    _mm_storel_epi64(y.cast(), half);
                    if i + 1 < R {
                        let next = y.add(self.channels).cast();
                        _mm_storeh_pd(next, _mm_castsi128_pd(half));
                    }
                }
            }
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
    unsafe fn finish(&self, sums: __m256i, pixel: usize, n: usize) {
        let count = (self.channels - n).min(LANES);
        let at = pixel * self.channels + n;
        // SAFETY: multipliers are padded to whole blocks.
        let multipliers = unsafe { _mm256_loadu_ps(self.multipliers.as_ptr().add(n)) };
        let mut t = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), multipliers);
        if let Some(r) = &self.residual {
            // SAFETY: the residual covers the pixels of the call.
            let codes = unsafe { load(r.data.as_ptr().add(self.first + at), count) };
            t = _mm256_add_ps(t, addend(r, codes));
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

/// What the residual adds, for 8 of its codes.
#[target_feature(enable = "avx2")]
#[inline]
fn addend(residual: &Residual<'_>, codes: __m128i) -> __m256 {
    let zero = _mm256_set1_epi32(residual.zero);
    let offset = _mm256_sub_epi32(_mm256_cvtepi8_epi32(codes), zero);
    let multiplier = _mm256_set1_ps(residual.multiplier);
    _mm256_mul_ps(_mm256_cvtepi32_ps(offset), multiplier)
}

/// Whether every value stays below 2²² in magnitude before the clamp, whatever the input, so that
/// the rounded sum with [`MAGIC`] holds it as an integer. Every sensible quantisation stays far below.
fn stays_small(conv: &ConvI8<'_>) -> bool {
    const LIMIT: f32 = 4.0e6;
    let e = &conv.epilogue;
    let products = conv.depth() as f32 * (128.0 * 128.0);
    let residual = e.residual.map_or(0.0, |r| {
        (r.zero.unsigned_abs() as f32 + 128.0) * r.multiplier.abs()
    });
    let offset = residual + e.zero.unsigned_abs() as f32;
    let channels = conv.bias.iter().zip(conv.multipliers).take(conv.output[2]);
    channels.fold(true, |small, (bias, multiplier)| {
        let largest = ((*bias as f32).abs() + products) * multiplier.abs() + offset;
        small & (largest < LIMIT)
    })
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
