//! Element types, shapes and tensor records.

use serde::{Deserialize, Serialize};

/// Most dimensions a tensor may have.
pub const MAX_RANK: usize = 6;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[repr(u8)]
pub enum DType {
    /// 8-bit codes, asymmetric: `real = scale · (code − zero_point)`.
    I8 = 0,
    /// 16-bit codes, symmetric: `real = scale · code`.
    I16 = 1,
    /// 32-bit integers (token ids, indices).
    I32 = 2,
    /// IEEE-754 single precision.
    F32 = 3,
    /// IEEE-754 half precision; constants only.
    F16 = 4,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::I8 => 1,
            DType::I16 | DType::F16 => 2,
            DType::I32 | DType::F32 => 4,
        }
    }

    /// The type for a code of the tensor table.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => DType::I8,
            1 => DType::I16,
            2 => DType::I32,
            3 => DType::F32,
            4 => DType::F16,
            _ => return None,
        })
    }

    /// Lower-case name as the command line prints it.
    pub const fn name(self) -> &'static str {
        match self {
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::F32 => "f32",
            DType::F16 => "f16",
        }
    }
}

/// Dimensions, outermost first. Images are NHWC.
///
/// ```
/// use ampoule_runtime::Shape;
/// let s = Shape::new(&[1, 96, 96, 3]).unwrap();
/// assert_eq!((s.elements(), s.last()), (27648, 3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    rank: u8,
    dims: [u32; MAX_RANK],
}

impl Shape {
    /// A shape of at most [`MAX_RANK`] dimensions, none of them 0, with fewer than 2³¹ elements.
    pub fn new(dims: &[usize]) -> Option<Self> {
        let mut out = [1u32; MAX_RANK];
        let mut count = 1u32;
        if dims.len() > MAX_RANK {
            return None;
        }
        for (slot, &d) in out.iter_mut().zip(dims) {
            *slot = u32::try_from(d).ok()?;
            count = count.checked_mul(*slot).filter(|&c| c > 0 && c < 1 << 31)?;
        }
        Some(Shape {
            rank: dims.len() as u8,
            dims: out,
        })
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        usize::from(self.rank).min(MAX_RANK)
    }

    /// Dimension `i`, 1 past the rank.
    pub fn dim(&self, i: usize) -> usize {
        self.dims.get(i).map_or(1, |&d| d as usize)
    }

    /// The dimensions.
    pub fn dims(&self) -> &[u32] {
        &self.dims[..self.rank()]
    }

    /// Product of the dimensions.
    pub fn elements(&self) -> usize {
        self.dims().iter().map(|&d| d as usize).product()
    }

    /// Last (fastest) dimension; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().map_or(1, |&d| d as usize)
    }

    /// Batch, height, width, channels of an NHWC tensor of rank 4, else `None`.
    pub fn nhwc(&self) -> Option<[usize; 4]> {
        (self.rank == 4).then(|| [self.dim(0), self.dim(1), self.dim(2), self.dim(3)])
    }
}

/// Index into the tensor table.
pub type TensorId = u16;

/// Bank number of tensors that live in the weights section.
pub const CONSTANT_BANK: u8 = 255;

/// One record of the tensor table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Arena bank, or [`CONSTANT_BANK`].
    pub bank: u8,
    /// Byte offset in the bank or in the weights section.
    pub offset: u32,
    /// Dimensions.
    pub shape: Shape,
    /// Quantisation step; 1 for float tensors.
    pub scale: f32,
    /// Code that stands for 0.0; 0 for float and i16 tensors.
    pub zero_point: i32,
    /// First step during which the memory is the tensor's own.
    pub first: u16,
    /// Last step during which the memory is the tensor's own.
    pub last: u16,
    /// Whether it is a part of another tensor's memory, rows of a map say.
    pub view: bool,
}

impl Tensor {
    /// Bytes the tensor occupies.
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size()
    }
}
