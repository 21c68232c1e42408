//! Int8 operators of two tensors.

use super::lanes::{Lanes, Rounding};
use crate::arch::x86::{Avx2, Avx512Vnni};
use crate::ops::binary::{BinaryI8, BinaryKindInt, Broadcast};

/// The operands of an operator whose lengths were checked.
pub(crate) struct Operands<'a, 'b> {
    /// The operator; its table is not applied.
    pub op: &'a BinaryI8<'b>,
    /// How the operands pair up.
    pub layout: &'a Broadcast,
    /// First operand; the output holds it where this is `None`.
    pub a: Option<&'a [i8]>,
    /// Second operand.
    pub b: &'a [i8],
    /// Output.
    pub y: &'a mut [i8],
}

/// Runs the operator compiled for AVX2.
pub(crate) fn binary_avx2(token: Avx2, operands: Operands<'_, '_>) {
    #[target_feature(enable = "avx2")]
    fn inner(token: Avx2, operands: Operands<'_, '_>) {
        operands.run(token);
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, operands) }
}

/// Runs the operator compiled for AVX-512.
pub(crate) fn binary_avx512(token: Avx512Vnni, operands: Operands<'_, '_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
    fn inner(token: Avx512Vnni, operands: Operands<'_, '_>) {
        operands.run(token);
    }
    // SAFETY: the token proves that the processor has the enabled features.
    unsafe { inner(token, operands) }
}

impl Operands<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let op = self.op;
        let (a_zero, b_zero) = (lanes.splat_i32(op.a_zero), lanes.splat_i32(op.b_zero));
        let rounding = Rounding::new(lanes, op.zero, op.lo, op.hi);
        match op.kind {
            BinaryKindInt::Add | BinaryKindInt::Sub => {
                // Negating a multiplier is exact, so a − b is a + (−b).
                let sign = if op.kind == BinaryKindInt::Sub {
                    -1.0
                } else {
                    1.0
                };
                let a_multiplier = lanes.splat_f32(op.a_multiplier);
                let b_multiplier = lanes.splat_f32(sign * op.b_multiplier);
                let sum = Sum {
                    a_zero,
                    a_multiplier,
                    b_zero,
                    b_multiplier,
                    rounding,
                };
                self.rows(lanes, sum);
            }
            BinaryKindInt::Mul => {
                let multiplier = lanes.splat_f32(op.multiplier);
                self.rows(
                    lanes,
                    Product {
                        a_zero,
                        b_zero,
                        multiplier,
                        rounding,
                    },
                );
            }
        }
    }

    #[inline(always)]
    fn rows<L: Lanes, F: Elementwise<L>>(self, lanes: L, f: F) {
        let Operands {
            layout, a, b, y, ..
        } = self;
        let n = layout.row_len();
        let (a_repeats, b_repeats) = layout.repeats();
        for row in layout.rows() {
            let mut i = 0;
            while i < n {
                let len = L::CODES.min(n - i);
                let out = &mut y[row.y + i..row.y + i + len];
                let va = match a {
                    None => lanes.load(out),
                    Some(a) if a_repeats => [lanes.splat_i32(i32::from(a[row.a])); 4],
                    Some(a) => lanes.load(&a[row.a + i..row.a + i + len]),
                };
                let vb = if b_repeats {
                    [lanes.splat_i32(i32::from(b[row.b])); 4]
                } else {
                    lanes.load(&b[row.b + i..row.b + i + len])
                };
                let codes = [
                    f.code(lanes, va[0], vb[0]),
                    f.code(lanes, va[1], vb[1]),
                    f.code(lanes, va[2], vb[2]),
                    f.code(lanes, va[3], vb[3]),
                ];
                lanes.store(codes, out);
                i += len;
            }
        }
    }
}

/// One element's code from two codes.
trait Elementwise<L: Lanes>: Copy {
    fn code(&self, lanes: L, a: L::Int, b: L::Int) -> L::Int;
}

#[derive(Clone, Copy)]
struct Sum<L: Lanes> {
    a_zero: L::Int,
    a_multiplier: L::Float,
    b_zero: L::Int,
    b_multiplier: L::Float,
    rounding: Rounding<L>,
}

impl<L: Lanes> Elementwise<L> for Sum<L> {
    #[inline(always)]
    fn code(&self, lanes: L, a: L::Int, b: L::Int) -> L::Int {
        let ta = lanes.mul(
            lanes.to_f32(lanes.sub_i32(a, self.a_zero)),
            self.a_multiplier,
        );
        let tb = lanes.mul(
            lanes.to_f32(lanes.sub_i32(b, self.b_zero)),
            self.b_multiplier,
        );
        self.rounding.codes(lanes, lanes.add(ta, tb))
    }
}

#[derive(Clone, Copy)]
struct Product<L: Lanes> {
    a_zero: L::Int,
    b_zero: L::Int,
    multiplier: L::Float,
    rounding: Rounding<L>,
}

impl<L: Lanes> Elementwise<L> for Product<L> {
    /// The product of the integers is exact in single precision: it stays below 2²⁴.
    #[inline(always)]
    fn code(&self, lanes: L, a: L::Int, b: L::Int) -> L::Int {
        let a = lanes.to_f32(lanes.sub_i32(a, self.a_zero));
        let b = lanes.to_f32(lanes.sub_i32(b, self.b_zero));
        self.rounding
            .codes(lanes, lanes.mul(lanes.mul(a, b), self.multiplier))
    }
}
