//! Int8 attention: four vectors are 16 lanes.

use super::{Multiply, Simd};
use crate::ops::attention::lanes::Lanes;

/// The lanes of an instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Wide<M>(pub(crate) M);

impl<M: Multiply> Wide<M> {
    #[inline(always)]
    fn simd(self) -> M::Simd {
        self.0.simd()
    }
}

/// The same operation on all four vectors.
macro_rules! each {
    ($f:expr, $a:expr) => {{
        let a = $a;
        [$f(a[0]), $f(a[1]), $f(a[2]), $f(a[3])]
    }};
    ($f:expr, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        [
            $f(a[0], b[0]),
            $f(a[1], b[1]),
            $f(a[2], b[2]),
            $f(a[3], b[3]),
        ]
    }};
}

impl<M: Multiply> Lanes for Wide<M> {
    type Int = [<M::Simd as Simd>::Ints; 4];
    type Float = [<M::Simd as Simd>::Floats; 4];
    const WIDE: bool = false;

    /// Signed products of `x − 128`, and 128 times the sum of the weights.
    #[inline(always)]
    fn products<const R: usize, const B: usize>(
        self,
        x: &[u8],
        stride: usize,
        w: &[i8],
        quads: usize,
        start: [Self::Int; B],
    ) -> [[Self::Int; B]; R] {
        assert!(x.len() >= (R - 1) * stride + quads * 4 && w.len() >= B * quads * 64);
        let (multiply, simd) = (self.0, self.simd());
        let ones = simd.as_bytes(simd.splat_i32(0x0101_0101));
        let mut sums = [start; R];
        let mut totals = [[simd.splat_i32(0); 4]; B];
        for quad in 0..quads {
            let mut rows = [ones; R];
            for r in 0..R {
                // SAFETY: rows hold `quads` quads of 4 bytes, as asserted.
                let x = unsafe { x.as_ptr().add(r * stride + quad * 4).cast::<u32>() };
                // SAFETY: as above.
                let x = unsafe { x.read_unaligned() } ^ 0x8080_8080;
                rows[r] = simd.as_bytes(simd.splat_i32(x as i32));
            }
            for b in 0..B {
                for v in 0..4 {
                    let at = (b * quads + quad) * 64 + v * 16;
                    // SAFETY: blocks hold `quads` quads of 64 bytes, as asserted.
                    let w = simd.bytes(unsafe { &*w.as_ptr().add(at).cast() });
                    totals[b][v] = multiply.dot(totals[b][v], ones, w);
                    for r in 0..R {
                        sums[r][b][v] = multiply.dot(sums[r][b][v], rows[r], w);
                    }
                }
            }
        }
        for b in 0..B {
            for v in 0..4 {
                let total = simd.shift::<7>(totals[b][v]);
                for sums in &mut sums {
                    sums[b][v] = simd.add_i32(sums[b][v], total);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 16]) -> Self::Int {
        let from = from.as_chunks().0;
        [0, 1, 2, 3].map(|i| self.simd().ints(&from[i]))
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 16]) -> Self::Float {
        let from = from.as_chunks().0;
        [0, 1, 2, 3].map(|i| self.simd().floats(&from[i]))
    }

    #[inline(always)]
    fn store(self, v: Self::Float, to: &mut [f32; 16]) {
        for (to, v) in to.as_chunks_mut().0.iter_mut().zip(v) {
            self.simd().store_floats(v, to);
        }
    }

    #[inline(always)]
    fn store_ints(self, v: Self::Int, to: &mut [i32; 16]) {
        for (to, v) in to.as_chunks_mut().0.iter_mut().zip(v) {
            self.simd().store_ints(v, to);
        }
    }

    #[inline(always)]
    fn splat_i32(self, v: i32) -> Self::Int {
        [self.simd().splat_i32(v); 4]
    }

    #[inline(always)]
    fn splat(self, v: f32) -> Self::Float {
        [self.simd().splat(v); 4]
    }

    #[inline(always)]
    fn convert(self, v: Self::Int) -> Self::Float {
        each!(|v| self.simd().convert(v), v)
    }

    #[inline(always)]
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each!(|a, b| self.simd().add(a, b), a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each!(|a, b| self.simd().sub(a, b), a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each!(|a, b| self.simd().mul(a, b), a, b)
    }

    #[inline(always)]
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each!(|a, b| self.simd().max(a, b), a, b)
    }

    #[inline(always)]
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each!(|a, b| self.simd().min(a, b), a, b)
    }

    #[inline(always)]
    fn add_i32(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each!(|a, b| self.simd().add_i32(a, b), a, b)
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each!(|a, b| self.simd().sub_i32(a, b), a, b)
    }

    #[inline(always)]
    fn bits(self, v: Self::Float) -> Self::Int {
        each!(|v| self.simd().bits(v), v)
    }

    #[inline(always)]
    fn floats_of(self, v: Self::Int) -> Self::Float {
        each!(|v| self.simd().floats_of(v), v)
    }

    #[inline(always)]
    fn to_exponent(self, v: Self::Int) -> Self::Int {
        each!(|v| self.simd().shift::<23>(v), v)
    }

    #[inline(always)]
    fn low_bytes(self, v: Self::Int) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.simd().store(self.simd().narrow(v), &mut bytes);
        bytes.map(|b| b as u8)
    }

    #[inline(always)]
    fn pack(self, v: [Self::Int; 4], to: &mut [u8; 64]) {
        for (to, v) in to.as_chunks_mut::<16>().0.iter_mut().zip(v) {
            *to = self.low_bytes(v);
        }
    }

    #[inline(always)]
    fn interleave(self, rows: [[i8; 16]; 4], to: &mut [i8; 64]) {
        let simd = self.simd();
        let rows = simd.interleave(each!(|row| simd.bytes(&row), rows));
        for (to, row) in to.as_chunks_mut().0.iter_mut().zip(rows) {
            simd.store(row, to);
        }
    }

    #[inline(always)]
    fn transpose(self, rows: [[i8; 16]; 4]) -> [[i8; 16]; 4] {
        let simd = self.simd();
        let rows = simd.transpose(each!(|row| simd.bytes(&row), rows));
        let mut out = [[0; 16]; 4];
        for (out, row) in out.iter_mut().zip(rows) {
            simd.store(row, out);
        }
        out
    }

    #[inline(always)]
    fn largest(self, v: Self::Float) -> f32 {
        self.simd().largest(v)
    }

    #[inline(always)]
    fn sum(self, v: Self::Int) -> i32 {
        self.simd().sum(v)
    }
}
