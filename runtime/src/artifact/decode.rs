//! The records of small networks' operators, decoded by hand: the derived decoder takes ten times the flash.
//!
//! It accepts exactly what the derived one accepts, and gives the same steps.

use super::step::{Binary, Blob, Conv, Step};
use crate::operators::{Kind, OperatorSet, Operators};
use crate::ops::Window;
use crate::ops::binary::BinaryKind;
use crate::ops::copy::Strided;
use crate::ops::pool::PoolKind;
use crate::ops::reduce::ReduceKind;
use crate::tensor::{DType, TensorId};

impl Step {
    /// Decodes the first record of `bytes` and returns what follows; `None` when it is malformed or its operator
    /// is not linked.
    pub(crate) fn decode<O: Operators>(bytes: &[u8]) -> Option<(Step, &[u8])> {
        let any = |kind| O::SET.any(kind);
        let mut r = Reader { bytes, bad: false };
        let step = match r.varint(32) {
            0 if any(Kind::Conv) => Step::Conv(r.conv()),
            1 if any(Kind::Depthwise) => Step::Depthwise(r.conv()),
            2 if any(Kind::Table) => Step::Table {
                x: r.u16(),
                y: r.u16(),
                table: r.blob(),
            },
            4 if any(Kind::Binary) => Step::Binary(r.binary()),
            5 if any(Kind::Pool) => Step::Pool {
                x: r.u16(),
                y: r.u16(),
                kind: r.one_of(&[PoolKind::Max, PoolKind::Average]),
                window: r.window(),
                include_pad: r.flag(),
            },
            6 if any(Kind::Reduce) => Step::Reduce {
                x: r.u16(),
                y: r.u16(),
                kind: r.one_of(&[
                    ReduceKind::Mean,
                    ReduceKind::Sum,
                    ReduceKind::Max,
                    ReduceKind::Min,
                ]),
                axes: r.byte(),
            },
            7 if any(Kind::Softmax) => Step::Softmax {
                x: r.u16(),
                y: r.u16(),
                log: r.flag(),
                table: r.optional_blob(),
            },
            9 if any(Kind::Copy) => Step::Copy {
                x: r.u16(),
                y: r.u16(),
                map: r.map(),
            },
            13 if any(Kind::Convert) => Step::Convert {
                x: r.u16(),
                y: r.u16(),
            },
            // Of the others all together.
            _ if const { needs_derived(O::SET) } => return postcard::take_from_bytes(bytes).ok(),
            _ => return None,
        };
        (!r.bad).then_some((step, r.bytes))
    }
}

const fn needs_derived(set: OperatorSet) -> bool {
    let mut i = 0;
    while i < Kind::RARE.len() {
        if set.any(Kind::RARE[i]) {
            return true;
        }
        i += 1;
    }
    false
}

/// Reads fields in Postcard's encoding; past the end or the domain of a field it gives zeros and is `bad`.
struct Reader<'b> {
    bytes: &'b [u8],
    bad: bool,
}

impl Reader<'_> {
    #[inline(never)]
    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((&byte, rest)) => {
                self.bytes = rest;
                byte
            }
            None => {
                self.bad = true;
                0
            }
        }
    }

    /// A number of at most `bits` bits, seven in a byte, lowest first.
    #[inline(never)]
    fn varint(&mut self, bits: u32) -> u32 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = u32::from(self.byte());
            value |= (byte & 0x7f) << shift;
            let left = bits - shift;
            shift += 7;
            if byte & 0x80 == 0 {
                self.bad |= left < 7 && byte >> left != 0;
                return value;
            }
            if shift >= bits {
                self.bad = true;
                return 0;
            }
        }
    }

    fn u16(&mut self) -> TensorId {
        self.varint(16) as u16
    }

    fn u32(&mut self) -> u32 {
        self.varint(32)
    }

    fn i32(&mut self) -> i32 {
        let n = self.u32();
        (n >> 1) as i32 ^ -((n & 1) as i32)
    }

    #[inline(never)]
    fn f32(&mut self) -> f32 {
        let bytes = [self.byte(), self.byte(), self.byte(), self.byte()];
        f32::from_le_bytes(bytes)
    }

    #[inline(never)]
    fn flag(&mut self) -> bool {
        let byte = self.byte();
        self.bad |= byte > 1;
        byte == 1
    }

    fn one_of<T: Copy>(&mut self, variants: &[T]) -> T {
        let n = self.u32() as usize;
        self.bad |= n >= variants.len();
        variants.get(n).copied().unwrap_or(variants[0])
    }

    #[inline(never)]
    fn blob(&mut self) -> Blob {
        Blob {
            offset: self.u32(),
            len: self.u32(),
        }
    }

    #[inline(never)]
    fn optional_blob(&mut self) -> Option<Blob> {
        self.flag().then(|| self.blob())
    }

    #[inline(never)]
    fn window(&mut self) -> Window {
        let mut n = [0; 10];
        n.iter_mut().for_each(|n| *n = self.u16());
        let [k0, k1, s0, s1, d0, d1, pad @ ..] = n;
        Window {
            kernel: [k0, k1],
            stride: [s0, s1],
            dilation: [d0, d1],
            pad,
        }
    }

    #[inline(never)]
    fn conv(&mut self) -> Conv {
        Conv {
            x: self.u16(),
            y: self.u16(),
            window: self.window(),
            weights: self.blob(),
            weight_type: self.one_of(&[DType::I8, DType::I16, DType::I32, DType::F32, DType::F16]),
            bias: self.blob(),
            sums: self.optional_blob(),
            multipliers: self.optional_blob(),
            zero: self.i32(),
            lo: self.f32(),
            hi: self.f32(),
            table: self.optional_blob(),
            residual: self.flag().then(|| (self.u16(), self.f32())),
            scratch: self.flag().then(|| self.u16()),
        }
    }

    fn binary(&mut self) -> Binary {
        Binary {
            kind: self.one_of(&BINARY),
            a: self.u16(),
            b: self.u16(),
            y: self.u16(),
            zero: self.i32(),
            lo: self.f32(),
            hi: self.f32(),
            scale: self.f32(),
            table: self.optional_blob(),
        }
    }

    fn map(&mut self) -> Strided {
        Strided {
            dims: core::array::from_fn(|_| self.u32()),
            x_start: self.u32(),
            x_strides: core::array::from_fn(|_| self.i32()),
            y_start: self.u32(),
            y_strides: core::array::from_fn(|_| self.i32()),
        }
    }
}

