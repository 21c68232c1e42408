//! AVX2 and AVX-VNNI: two registers are 16 lanes.

use core::arch::x86_64::*;

use crate::arch::x86::{Avx2, AvxVnni};
use crate::ops::attention::lanes::Lanes;

/// How products are formed.
pub(super) trait Multiply: Copy {
    /// What proves the features.
    type Token: Copy + Into<Avx2>;
    /// An operand ready for [`Multiply::add`].
    type Ready: Copy;

    /// Unsigned quads.
    ///
    /// # Safety
    ///
    /// The processor has what a token proves; so for the other functions.
    unsafe fn unsigned(v: __m256i) -> Self::Ready;
    /// Signed quads.
    ///
    /// # Safety
    ///
    /// As [`Multiply::unsigned`].
    unsafe fn signed(v: __m256i) -> Self::Ready;
    /// Adds the products of each lane's quad.
    ///
    /// # Safety
    ///
    /// As [`Multiply::unsigned`].
    unsafe fn add(sum: __m256i, x: Self::Ready, w: Self::Ready) -> __m256i;
}

/// `vpdpbusd`.
#[derive(Clone, Copy)]
pub(super) struct Quads;

impl Multiply for Quads {
    type Token = AvxVnni;
    type Ready = __m256i;

    #[inline(always)]
    unsafe fn unsigned(v: __m256i) -> __m256i {
        v
    }

    #[inline(always)]
    unsafe fn signed(v: __m256i) -> __m256i {
        v
    }

    #[inline(always)]
    unsafe fn add(sum: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: as the caller.
        unsafe { _mm256_dpbusd_avx_epi32(sum, x, w) }
    }
}

/// `vpmaddwd` of the even and of the odd bytes, which is exact.
#[derive(Clone, Copy)]
pub(super) struct Pairs;

impl Multiply for Pairs {
    type Token = Avx2;
    type Ready = [__m256i; 2];

    #[inline(always)]
    unsafe fn unsigned(v: __m256i) -> [__m256i; 2] {
        // SAFETY: as the caller.
        unsafe {
            [
                _mm256_and_si256(v, _mm256_set1_epi16(0xff)),
                _mm256_srli_epi16::<8>(v),
            ]
        }
    }

