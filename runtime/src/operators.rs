//! Which operators a program is linked with.
//!
//! A desktop links all of them. Firmware names those of its model in a type, and what others would need
//! leaves no trace in its flash:
//!
//! ```
//! use ampoule_runtime::{OperatorSet, Operators};
//! struct Mine;
//! impl Operators for Mine {
//!     // What a build script prints of `OperatorSet::of(&artifact)`.
//!     const SET: OperatorSet = OperatorSet::from_bits([0b1000_0011, 0, 0]);
//! }
//! ```
//!
//! Firmware that is built together with its model goes further: its build script has verified the artifact, so the
//! device need only find that it holds the same bytes. [`Operators::PROVEN`] is the digest to compare with; checks of
//! tensors, steps and constants against each other are not linked then.
//!
//! ```
//! # use ampoule_runtime::{OperatorSet, Operators};
//! # const DIGEST: &[u8; 32] = &[0; 32];
//! struct Mine;
//! impl Operators for Mine {
//!     const SET: OperatorSet = OperatorSet::from_bits([0b1000_0011, 0, 0]);
//!     // What a build script writes of `artifact.digest()`: `include_bytes!(concat!(env!("OUT_DIR"), "/digest"))`.
//!     const PROVEN: Option<[u8; 32]> = Some(*DIGEST);
//! }
//! ```

use crate::artifact::{Artifact, Step};
use crate::ops::pool::PoolKind;
use crate::tensor::DType;

/// Operators by the type of their first operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorSet([u32; 3]);

/// The operators that a program is linked with.
pub trait Operators {
    /// Which.
    const SET: OperatorSet;
    /// [Digest](Artifact::digest) of the one artifact that the program runs, where its build has verified that with
    /// the same version of this crate. [`Artifact::verify_for`] accepts no other then.
    ///
    /// A digest of something that was not verified makes wrong results possible, and panics, but nothing undefined:
    /// kernels look at the lengths of what they get themselves.
    const PROVEN: Option<[u8; 32]> = None;
}

/// Every operator.
#[derive(Debug, Clone, Copy)]
pub struct AllOperators;

impl Operators for AllOperators {
    const SET: OperatorSet = OperatorSet([u32::MAX; 3]);
}

impl OperatorSet {
    /// The operators of an artifact.
    pub fn of(artifact: &Artifact<'_>) -> Self {
        artifact.steps().fold(OperatorSet([0; 3]), |mut set, step| {
            if let Some(dtype) = dtype(artifact, &step) {
                set.0[class(dtype)] |= 1 << Kind::of(&step) as u32;
            }
            set.0[0] |= Variant::of(artifact, &step).map_or(0, |v| 1 << v as u32);
            set
        })
    }

    /// The set that [`OperatorSet::bits`] describes.
    pub const fn from_bits(bits: [u32; 3]) -> Self {
        OperatorSet(bits)
    }

    /// For i8, other integers and floats a bit per operator; in the first also a bit per rarer form of one.
    pub const fn bits(self) -> [u32; 3] {
        self.0
    }

    /// Whether this is every operator.
    #[inline(always)]
    pub(crate) const fn is_all(self) -> bool {
        self.0[0] & self.0[1] & self.0[2] == u32::MAX
    }

    /// Whether the operator for a first operand of that type is in.
    #[inline(always)]
    pub(crate) const fn has(self, kind: Kind, dtype: DType) -> bool {
        self.0[class(dtype)] >> kind as u32 & 1 == 1
    }

    /// Whether the operator is in for any type.
    #[inline(always)]
    pub(crate) const fn any(self, kind: Kind) -> bool {
        (self.0[0] | self.0[1] | self.0[2]) >> kind as u32 & 1 == 1
    }

    /// Whether a step's operator is in; `false` when the step names no tensor of the artifact.
    pub(crate) fn serves(self, artifact: &Artifact<'_>, step: &Step) -> bool {
        dtype(artifact, step).is_some_and(|dtype| self.has(Kind::of(step), dtype))
            && Variant::of(artifact, step).is_none_or(|variant| self.includes(variant))
    }

    /// Whether that form of an operator is in.
    #[inline(always)]
    pub(crate) const fn includes(self, variant: Variant) -> bool {
        self.0[0] >> variant as u32 & 1 == 1
    }
}

