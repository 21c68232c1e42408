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
        fn load_i32(self, from: &[i32]) -> __m256i {
            // SAFETY: `self` proves AVX2; the array has 32 bytes.
            from.first_chunk::<8>().map_or(self.zero(), |from| unsafe {
                _mm256_loadu_si256(from.as_ptr().cast())
            })
        }

        #[inline(always)]
        fn load_f32(self, from: &[f32]) -> __m256 {
            from.first_chunk::<8>().map_or(self.splat_f32(0.0), |from| {
                // SAFETY: `self` proves AVX2; the array has 32 bytes.
                unsafe { _mm256_loadu_ps(from.as_ptr()) }
            })
        }

        #[inline(always)]
        fn deal_int(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
            // SAFETY: `self` proves AVX2.
            unsafe {
                [
                    _mm256_permute2x128_si256::<0x20>(a, c),
                    _mm256_permute2x128_si256::<0x31>(a, c),
                    _mm256_permute2x128_si256::<0x20>(b, d),
                    _mm256_permute2x128_si256::<0x31>(b, d),
                ]
            }
        }

        #[inline(always)]
        fn deal_float(self, [a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
            // SAFETY: `self` proves AVX2.
            unsafe {
                [
                    _mm256_permute2f128_ps::<0x20>(a, c),
                    _mm256_permute2f128_ps::<0x31>(a, c),
                    _mm256_permute2f128_ps::<0x20>(b, d),
                    _mm256_permute2f128_ps::<0x31>(b, d),
                ]
            }
        }

        #[inline(always)]
        unsafe fn load<const G: usize>(self, at: impl Fn(usize) -> *const i8) -> __m256i {
            // SAFETY: `self` proves AVX2; the caller vouches for 32 / G bytes at each address.
            unsafe {
                if G == 1 {
                    return _mm256_loadu_si256(at(0).cast());
                }
                let low = _mm_loadu_si128(at(0).cast());
                let high = _mm_loadu_si128(at(1).cast());
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
            }
        }

        #[inline(always)]
        fn load_line(self, line: &Line) -> __m256i {
            // SAFETY: `self` proves AVX2; a line has 64 aligned bytes.
            unsafe { _mm256_load_si256(line.0.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store_line(self, v: __m256i, line: &mut Line) {
            // SAFETY: `self` proves AVX2; a line has 64 aligned bytes.
            unsafe { _mm256_store_si256(line.0.as_mut_ptr().cast(), v) }
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
        fn times_128(self, v: __m256i) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_slli_epi32::<7>(v) }
        }

        #[inline(always)]
        fn integers(self, sums: __m256) -> __m256i {
            let magic = self.splat_i32(MAGIC.to_bits() as i32);
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_sub_epi32(_mm256_castps_si256(sums), magic) }
        }

        #[inline(always)]
        fn pack(self, [a, b, c, d]: [__m256i; 4], [lo, hi]: [__m256i; 2]) -> __m256i {
            // SAFETY: `self` proves AVX2.
            unsafe {
                let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                _mm256_min_epi8(_mm256_max_epi8(bytes, lo), hi)
            }
        }
    };
}

pub(super) use ymm_methods;
