//! What AVX2 and AVX-VNNI have in common: 32 channels at a time.

/// The methods of [`super::engine::Engine`] that don't depend on the dot product.
macro_rules! ymm_methods {
    () => {
        #[inline(always)]
        fn zero(self) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        fn splat_i8(self, value: i8) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_set1_epi8(value) }
        }

        #[inline(always)]
        fn splat_i32(self, value: i32) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_set1_epi32(value) }
        }

        #[inline(always)]
        fn splat_f32(self, value: f32) -> __m256 {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        fn int_from(self, f: impl Fn(usize) -> i32) -> __m256i {
            let values: [i32; 8] = core::array::from_fn(f);
            // SAFETY: `self` proves AVX2; the array has 32 bytes.
            unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
        }

        #[inline(always)]
        fn float_from(self, f: impl Fn(usize) -> f32) -> __m256 {
            let values: [f32; 8] = core::array::from_fn(f);
            // SAFETY: `self` proves AVX2; the array has 32 bytes.
            unsafe { _mm256_loadu_ps(values.as_ptr()) }
        }

        #[inline(always)]
        unsafe fn load(self, lanes: usize, at: impl Fn(usize) -> *const i8) -> __m256i {
            // SAFETY: `self` proves AVX2; the caller vouches for 32 / lanes bytes at each address.
            unsafe {
                if lanes == 1 {
                    return _mm256_loadu_si256(at(0).cast());
                }
                let low = _mm_loadu_si128(at(0).cast());
                let high = _mm_loadu_si128(at(1).cast());
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
            }
        }

        #[inline(always)]
        fn store(self, v: __m256i, lanes: usize, lane: usize, out: &mut [i8]) {
            let width = 32 / lanes;
            if out.len() < width {
                let mut bytes = [0i8; 32];
                // SAFETY: `self` proves AVX2; the array has 32 bytes.
                unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) };
                out.copy_from_slice(&bytes[lane * width..][..out.len()]);
                return;
            }
            // SAFETY: `self` proves AVX2; the slice has the bytes of a part.
            unsafe {
                match (lanes, lane) {
                    (1, _) => _mm256_storeu_si256(out.as_mut_ptr().cast(), v),
                    (_, 0) => {
                        _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(v));
                    }
                    _ => {
                        let high = _mm256_extracti128_si256::<1>(v);
                        _mm_storeu_si128(out.as_mut_ptr().cast(), high);
                    }
                }
            }
        }

        #[inline(always)]
        fn to_unsigned(self, v: __m256i) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_xor_si256(v, self.splat_i8(-128)) }
        }

        #[inline(always)]
        fn widen(self, bytes: __m256i) -> [__m256i; 4] {
            let zero = self.zero();
            // SAFETY: `self` proves AVX2.
            unsafe {
                let low = _mm256_unpacklo_epi8(bytes, zero);
                let high = _mm256_unpackhi_epi8(bytes, zero);
                [
                    _mm256_unpacklo_epi16(low, zero),
                    _mm256_unpackhi_epi16(low, zero),
                    _mm256_unpacklo_epi16(high, zero),
                    _mm256_unpackhi_epi16(high, zero),
                ]
            }
        }

        #[inline(always)]
        fn scale(self, acc: __m256i, multiplier: __m256) -> __m256 {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier) }
        }

        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_sub_epi32(a, b) }
        }

        #[inline(always)]
        fn integers(self, sums: __m256) -> __m256i {
            let magic = self.splat_i32(MAGIC.to_bits() as i32);
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_sub_epi32(_mm256_castps_si256(sums), magic) }
        }

        #[inline(always)]
        fn pack(self, [a, b, c, d]: [__m256i; 4], lo: __m256i, hi: __m256i) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe {
                let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                _mm256_min_epi8(_mm256_max_epi8(bytes, lo), hi)
            }
        }
    };
}

pub(super) use ymm_methods;
