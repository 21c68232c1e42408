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
    /// and sums below 0 have the sign bit. (Integer units are idler than those for floats.) `None` where
    /// every sum keeps to 16 bits, and packing can saturate.
    wide_bounds: Option<[__m512i; 2]>,
    /// Smallest and largest code.
    bounds: [__m512i; 2],
    y: *mut i8,
    channels: usize,
    extra: Option<Extra>,
}

/// Most vectors whose codes are packed into one.
const GROUP: usize = 4;

/// Rows that are packed together: as many as fill a vector.
const fn group(blocks: usize) -> usize {
    GROUP / blocks
}

impl Epilogue {
    /// For the pixels of `call`, whose output it takes over.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub(super) fn new(call: &mut CallI8<'_, '_>) -> Self {
        let e = &call.conv.epilogue;
        let wide = [e.lo, e.hi].map(|bound| (MAGIC + f32::from(bound)).to_bits() as i32);
        Epilogue {
            multipliers: call.conv.multipliers.as_ptr(),
            base: _mm512_set1_ps(MAGIC + e.zero as f32),
            wide_bounds: if fits_words(call.conv) {
                None
            } else {
                Some([_mm512_set1_epi32(wide[0]), _mm512_set1_epi32(wide[1])])
            },
            bounds: [_mm512_set1_epi8(e.lo), _mm512_set1_epi8(e.hi)],
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
        let Some(extra) = &self.extra else { return };
        // SAFETY: as the caller.
        unsafe {
            match (extra.residual.is_null(), extra.table.is_some()) {
                (true, _) => self.finish_all::<B, false, true>(rows, multipliers, at, count),
                (_, false) => self.finish_all::<B, true, false>(rows, multipliers, at, count),
                _ => self.finish_all::<B, true, true>(rows, multipliers, at, count),
            }
        }
    }