/// Forms of operators that many models do without, and that need code of their own; the number is the bit of
/// the first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Pooling by the maximum.
    MaxPool = 24,
    /// A copy that is more than one run of bytes.
    Scatter,
    /// A convolution without scratch for a single patch.
    Ungathered,
    /// A depthwise convolution of fewer than 4 channels or of more than 32 taps: not what processors have
    /// kernels for.
    OddDepthwise,
}

impl Variant {
    fn of(artifact: &Artifact<'_>, step: &Step) -> Option<Self> {
        let channels = |id| artifact.tensor(id).map_or(0, |t| t.shape.last());
        match step {
            Step::Pool { kind, .. } if *kind == PoolKind::Max => Some(Variant::MaxPool),
            Step::Copy { map, .. } if !map.is_identity() => Some(Variant::Scatter),
            Step::Conv(c) if !c.window.is_point() => {
                let scratch = c.scratch.and_then(|id| artifact.tensor(id).ok());
                let depth = c.window.taps().saturating_mul(channels(c.x));
                let room = scratch.is_some_and(|t| t.bytes() >= depth);
                (!room).then_some(Variant::Ungathered)
            }
            Step::Depthwise(c) if channels(c.x) < 4 || c.window.taps() > 32 => {
                Some(Variant::OddDepthwise)
            }
            _ => None,
        }
    }
}

/// Operators; the number is the bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Conv,
    Depthwise,
    Table,
    Unary,
    Binary,
    Pool,
    Reduce,
    Softmax,
    LayerNorm,
    Copy,
    Fill,
    Resize,
    MatMul,
    Convert,
    Attention,
    Gather,
    ArgMax,
    Match,
    Merge,
    Sparse,
}

impl Kind {
    /// Operators of large networks, whose records are decoded by one decoder.
    pub(crate) const RARE: [Kind; 11] = [
        Kind::Unary,
        Kind::LayerNorm,
        Kind::Fill,
        Kind::Resize,
        Kind::MatMul,
        Kind::Attention,
        Kind::Gather,
        Kind::ArgMax,
        Kind::Match,
        Kind::Merge,
        Kind::Sparse,
    ];

    /// The operator of a step record's first byte.
    pub(crate) const fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            0 => Kind::Conv,
            1 => Kind::Depthwise,
            2 => Kind::Table,
            3 => Kind::Unary,
            4 => Kind::Binary,
            5 => Kind::Pool,
            6 => Kind::Reduce,
            7 => Kind::Softmax,
            8 => Kind::LayerNorm,
            9 => Kind::Copy,
            10 => Kind::Fill,
            11 => Kind::Resize,
            12 => Kind::MatMul,
            13 => Kind::Convert,
            14 | 19 => Kind::Attention,
            15 => Kind::Gather,
            16 => Kind::ArgMax,
            17 => Kind::Match,
            18 => Kind::Merge,
            20 => Kind::Sparse,
            _ => return None,
        })
    }

    fn of(step: &Step) -> Self {
        match step {
            Step::Conv(_) => Kind::Conv,
            Step::Depthwise(_) => Kind::Depthwise,
            Step::Table { .. } => Kind::Table,
            Step::Unary { .. } => Kind::Unary,
            Step::Binary(_) => Kind::Binary,
            Step::Pool { .. } => Kind::Pool,
            Step::Reduce { .. } => Kind::Reduce,
            Step::Softmax { .. } => Kind::Softmax,
            Step::LayerNorm { .. } => Kind::LayerNorm,
            Step::Copy { .. } => Kind::Copy,
            Step::Fill { .. } => Kind::Fill,
            Step::Resize { .. } => Kind::Resize,
            Step::MatMul { .. } => Kind::MatMul,
            Step::Convert { .. } => Kind::Convert,
            Step::Attention(_) | Step::WeightedAttention { .. } => Kind::Attention,
            Step::Gather { .. } => Kind::Gather,
            Step::ArgMax { .. } => Kind::ArgMax,
            Step::Match { .. } => Kind::Match,
            Step::Merge { .. } => Kind::Merge,
            Step::Sparse { .. } => Kind::Sparse,
        }
    }
}

/// Type of a step's first operand, or of what it fills.
fn dtype(artifact: &Artifact<'_>, step: &Step) -> Option<DType> {
    let id = step.inputs()[0].unwrap_or(step.output());
    artifact.tensor(id).ok().map(|t| t.dtype)
}

const fn class(dtype: DType) -> usize {
    match dtype {
        DType::I8 => 0,
        DType::I16 | DType::I32 => 1,
        DType::F32 | DType::F16 => 2,
    }
}
