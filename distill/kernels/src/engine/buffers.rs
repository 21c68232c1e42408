//! Memory of gradients, used again as soon as a gradient is not needed.

/// Buffers that wait for use.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<f32>>);

impl Buffers {
    /// A buffer of `len` values of any content.
    pub fn take(&mut self, len: usize) -> Vec<f32> {
        let fitting = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, b)| b.capacity() >= len);
        let best = fitting.min_by_key(|(_, b)| b.capacity()).map(|(i, _)| i);
        let mut buffer = best.map_or_else(Vec::new, |i| self.0.swap_remove(i));
        buffer.resize(len, 0.0);
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&mut self, buffer: Option<Vec<f32>>) {
        self.0.extend(buffer.filter(|b| b.capacity() > 0));
    }

    /// Number of values held.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::capacity).sum()
    }
}