    /// [`Epilogue::finish_rows`], group by group, `ADD`ing a residual and going through a `TABLE` or not.
    ///
    /// # Safety
    ///
    /// As for [`Epilogue::finish`], for each of the rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    unsafe fn finish_all<const B: usize, const ADD: bool, const TABLE: bool>(
        &self,
        rows: &[[__m512i; B]],
        multipliers: [__m512; B],
        at: usize,
        count: usize,
    ) {
        let mut at = at;
        for rows in rows.chunks(group(B)) {
            // SAFETY: as the caller.
            unsafe {
                self.finish_group::<B, ADD, TABLE>(rows, multipliers, at, count);
            }
            at += group(B) * self.channels;
        }
    }

    /// Finishes the sums of `R` neighbouring pixels by `B` neighbouring blocks, of which `count` channels
    /// from position `at` on exist, and stores the codes, where nothing but rounding and clamping is asked
    /// for.
    ///
    /// # Safety
    ///
    /// As for [`Epilogue::finish`], for each of the rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    pub(super) unsafe fn finish_plain<const R: usize, const B: usize>(
        &self,
        sums: [[__m512i; B]; R],
        multipliers: [__m512; B],
        at: usize,
        count: usize,
    ) {
        for first in (0..R).step_by(group(B)) {
            let rows = &sums[first..R.min(first + group(B))];
            let at = at + first * self.channels;
            // SAFETY: as the caller.
            unsafe { self.finish_group::<B, false, false>(rows, multipliers, at, count) };
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
        // SAFETY: as the caller.
        unsafe {
            if PLAIN {
                self.finish_group::<B, false, false>(&[sums], multipliers, at, count);
            } else {
                self.finish_rows(&[sums], multipliers, at, count);
            }
        }
    }

    /// Finishes up to [`group`] rows.
    ///
    /// # Safety
    ///
    /// As for [`Epilogue::finish`], for each of the rows; what is `ADD`ed and the `TABLE` exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    unsafe fn finish_group<const B: usize, const ADD: bool, const TABLE: bool>(
        &self,
        rows: &[[__m512i; B]],
        multipliers: [__m512; B],
        at: usize,
        count: usize,
    ) {
        let mut bits = [_mm512_castps_si512(self.base); GROUP];
        for (r, sums) in rows.iter().enumerate() {
            for b in 0..B {
                let mut t = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[b]), multipliers[b]);
                if ADD && let Some(extra) = &self.extra {
                    let (at, count) = (at + r * self.channels + b * WIDTH, count - b * WIDTH);
                    // SAFETY: the residual covers the pixels of the call.
                    t = unsafe { extra.add_residual(t, at, count) };
                }
                bits[r * B + b] = _mm512_castps_si512(_mm512_add_ps(t, self.base));
            }
        }
        let mut codes = self.pack(bits);
        if TABLE
            && let Some(Extra {
                table: Some(table), ..
            }) = &self.extra
        {
            codes = look_up(table, codes);
        }
        for r in 0..rows.len() {
            // SAFETY: the values belong to the output.
            unsafe {
                let y = self.y.add(at + r * self.channels);
                store_row::<B>(codes, r, y, count);
            }
        }
    }

    /// Whether there is a residual.
    pub(super) fn adds(&self) -> bool {
        self.extra.is_some_and(|extra| !extra.residual.is_null())
    }

    /// Finishes the sums of a block of channels, each of 16 neighbouring pixels in the lanes. Of the pixels, `rows` exist, and
    /// of the channels from position `at` on `count`; no residual is [added](Epilogue::adds).
    ///
    /// # Safety
    ///
    /// These values belong to the call's output; the multipliers are those of the block.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    pub(super) unsafe fn finish_columns(
        &self,
        sums: &[__m512i; WIDTH],
        multipliers: &[f32; WIDTH],
        at: usize,
        rows: usize,
        count: usize,
    ) {
        let order = by_lane();
        let mut quads = [_mm512_setzero_si512(); WIDTH / GROUP];
        for (g, quad) in quads.iter_mut().enumerate() {
            let mut bits = [_mm512_setzero_si512(); GROUP];
            for (c, bits) in bits.iter_mut().enumerate() {
                let multiplier = _mm512_set1_ps(multipliers[g * GROUP + c]);
                let t = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[g * GROUP + c]), multiplier);
                *bits = _mm512_castps_si512(_mm512_add_ps(t, self.base));
            }
            // Each lane's four channels side by side.
            *quad = _mm512_permutexvar_epi8(order, self.pack_quarters(bits));
            if let Some(Extra {
                table: Some(table), ..
            }) = &self.extra
            {
                *quad = look_up(table, *quad);
            }
        }
        let [a, b, c, d] = quads;
        let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
        let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
        // Quarter `q` of vector `i` has all channels of pixel `4 q + i`.
        let codes = [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ];
        let mask = (1u32 << count.min(WIDTH)).wrapping_sub(1) as u16;
        for i in 0..WIDTH.min(rows) {
            let codes = codes[i % 4];
            let row = match i / 4 {
                0 => _mm512_castsi512_si128(codes),
                1 => _mm512_extracti32x4_epi32::<1>(codes),
                2 => _mm512_extracti32x4_epi32::<2>(codes),
                _ => _mm512_extracti32x4_epi32::<3>(codes),
            };
            // SAFETY: as the caller; the mask covers no more than `count`.
            unsafe {
                let y = self.y.add(at + i * self.channels);
                if mask == u16::MAX {
                    _mm_storeu_si128(y.cast(), row);
                } else {
                    _mm_mask_storeu_epi8(y, mask, row);
                }
            }
        }
    }

    /// Clamped codes of four vectors of sums with [`MAGIC`], in order.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    fn pack(&self, bits: [__m512i; GROUP]) -> __m512i {
        // This puts the halves of the vectors' codes in order.
        let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        _mm512_permutexvar_epi64(order, self.pack_quarters(bits))
    }

    /// Clamped codes of four vectors of sums with [`MAGIC`], as packing in quarters leaves them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    #[inline]
    fn pack_quarters(&self, mut bits: [__m512i; GROUP]) -> __m512i {
        if let Some([lo, hi]) = self.wide_bounds {
            for v in &mut bits {
                *v = _mm512_min_epi32(_mm512_max_epi32(*v, lo), hi);
            }
        }
        // The low words are the rounded values: MAGIC has zeros there.
        let even = words(0);
        let [a, b, c, d] = bits;
        let ab = _mm512_permutex2var_epi16(a, even, b);
        let cd = _mm512_permutex2var_epi16(c, even, d);
        let codes = _mm512_packs_epi16(ab, cd);
        _mm512_min_epi8(_mm512_max_epi8(codes, self.bounds[0]), self.bounds[1])
    }
}

/// Indices of the words `first`, `first + 2` and so on of two vectors.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn words(first: i16) -> __m512i {
    let mut at = [0i16; 32];
    for (i, at) in at.iter_mut().enumerate() {
        *at = first + 2 * i as i16;
    }
    // SAFETY: 64 bytes are read of 64.
    unsafe { _mm512_loadu_si512(at.as_ptr().cast()) }
}