    #[inline(always)]
    unsafe fn signed(v: __m256i) -> [__m256i; 2] {
        // SAFETY: as the caller.
        unsafe {
            [
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(v)),
                _mm256_srai_epi16::<8>(v),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(sum: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
        // SAFETY: as the caller.
        unsafe {
            let pairs =
                _mm256_add_epi32(_mm256_madd_epi16(x[0], w[0]), _mm256_madd_epi16(x[1], w[1]));
            _mm256_add_epi32(sum, pairs)
        }
    }
}

/// The lanes of either. A value exists only where a token proved the features.
#[derive(Clone, Copy)]
pub(super) struct Narrow<M: Multiply>(M::Token);

impl From<AvxVnni> for Avx2 {
    fn from(token: AvxVnni) -> Avx2 {
        token.avx2()
    }
}

impl<M: Multiply> Narrow<M> {
    pub(super) fn new(token: M::Token) -> Self {
        Narrow(token)
    }
}

/// The same operation on both halves, whose features `self` proves and that touches no memory.
macro_rules! both {
    ($f:ident, $a:expr) => {
        // SAFETY: the token proves the features; only values are involved.
        unsafe { [$f($a[0]), $f($a[1])] }
    };
    ($f:ident, $a:expr, $b:expr) => {
        // SAFETY: the token proves the features; only values are involved.
        unsafe { [$f($a[0], $b[0]), $f($a[1], $b[1])] }
    };
}

impl<M: Multiply> Lanes for Narrow<M> {
    type Int = [__m256i; 2];
    type Float = [__m256; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn products<const R: usize, const B: usize>(
        self,
        x: &[u8],
        stride: usize,
        w: &[i8],
        quads: usize,
        start: [[__m256i; 2]; B],
    ) -> [[[__m256i; 2]; B]; R] {
        assert!(x.len() >= (R - 1) * stride + quads * 4 && w.len() >= B * quads * 64);
        let (x, w) = (x.as_ptr(), w.as_ptr());
        let mut sums = [start; R];
        for quad in 0..quads {
            // SAFETY: the token proves the features. Rows hold `quads` quads of 4 bytes, blocks of 64,
            // as asserted.
            unsafe {
                let zero = M::signed(_mm256_setzero_si256());
                let mut block = [[zero; 2]; B];
                for b in 0..B {
                    let at = w.add((b * quads + quad) * 64);
                    block[b][0] = M::signed(_mm256_loadu_si256(at.cast()));
                    block[b][1] = M::signed(_mm256_loadu_si256(at.add(32).cast()));
                }
                for r in 0..R {
                    let x = x.add(r * stride + quad * 4).cast::<i32>().read_unaligned();
                    let x = M::unsigned(_mm256_set1_epi32(x));
                    for b in 0..B {
                        sums[r][b][0] = M::add(sums[r][b][0], x, block[b][0]);
                        sums[r][b][1] = M::add(sums[r][b][1], x, block[b][1]);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 16]) -> [__m256i; 2] {
        let at = from.as_ptr();
        // SAFETY: the token proves the features; 32 bytes each are read at 0 and 32 of 64.
        unsafe {
            [
                _mm256_loadu_si256(at.cast()),
                _mm256_loadu_si256(at.add(8).cast()),
            ]
        }
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 16]) -> [__m256; 2] {
        let at = from.as_ptr();
        // SAFETY: the token proves the features; 32 bytes each are read at 0 and 32 of 64.
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }

    #[inline(always)]
    fn store(self, v: [__m256; 2], to: &mut [f32; 16]) {
        let at = to.as_mut_ptr();
        // SAFETY: the token proves the features; 32 bytes each are written at 0 and 32 of 64.
        unsafe {
            _mm256_storeu_ps(at, v[0]);
            _mm256_storeu_ps(at.add(8), v[1]);
        }
    }

    #[inline(always)]
    fn splat_i32(self, v: i32) -> [__m256i; 2] {
        // SAFETY: the token proves the features.
        [unsafe { _mm256_set1_epi32(v) }; 2]
    }

    #[inline(always)]
    fn splat(self, v: f32) -> [__m256; 2] {
        // SAFETY: the token proves the features.
        [unsafe { _mm256_set1_ps(v) }; 2]
    }

    #[inline(always)]
    fn convert(self, v: [__m256i; 2]) -> [__m256; 2] {
        both!(_mm256_cvtepi32_ps, v)
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn add_i32(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_add_epi32, a, b)
    }

    #[inline(always)]
    fn sub_i32(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_sub_epi32, a, b)
    }

    #[inline(always)]
    fn bits(self, v: [__m256; 2]) -> [__m256i; 2] {
        both!(_mm256_castps_si256, v)
    }

    #[inline(always)]
    fn floats_of(self, v: [__m256i; 2]) -> [__m256; 2] {
        both!(_mm256_castsi256_ps, v)
    }

    #[inline(always)]
    fn to_exponent(self, v: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves the features.
        unsafe { [_mm256_slli_epi32::<23>(v[0]), _mm256_slli_epi32::<23>(v[1])] }
    }

    #[inline(always)]
    fn low_bytes(self, v: [__m256i; 2]) -> [u8; 16] {
        let mut out = [0; 16];
        // SAFETY: the token proves the features; 16 bytes are written to 16.
        unsafe {
            // Low bytes of each half's 16-byte quarters side by side, then the quarters in order.
            let low = _mm256_set1_epi32(0xff);
            let words =
                _mm256_packus_epi32(_mm256_and_si256(v[0], low), _mm256_and_si256(v[1], low));
            let bytes = _mm256_packus_epi16(words, words);
            let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
            let bytes = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, order));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
        out
    }

    #[inline(always)]
    fn pack(self, v: [[__m256i; 2]; 4], to: &mut [u8; 64]) {
        for (to, v) in to.as_chunks_mut::<16>().0.iter_mut().zip(v) {
            *to = self.low_bytes(v);
        }
    }

    #[inline(always)]
    fn store_ints(self, v: [__m256i; 2], to: &mut [i32; 16]) {
        let at = to.as_mut_ptr();
        // SAFETY: the token proves the features; 32 bytes each are written at 0 and 32 of 64.
        unsafe {
            _mm256_storeu_si256(at.cast(), v[0]);
            _mm256_storeu_si256(at.add(8).cast(), v[1]);
        }
    }

    #[inline(always)]
    fn interleave(self, rows: [[i8; 16]; 4], to: &mut [i8; 64]) {
        super::interleave(self.0.into(), rows, to);
    }

    #[inline(always)]
    fn transpose(self, rows: [[i8; 16]; 4]) -> [[i8; 16]; 4] {
        super::transpose(self.0.into(), rows)
    }

    #[inline(always)]
    fn largest(self, v: [__m256; 2]) -> f32 {
        // SAFETY: the token proves the features.
        unsafe {
            let m = _mm256_max_ps(v[0], v[1]);
            let m = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps::<1>(m));
            let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
            _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)))
        }
    }

    #[inline(always)]
    fn sum(self, v: [__m256i; 2]) -> i32 {
        // SAFETY: the token proves the features.
        unsafe {
            let s = _mm256_add_epi32(v[0], v[1]);
            let s = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s));
            let s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
            _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32::<1>(s)))
        }
    }
}
