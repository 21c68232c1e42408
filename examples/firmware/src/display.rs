//! A display: a frame buffer of 320 by 240 pixels.

use core::convert::Infallible;

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::prelude::*;

/// Width and height.
pub const SIZE: [usize; 2] = [320, 240];

/// The frame buffer.
pub struct Display([Rgb565; SIZE[0] * SIZE[1]]);

impl Display {
    pub const fn new() -> Self {
        Display([Rgb565::BLACK; SIZE[0] * SIZE[1]])
    }

    /// The pixels of row `y`.
    pub fn row(&self, y: usize) -> &[Rgb565] {
        &self.0[y * SIZE[0]..][..SIZE[0]]
    }

    /// A view of half the size, each pixel of which is two by two of the display's.
    pub fn twice(&mut self) -> Twice<'_> {
        Twice(self)
    }
}

impl OriginDimensions for Display {
    fn size(&self) -> Size {
        Size::new(SIZE[0] as u32, SIZE[1] as u32)
    }
}

impl DrawTarget for Display {
    type Color = Rgb565;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb565>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            if let (Ok(x @ 0..320), Ok(y @ 0..240)) = (usize::try_from(at.x), usize::try_from(at.y))
            {
                self.0[y * SIZE[0] + x] = colour;
            }
        }
        Ok(())
    }
}

/// See [`Display::twice`].
pub struct Twice<'d>(&'d mut Display);

impl OriginDimensions for Twice<'_> {
    fn size(&self) -> Size {
        self.0.size() / 2
    }
}

impl DrawTarget for Twice<'_> {
    type Color = Rgb565;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb565>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        let corners = [(0, 0), (1, 0), (0, 1), (1, 1)];
        self.0
            .draw_iter(pixels.into_iter().flat_map(|Pixel(at, colour)| {
                corners.map(|(x, y)| Pixel(at * 2 + Point::new(x, y), colour))
            }))
    }
}
