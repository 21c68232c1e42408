//! Sixteen lanes of floats, for a kernel that is written once.

use crate::ops::vectorize::Loop;

/// Coefficients of `2^f` for `|f| ≤ ½`, highest power first; relative error 7.5e-8 beside the rounding.
pub(crate) const EXP2: [f32; 6] = [
    0.001_327_646_4,
    0.009_675_541,
    0.055_507_135,
    0.240_221_2,
    0.693_146_94,
    1.000_000_1,
];
/// Exponents below this give 0.
pub(crate) const LOWEST: f32 = -127.0;

/// Vector operations of one instruction set, on 16 lanes. A value of an implementing type proves that
/// the processor has its instructions, so all methods are safe.
pub(crate) trait FloatLanes: Copy {
    /// 16 floats.
    type Vector: Copy;
    /// Whether the registers hold tiles of 7 rows by 3 blocks of 16; else of 5 by 1.
    const WIDE: bool;

    /// Runs a body that uses the other methods, as a function of its own: in a larger one the sums
    /// would not stay in registers.
    fn call<B: Loop>(self, body: B) -> B::Output;
    /// `start[r][b] + Σₖ x[r][k] · w[b][k]` for `R` rows, `stride` values apart, and `B` blocks of 16,
    /// each `[step][lane]`, over `steps` steps, in the order of the steps.
    ///
    /// # Panics
    ///
    /// When a slice is too short.
    fn products<const R: usize, const B: usize>(
        self,
        x: &[f32],
        stride: usize,
        w: &[f32],
        steps: usize,
        start: [[Self::Vector; B]; R],
    ) -> [[Self::Vector; B]; R];
    /// Reads 16 values.
    fn load(self, from: &[f32; 16]) -> Self::Vector;
    /// Writes 16 values.
    fn store(self, v: Self::Vector, to: &mut [f32; 16]);
    /// The same value everywhere.
    fn splat(self, v: f32) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a − b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger ones.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `2^d` for `d ≤ 0`.
    fn exp2(self, d: Self::Vector) -> Self::Vector;
    /// The largest lane.
    fn largest(self, v: Self::Vector) -> f32;
    /// The sum of the lanes.
    fn sum(self, v: Self::Vector) -> f32;
}

/// Arrays, which the compiler turns into whatever vectors there are.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl FloatLanes for Plain {
    type Vector = [f32; 16];
    const WIDE: bool = false;

    #[inline(always)]
    fn call<B: Loop>(self, body: B) -> B::Output {
        body.run()
    }

    #[inline(always)]
    fn products<const R: usize, const B: usize>(
        self,
        x: &[f32],
        stride: usize,
        w: &[f32],
        steps: usize,
        start: [[[f32; 16]; B]; R],
    ) -> [[[f32; 16]; B]; R] {
        let mut sums = start;
        for r in 0..R {
            let row = &x[r * stride..][..steps];
            for (b, sums) in sums[r].iter_mut().enumerate() {
                let block = &w[b * steps * 16..][..steps * 16];
                for (&x, w) in row.iter().zip(block.as_chunks::<16>().0) {
                    for (sum, &w) in sums.iter_mut().zip(w) {
                        *sum += x * w;
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [f32; 16] {
        *from
    }

    #[inline(always)]
    fn store(self, v: [f32; 16], to: &mut [f32; 16]) {
        *to = v;
    }

    #[inline(always)]
    fn splat(self, v: f32) -> [f32; 16] {
        [v; 16]
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
    fn exp2(self, d: [f32; 16]) -> [f32; 16] {
        d.map(|d| {
            let d = if d < LOWEST { LOWEST } else { d };
            let whole = (d + crate::numerics::MAGIC) - crate::numerics::MAGIC;
            let f = d - whole;
            let p = EXP2.into_iter().fold(0.0, |p, c| p * f + c);
            p * f32::from_bits(((whole + 127.0) as u32) << 23)
        })
    }

    #[inline(always)]
    fn largest(self, v: [f32; 16]) -> f32 {
        v.into_iter().fold(v[0], |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn sum(self, v: [f32; 16]) -> f32 {
        v.into_iter().sum()
    }
}
