//! Sliding-window geometry shared by convolution and pooling.

use serde::{Deserialize, Serialize};

/// Kernel size, stride, dilation and padding of a window that slides over an NHWC map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Kernel height and width.
    pub kernel: [u16; 2],
    /// Vertical and horizontal stride.
    pub stride: [u16; 2],
    /// Vertical and horizontal dilation (1 = dense).
    pub dilation: [u16; 2],
    /// Padding: top, left, bottom, right.
    pub pad: [u16; 4],
}

impl Window {
    /// A 1×1 window with stride 1 and no padding.
    pub const POINT: Window = Window {
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [0; 4],
    };

    /// Whether this is a 1×1, stride-1, unpadded window.
    pub fn is_point(&self) -> bool {
        *self
            == Window {
                dilation: self.dilation,
                ..Window::POINT
            }
    }

    /// Output size along an axis (0 = height, 1 = width) for an input size, or `None` when a
    /// parameter is 0 or the window does not fit.
    pub fn output(&self, axis: usize, input: usize) -> Option<usize> {
        let (k, s, d) = (
            self.kernel[axis] as usize,
            self.stride[axis] as usize,
            self.dilation[axis] as usize,
        );
        if k == 0 || s == 0 || d == 0 {
            return None;
        }
        let padded = input + self.pad[axis] as usize + self.pad[axis + 2] as usize;
        let reach = (k - 1) * d + 1;
        (padded >= reach).then(|| (padded - reach) / s + 1)
    }

    /// Number of kernel positions.
    pub fn taps(&self) -> usize {
        self.kernel[0] as usize * self.kernel[1] as usize
    }

    /// Taps along an axis that lie inside a map of `size` for output position `o`.
    #[cfg(arm_dsp)]
    pub(crate) fn taps_inside(
        &self,
        axis: usize,
        o: usize,
        size: usize,
    ) -> core::ops::Range<usize> {
        let taps = usize::from(self.kernel[axis]);
        let pad = usize::from(self.pad[axis]);
        let at = o * usize::from(self.stride[axis]);
        // Most windows are dense, and to divide takes time.
        let taps_before = |distance: usize| match usize::from(self.dilation[axis]) {
            0 | 1 => distance,
            dilation => distance.div_ceil(dilation),
        };
        let first = taps_before(pad.saturating_sub(at)).min(taps);
        let end = taps_before((size + pad).saturating_sub(at));
        first..end.clamp(first, taps)
    }
}
