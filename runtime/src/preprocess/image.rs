//! Borrowed pictures.

use super::{MAX_SIDE, PreprocessError};

/// A borrowed picture: rows of interleaved 8-bit pixels, top row first.
///
/// ```
/// use ampoule_runtime::preprocess::{ImageView, PixelFormat, PreprocessError};
///
/// // Two rows of three grey pixels, each row padded to four bytes.
/// let pixels = [10, 20, 30, 0, 40, 50, 60, 0];
/// let image = ImageView::new(&pixels, 3, 2, 4, PixelFormat::Gray8)?;
/// assert_eq!(image.row(1), Some(&[40, 50, 60][..]));
/// # Ok::<(), PreprocessError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageView<'a> {
    pixels: &'a [u8],
    width: u32,
    height: u32,
    stride: usize,
    format: PixelFormat,
}

/// The order of the bytes within a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PixelFormat {
    /// One byte: luminance.
    Gray8,
    /// Three bytes: red, green, blue.
    Rgb8,
    /// Three bytes: blue, green, red.
    Bgr8,
    /// Four bytes: red, green, blue, alpha. Alpha is dropped, not blended.
    Rgba8,
}

impl<'a> ImageView<'a> {
    /// Borrows a picture of `width` by `height` pixels whose rows start `stride` bytes apart.
    ///
    /// `pixels` holds at least `stride · (height − 1) + width · bytes per pixel` bytes: the padding
    /// after the last row may be missing.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::EmptyImage`] when a side is zero, [`PreprocessError::ImageTooLarge`] when
    /// one exceeds [`MAX_SIDE`], [`PreprocessError::StrideTooShort`] and
    /// [`PreprocessError::PixelsTooShort`] when `stride` or `pixels` do not hold the picture.
    pub fn new(
        pixels: &'a [u8],
        width: u32,
        height: u32,
        stride: usize,
        format: PixelFormat,
    ) -> Result<Self, PreprocessError> {
        if width == 0 || height == 0 {
            return Err(PreprocessError::EmptyImage);
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(PreprocessError::ImageTooLarge);
        }
        // A length beyond `usize` is also beyond any slice.
        let row = row_bytes(width, format).ok_or(PreprocessError::PixelsTooShort)?;
        if stride < row {
            return Err(PreprocessError::StrideTooShort);
        }
        let needed = usize::try_from(height - 1)
            .ok()
            .and_then(|rows| rows.checked_mul(stride))
            .and_then(|bytes| bytes.checked_add(row));
        match needed {
            Some(needed) if needed <= pixels.len() => Ok(Self {
                pixels,
                width,
                height,
                stride,
                format,
            }),
            _ => Err(PreprocessError::PixelsTooShort),
        }
    }

    /// Borrows a picture without padding between its rows.
    ///
    /// # Errors
    ///
    /// As [`ImageView::new`].
    pub fn packed(
        pixels: &'a [u8],
        width: u32,
        height: u32,
        format: PixelFormat,
    ) -> Result<Self, PreprocessError> {
        let stride = row_bytes(width, format).ok_or(PreprocessError::PixelsTooShort)?;
        Self::new(pixels, width, height, stride, format)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes from the start of a row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The order of the bytes within a pixel.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// The pixels of row `y`, without padding; `None` below the last row.
    pub fn row(&self, y: u32) -> Option<&'a [u8]> {
        if y >= self.height {
            return None;
        }
        // The constructor proves that both products fit `usize`.
        let start = usize::try_from(y).ok()? * self.stride;
        let len = row_bytes(self.width, self.format)?;
        self.pixels.get(start..)?.get(..len)
    }
}

impl PixelFormat {
    /// Bytes that one pixel takes.
    pub const fn bytes_per_pixel(self) -> usize {
        match self {
            Self::Gray8 => 1,
            Self::Rgb8 | Self::Bgr8 => 3,
            Self::Rgba8 => 4,
        }
    }
}

fn row_bytes(width: u32, format: PixelFormat) -> Option<usize> {
    usize::try_from(width)
        .ok()?
        .checked_mul(format.bytes_per_pixel())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constructor_refuses_what_does_not_hold_the_picture() {
        use PixelFormat::*;
        let bytes = [0u8; 64];
        let new =
            |len: usize, w, h, stride, f| ImageView::new(&bytes[..len], w, h, stride, f).err();
        assert_eq!(new(64, 0, 1, 0, Gray8), Some(PreprocessError::EmptyImage));
        assert_eq!(new(64, 1, 0, 1, Gray8), Some(PreprocessError::EmptyImage));
        assert_eq!(
            new(64, 4, 2, 11, Rgb8),
            Some(PreprocessError::StrideTooShort)
        );
        assert_eq!(
            new(27, 4, 2, 16, Rgb8),
            Some(PreprocessError::PixelsTooShort)
        );
        assert_eq!(new(28, 4, 2, 16, Rgb8), None);
        assert_eq!(
            new(31, 4, 2, 16, Rgba8),
            Some(PreprocessError::PixelsTooShort)
        );
        assert_eq!(
            new(64, MAX_SIDE + 1, 1, usize::MAX, Gray8),
            Some(PreprocessError::ImageTooLarge)
        );
        assert_eq!(
            new(64, 1, 1 << 20, usize::MAX, Gray8),
            Some(PreprocessError::PixelsTooShort)
        );
        assert_eq!(new(64, 16, 1, usize::MAX, Rgba8), None);
    }

    #[test]
    fn rows_skip_the_padding() {
        let bytes: std::vec::Vec<u8> = (0..20).collect();
        let view = ImageView::new(&bytes, 2, 2, 10, PixelFormat::Bgr8).unwrap();
        assert_eq!(view.row(0), Some(&[0, 1, 2, 3, 4, 5][..]));
        assert_eq!(view.row(1), Some(&[10, 11, 12, 13, 14, 15][..]));
        assert_eq!(view.row(2), None);
        assert_eq!(view.row(u32::MAX), None);
    }
}
