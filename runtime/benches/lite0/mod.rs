//! The convolutions of EfficientNet-Lite0 with random data, depthwise ones left out.

use std::ops::{Deref, DerefMut};

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::conv::{
    ConvF32, ConvI8, EpilogueI8, PackedShape, WEIGHT_SLACK, WeightsF32,
};

/// A convolution and how often the network has it.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "not every bench weighs layers by their number")]
pub struct Layer {
    pub size: usize,
    pub input: usize,
    pub output: usize,
    pub count: usize,
}

const fn layer(size: usize, input: usize, output: usize, count: usize) -> Layer {
    Layer {
        size,
        input,
        output,
        count,
    }
}

/// Output size, input and output channels, count. The first is the 3×3 stem, the last the classifier.
pub const LAYERS: [Layer; 21] = [
    layer(112, 3, 32, 1),
    layer(112, 32, 16, 1),
    layer(112, 16, 96, 1),
    layer(56, 96, 24, 1),
    layer(56, 24, 144, 2),
    layer(56, 144, 24, 1),
    layer(28, 144, 40, 1),
    layer(28, 40, 240, 2),
    layer(28, 240, 40, 1),
    layer(14, 240, 80, 1),
    layer(14, 80, 480, 3),
    layer(14, 480, 80, 2),
    layer(14, 480, 112, 1),
    layer(14, 112, 672, 3),
    layer(14, 672, 112, 2),
    layer(7, 672, 192, 1),
    layer(7, 192, 1152, 4),
    layer(7, 1152, 192, 3),
    layer(7, 1152, 320, 1),
    layer(7, 320, 1280, 1),
    layer(1, 1280, 1000, 1),
];

impl Layer {
    /// Geometry of the window.
    pub fn window(&self) -> Window {
        if self.input == 3 {
            Window {
                kernel: [3, 3],
                stride: [2, 2],
                dilation: [1, 1],
                pad: [0, 0, 1, 1],
            }
        } else {
            Window::POINT
        }
    }

    /// Height or width of the input.
    pub fn input_size(&self) -> usize {
        self.size * self.window().stride[0] as usize
    }

    /// Length of a patch.
    pub fn depth(&self) -> usize {
        self.window().taps() * self.input
    }

    /// Multiply-accumulates.
    pub fn macs(&self) -> usize {
        self.size * self.size * self.depth() * self.output
    }

    /// `3×3 3→32 @112²` and the like.
    pub fn name(&self) -> String {
        let kernel = self.window().kernel[0];
        format!(
            "{kernel}x{kernel}_{}to{}_at_{}",
            self.input, self.output, self.size
        )
    }
}

/// Deterministic pseudo-random bytes.
fn bytes(n: usize) -> impl ExactSizeIterator<Item = u8> {
    let mut state = 1u32;
    (0..n).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
}

/// Values that start on a cache line, as tensors of an arena and of an artifact do.
pub struct Aligned<T> {
    memory: Vec<T>,
    start: usize,
}

impl<T: Copy + Default> Aligned<T> {
    fn new(values: impl ExactSizeIterator<Item = T>) -> Self {
        let mut memory = vec![T::default(); values.len() + 64];
        let start = memory.as_ptr().align_offset(64);
        memory[start..]
            .iter_mut()
            .zip(values)
            .for_each(|(slot, value)| *slot = value);
        memory.truncate(start + memory.len() - 64);
        Aligned { memory, start }
    }

    fn zeros(n: usize) -> Self {
        Aligned::new((0..n).map(|_| T::default()))
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.start..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..]
    }
}

/// Data of one int8 layer.
#[allow(dead_code, reason = "not every bench weighs layers by their number")]
pub struct LayerI8 {
    pub layer: Layer,
    x: Aligned<i8>,
    y: Aligned<i8>,
    weights: Aligned<i8>,
    zeros: Vec<i32>,
    multipliers: Vec<f32>,
}

impl LayerI8 {
    pub fn new(layer: Layer) -> Self {
        let packed = PackedShape::new(layer.output, layer.depth());
        let codes = |n| Aligned::new(bytes(n).map(|b| b as i8));
        LayerI8 {
            layer,
            x: codes(layer.input_size() * layer.input_size() * layer.input),
            y: Aligned::zeros(layer.size * layer.size * layer.output),
            weights: codes(packed.bytes() + WEIGHT_SLACK),
            zeros: vec![0; packed.padded_channels()],
            multipliers: vec![1e-3; packed.padded_channels()],
        }
    }

    /// The convolution, its input and its output.
    pub fn parts(&mut self) -> (ConvI8<'_>, &[i8], &mut [i8]) {
        let (layer, size) = (self.layer, self.layer.input_size());
        let conv = ConvI8 {
            window: layer.window(),
            input: [size, size, layer.input],
            output: [layer.size, layer.size, layer.output],
            weights: &self.weights,
            bias: &self.zeros,
            weight_sums: &self.zeros,
            multipliers: &self.multipliers,
            input_zero: 0,
            epilogue: EpilogueI8 {
                zero: -128,
                lo: -128,
                hi: 127,
                table: None,
                residual: None,
            },
        };
        (conv, &self.x, &mut self.y)
    }
}

/// Data of one float layer.
#[allow(dead_code, reason = "not every bench weighs layers by their number")]
pub struct LayerF32 {
    pub layer: Layer,
    x: Aligned<f32>,
    y: Aligned<f32>,
    weights: Aligned<f32>,
    bias: Vec<f32>,
}

impl LayerF32 {
    pub fn new(layer: Layer) -> Self {
        let floats = |n| Aligned::new(bytes(n).map(|b| f32::from(b) / 256.0));
        LayerF32 {
            layer,
            x: floats(layer.input_size() * layer.input_size() * layer.input),
            y: Aligned::zeros(layer.size * layer.size * layer.output),
            weights: floats(layer.depth() * layer.output.next_multiple_of(4) + WEIGHT_SLACK / 4),
            bias: vec![0.0; layer.output.next_multiple_of(16)],
        }
    }

    /// The convolution, its input and its output.
    pub fn parts(&mut self) -> (ConvF32<'_>, &[f32], &mut [f32]) {
        let (layer, size) = (self.layer, self.layer.input_size());
        let conv = ConvF32 {
            window: layer.window(),
            input: [size, size, layer.input],
            output: [layer.size, layer.size, layer.output],
            weights: WeightsF32::F32(&self.weights),
            bias: &self.bias,
            lo: 0.0,
            hi: 6.0,
            residual: None,
        };
        (conv, &self.x, &mut self.y)
    }
}