const BINARY: [BinaryKind; 7] = [
    BinaryKind::Add,
    BinaryKind::Sub,
    BinaryKind::Mul,
    BinaryKind::Div,
    BinaryKind::Max,
    BinaryKind::Min,
    BinaryKind::Pow,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The operators that are decoded by hand, and no others.
    struct Small;
    impl Operators for Small {
        const SET: OperatorSet = OperatorSet::from_bits([0x22f7, 0, 0]);
    }

    fn derived(bytes: &[u8]) -> Option<(Step, &[u8])> {
        let (step, rest) = postcard::take_from_bytes(bytes).ok()?;
        let tag = postcard::take_from_bytes::<u32>(bytes).ok()?.0;
        let by_hand = matches!(tag, 0..=2 | 4..=7 | 9 | 13);
        by_hand.then_some((step, rest))
    }

    /// Bits, since a NaN is no equal of itself.
    fn agree(bytes: &[u8]) {
        let bits = |decoded: Option<(Step, &[u8])>| {
            decoded.map(|(step, rest)| {
                let mut memory = [0; 256];
                let len = postcard::to_slice(&step, &mut memory).unwrap().len();
                (memory, len, rest.len())
            })
        };
        assert_eq!(
            bits(Step::decode::<Small>(bytes)),
            bits(derived(bytes)),
            "{bytes:02x?}"
        );
    }

    fn steps() -> [Step; 12] {
        let blob = Blob { offset: 64, len: 9 };
        let conv = Conv {
            x: 300,
            y: 2,
            window: Window::POINT,
            weights: blob,
            weight_type: DType::I8,
            bias: blob,
            sums: Some(blob),
            multipliers: None,
            zero: -77,
            lo: -1.5,
            hi: 3.0,
            table: Some(blob),
            residual: Some((4, 0.5)),
            scratch: None,
        };
        let binary = |kind| {
            Step::Binary(Binary {
                kind,
                a: 1,
                b: 2,
                y: 3,
                zero: 5,
                lo: 0.0,
                hi: 1.0,
                scale: 2.0,
                table: None,
            })
        };
        let (x, y) = (7, 800);
        [
            Step::Conv(conv),
            Step::Depthwise(Conv {
                scratch: Some(u16::MAX),
                ..conv
            }),
            Step::Conv(Conv {
                weight_type: DType::F16,
                zero: i32::MIN,
                ..conv
            }),
            Step::Table { x, y, table: blob },
            binary(BinaryKind::Add),
            binary(BinaryKind::Pow),
            Step::Pool {
                x,
                y,
                kind: PoolKind::Average,
                window: Window::POINT,
                include_pad: true,
            },
            Step::Reduce {
                x,
                y,
                kind: ReduceKind::Min,
                axes: 200,
            },
            Step::Softmax {
                x,
                y,
                log: false,
                table: Some(blob),
            },
            Step::Copy {
                x,
                y,
                map: Strided {
                    dims: [1, 2, 3, u32::MAX, 5, 6],
                    x_start: 7,
                    x_strides: [-1, i32::MAX, i32::MIN, 0, 3, 4],
                    y_start: 8,
                    y_strides: [9, -9, 10, -10, 11, -11],
                },
            },
            Step::Convert { x, y },
            Step::Fill { y, bits: 3 },
        ]
    }

    #[test]
    fn both_decoders_agree() {
        for step in steps() {
            let mut memory = [0; 256];
            let bytes = postcard::to_slice(&step, &mut memory).unwrap();
            let fill = matches!(step, Step::Fill { .. });
            let decoded = Step::decode::<Small>(bytes);
            assert_eq!(decoded, (!fill).then_some((step, [].as_slice())));
        }
    }

    #[test]
    fn both_decoders_refuse_the_same() {
        for step in steps() {
            let mut memory = [0; 256];
            let len = postcard::to_slice(&step, &mut memory).unwrap().len();
            for end in 0..=len {
                agree(&memory[..end]);
            }
            // Every value of every byte: varints that end early, go on, or are too large.
            for at in 0..len {
                for byte in 0..=255 {
                    let mut damaged = memory;
                    damaged[at] = byte;
                    agree(&damaged[..len + 16]);
                    damaged[at + 1] |= 0x80;
                    agree(&damaged[..len + 16]);
                }
            }
        }
    }
}