/// Where the bytes of four packed vectors are, lane by lane.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn by_lane() -> __m512i {
    const AT: [u8; 64] = {
        let mut at = [0; 64];
        let mut i = 0;
        while i < 64 {
            let (lane, v) = (i / 4, i % 4);
            // Words of vectors 0 and 1 fill the lower halves of the quarters, those of 2 and 3 the upper ones.
            at[i] = (((v % 2) * 2 + lane / 8) * 16 + (v / 2) * 8 + lane % 8) as u8;
            i += 1;
        }
        at
    };
    // SAFETY: 64 bytes are read of 64.
    unsafe { _mm512_loadu_si512(AT.as_ptr().cast()) }
}

/// Stores row `r` of those in `codes`, `B` blocks each, of which `count` values exist.
///
/// # Safety
///
/// As many can be written at `y`; `r` is less than [`group`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
#[inline]
unsafe fn store_row<const B: usize>(codes: __m512i, r: usize, y: *mut i8, count: usize) {
    let row = match (B, r) {
        (1, 1) => _mm512_castsi128_si512(_mm512_extracti32x4_epi32::<1>(codes)),
        (1, 2) => _mm512_castsi128_si512(_mm512_extracti32x4_epi32::<2>(codes)),
        (1, 3) => _mm512_castsi128_si512(_mm512_extracti32x4_epi32::<3>(codes)),
        (2, 1) => _mm512_castsi256_si512(_mm512_extracti64x4_epi64::<1>(codes)),
        _ => codes,
    };
    // SAFETY: as the caller; the mask covers no more than `count`.
    unsafe {
        if count < B * WIDTH {
            _mm512_mask_storeu_epi8(y, (1 << count) - 1, row);
        } else if B == 1 {
            _mm_storeu_si128(y.cast(), _mm512_castsi512_si128(row));
        } else if B == 4 {
            _mm512_storeu_si512(y.cast(), row);
        } else {
            _mm256_storeu_si256(y.cast(), _mm512_castsi512_si256(row));
            if B == 3 {
                let last = _mm512_extracti32x4_epi32::<2>(row);
                _mm_storeu_si128(y.add(2 * WIDTH).cast(), last);
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
        let residual = self.residual.wrapping_add(at);
        // SAFETY: the mask covers no more than the `count` values.
        let codes = unsafe {
            if count >= WIDTH {
                _mm_loadu_si128(residual.cast())
            } else {
                _mm_maskz_loadu_epi8(_cvtu32_mask16((1 << count) - 1), residual)
            }
        };
        let offset = _mm512_sub_epi32(_mm512_cvtepi8_epi32(codes), self.residual_zero);
        _mm512_add_ps(
            t,
            _mm512_mul_ps(_mm512_cvtepi32_ps(offset), self.residual_multiplier),
        )
    }
}

/// Whether every rounded sum stays below 2¹⁵ in magnitude before the clamp, whatever the input. The
/// bound is the largest product at every place; usual layers of a few thousand products keep to it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn fits_words(conv: &ConvI8<'_>) -> bool {
    const LIMIT: f32 = 32000.0;
    let e = &conv.epilogue;
    let residual = e.residual.map_or(0.0, |r| {
        (r.zero.unsigned_abs() as f32 + 128.0) * r.multiplier.abs()
    });
    let products = _mm512_set1_ps(conv.depth() as f32 * (128.0 * 128.0));
    let mut largest = _mm512_setzero_ps();
    let bias = conv.bias.as_chunks::<WIDTH>().0.iter();
    for (bias, multipliers) in bias.zip(conv.multipliers.as_chunks::<WIDTH>().0) {
        // SAFETY: 64 bytes each are read of 64.
        let (bias, multipliers) = unsafe {
            (
                _mm512_loadu_si512(bias.as_ptr().cast()),
                _mm512_loadu_ps(multipliers.as_ptr()),
            )
        };
        let bias = _mm512_abs_ps(_mm512_cvtepi32_ps(bias));
        let sum = _mm512_mul_ps(_mm512_add_ps(bias, products), _mm512_abs_ps(multipliers));
        largest = _mm512_max_ps(largest, sum);
    }
    let offset = residual + e.zero.unsigned_abs() as f32;
    _mm512_reduce_max_ps(largest) + offset < LIMIT
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
