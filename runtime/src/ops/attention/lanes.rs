//! Sixteen lanes of 32 bits, for a kernel that is written once.

/// Vector operations of one instruction set, on 16 lanes. A value of an implementing type proves
/// that the processor has its instructions, so all methods are safe.
pub(crate) trait Lanes: Copy {
    /// 16 integers.
    type Int: Copy;
    /// 16 floats.
    type Float: Copy;
    /// Whether the registers hold tiles of 7 rows by 2 blocks of 16; else of 4 by 1.
    const WIDE: bool;

    /// `start[b] + Σₖ x[r][k] · w[b][k]` for `R` rows, `stride` bytes apart, and `B` blocks of 16,
    /// each `[quad][lane][4]`, over `quads` quads.
    ///
    /// # Panics
    ///
    /// When a slice is too short.
    fn products<const R: usize, const B: usize>(
        self,
        x: &[u8],
        stride: usize,
        w: &[i8],
        quads: usize,
        start: [Self::Int; B],
    ) -> [[Self::Int; B]; R];
    /// Reads integers.
    fn ints(self, from: &[i32; 16]) -> Self::Int;
    /// Reads floats.
    fn floats(self, from: &[f32; 16]) -> Self::Float;
    /// Writes floats.
    fn store(self, v: Self::Float, to: &mut [f32; 16]);
    /// The same number everywhere.
    fn splat_i32(self, v: i32) -> Self::Int;
    /// The same number everywhere.
    fn splat(self, v: f32) -> Self::Float;
    /// Integers to floats, to nearest even.
    fn convert(self, v: Self::Int) -> Self::Float;
    /// `a + b`.
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a − b`.
    fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a · b`.
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The larger ones.
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The smaller ones.
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a − b`, wrapping.
    fn sub_i32(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The bits.
    fn bits(self, v: Self::Float) -> Self::Int;
    /// The floats of some bits.
    fn floats_of(self, v: Self::Int) -> Self::Float;
    /// Moves bits up by 23.
    fn to_exponent(self, v: Self::Int) -> Self::Int;
    /// The low byte of each lane.
    fn low_bytes(self, v: Self::Int) -> [u8; 16];
    /// The low bytes of four vectors, in order.
    fn pack(self, v: [Self::Int; 4], to: &mut [u8; 64]);
    /// Writes integers.
    fn store_ints(self, v: Self::Int, to: &mut [i32; 16]);
    /// `to[4·i + r] = rows[r][i]`.
    fn interleave(self, rows: [[i8; 16]; 4], to: &mut [i8; 64]);
    /// Quad `r` of row `i` becomes quad `i` of row `r`.
    fn transpose(self, rows: [[i8; 16]; 4]) -> [[i8; 16]; 4];
    /// The largest lane.
    fn largest(self, v: Self::Float) -> f32;
    /// The sum of the lanes, wrapping.
    fn sum(self, v: Self::Int) -> i32;
}

/// Arrays, which the compiler turns into whatever vectors there are.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Lanes for Plain {
    type Int = [i32; 16];
    type Float = [f32; 16];
    const WIDE: bool = false;

    #[inline(always)]
    fn products<const R: usize, const B: usize>(
        self,
        x: &[u8],
        stride: usize,
        w: &[i8],
        quads: usize,
        start: [[i32; 16]; B],
    ) -> [[[i32; 16]; B]; R] {
        let mut sums = [start; R];
        for r in 0..R {
            let row = &x[r * stride..][..quads * 4];
            for (b, sums) in sums[r].iter_mut().enumerate() {
                let block = &w[b * quads * 64..][..quads * 64];
                for (x, w) in row.as_chunks::<4>().0.iter().zip(block.as_chunks::<64>().0) {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        let product = |i: usize| i32::from(x[i]) * i32::from(w[lane * 4 + i]);
                        *sum = sum.wrapping_add(product(0) + product(1) + product(2) + product(3));
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 16]) -> [i32; 16] {
        *from
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 16]) -> [f32; 16] {
        *from
    }

    #[inline(always)]
    fn store(self, v: [f32; 16], to: &mut [f32; 16]) {
        *to = v;
    }

    #[inline(always)]
    fn splat_i32(self, v: i32) -> [i32; 16] {
        [v; 16]
    }

    #[inline(always)]
    fn splat(self, v: f32) -> [f32; 16] {
        [v; 16]
    }

    #[inline(always)]
    fn convert(self, v: [i32; 16]) -> [f32; 16] {
        v.map(|v| v as f32)
    }

    #[inline(always)]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        core::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        core::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        core::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        core::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        core::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn add_i32(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        core::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub_i32(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        core::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn bits(self, v: [f32; 16]) -> [i32; 16] {
        v.map(|v| v.to_bits() as i32)
    }

    #[inline(always)]
    fn floats_of(self, v: [i32; 16]) -> [f32; 16] {
        v.map(|v| f32::from_bits(v as u32))
    }

    #[inline(always)]
    fn to_exponent(self, v: [i32; 16]) -> [i32; 16] {
        v.map(|v| v << 23)
    }

    #[inline(always)]
    fn low_bytes(self, v: [i32; 16]) -> [u8; 16] {
        v.map(|v| v as u8)
    }

    #[inline(always)]
    fn pack(self, v: [[i32; 16]; 4], to: &mut [u8; 64]) {
        for (to, v) in to.as_chunks_mut::<16>().0.iter_mut().zip(v) {
            *to = self.low_bytes(v);
        }
    }

    #[inline(always)]
    fn store_ints(self, v: [i32; 16], to: &mut [i32; 16]) {
        *to = v;
    }

    #[inline(always)]
    fn transpose(self, rows: [[i8; 16]; 4]) -> [[i8; 16]; 4] {
        core::array::from_fn(|r| core::array::from_fn(|i| rows[i / 4][r * 4 + i % 4]))
    }

    #[inline(always)]
    fn interleave(self, rows: [[i8; 16]; 4], to: &mut [i8; 64]) {
        for (i, to) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *to = [rows[0][i], rows[1][i], rows[2][i], rows[3][i]];
        }
    }

    #[inline(always)]
    fn largest(self, v: [f32; 16]) -> f32 {
        v.into_iter().fold(v[0], |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn sum(self, v: [i32; 16]) -> i32 {
        v.into_iter().fold(0, i32::wrapping_add)
    }
}
