//! Where a sliding window reads.

/// A sliding window over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Steps down and right.
    pub stride: [usize; 2],
    /// Zeros at the top, left, bottom and right.
    pub pads: [usize; 4],
}

impl Window {
    /// One pixel, every pixel.
    pub const POINT: Window = Window {
        kernel: [1; 2],
        stride: [1; 2],
        pads: [0; 4],
    };

    /// A square with `kernel / 2` zeros on all sides.
    pub const fn square(kernel: usize, stride: usize) -> Window {
        Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            pads: [kernel / 2; 4],
        }
    }

    /// Height and width of the result for a map's; `None` when the window does not fit, or has no size or
    /// stride.
    pub fn output(&self, map: [usize; 2]) -> Option<[usize; 2]> {
        let along = |i: usize| {
            let size = (map[i] + self.pads[i] + self.pads[i + 2]).checked_sub(self.kernel[i])?;
            (self.kernel[i] > 0).then_some(size.checked_div(self.stride[i])? + 1)
        };
        Some([along(0)?, along(1)?])
    }

    /// Number of places in the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The source position along an axis that place `tap` of result `at` reads, of `size`.
    #[inline(always)]
    pub(crate) fn source(&self, axis: usize, at: usize, tap: usize, size: usize) -> Option<usize> {
        let source = (at * self.stride[axis] + tap).checked_sub(self.pads[axis])?;
        (source < size).then_some(source)
    }

    /// The result along an axis, of `size`, whose place `tap` reads the source position `at`.
    #[inline(always)]
    pub(crate) fn result(&self, axis: usize, at: usize, tap: usize, size: usize) -> Option<usize> {
        let start = (at + self.pads[axis]).checked_sub(tap)?;
        let result = start / self.stride[axis];
        (start % self.stride[axis] == 0 && result < size).then_some(result)
    }
}
