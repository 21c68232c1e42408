//! Kernels of the board's processor against the scalar reference, over a grid of shapes, windows and epilogues.
//!
//! `cargo test` can't run on a bare board; this is its grid of convolutions in small.

#![no_std]
#![no_main]

use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::conv::{
    ConvI8, EpilogueI8, PackedShape, Residual, WEIGHT_SLACK, conv_i8, conv_i8_reference, pack_i8,
};
use ampoule_runtime::ops::depthwise::{DepthwiseI8, depthwise_i8, depthwise_i8_reference};
use ampoule_runtime::{Aligned, Capability, Isa};
use cortex_m_runner::{fail, print};

/// Values of a map, weights of a layer, channels.
const MAP: usize = 16 * 1024;
const WEIGHTS: usize = 48 * 1024;
const CHANNELS: usize = 160;

struct Memory {
    x: Aligned<[i8; MAP]>,
    plain: [i8; WEIGHTS],
    packed: Aligned<[i8; WEIGHTS]>,
    bias: [i32; CHANNELS],
    sums: [i32; CHANNELS],
    multipliers: [f32; CHANNELS],
    residual: [i8; MAP],
    table: [i8; 256],
    scratch: Aligned<[u8; MAP]>,
    y: [i8; MAP],
    expected: [i8; MAP],
}

static mut MEMORY: Memory = Memory {
    x: Aligned([0; MAP]),
    plain: [0; WEIGHTS],
    packed: Aligned([0; WEIGHTS]),
    bias: [0; CHANNELS],
    sums: [0; CHANNELS],
    multipliers: [0.0; CHANNELS],
    residual: [0; MAP],
    table: [0; 256],
    scratch: Aligned([0; MAP]),
    y: [0; MAP],
    expected: [0; MAP],
};

/// Deterministic values.
struct Lcg(u32);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// Codes, every eighth of them an extreme.
    fn code(&mut self) -> i8 {
        match self.next() {
            v if v % 16 == 0 => i8::MIN,
            v if v % 16 == 1 => i8::MAX,
            v => (v >> 4) as i8,
        }
    }
}

const fn window(kernel: u16, stride: u16, dilation: u16, pad: u16) -> Window {
    Window {
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [dilation; 2],
        pad: [pad; 4],
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    // SAFETY: `main` runs once, and nothing else names the memory.
    let memory = unsafe { &mut *core::ptr::addr_of_mut!(MEMORY) };
    let mut random = Lcg(1);
    let mut cases = 0;
    for depth in [
        1, 2, 3, 4, 5, 8, 15, 16, 17, 27, 33, 64, 100, 144, 257, 640, 644, 1300,
    ] {
        for channels in [1, 2, 3, 4, 6, 10, 16, 17, 31, 33] {
            for pixels in [1, 2, 5] {
                cases += conv(
                    memory,
                    &mut random,
                    Window::POINT,
                    [1, pixels, depth],
                    channels,
                );
            }
        }
    }
    for (window, input) in [
        (window(3, 1, 1, 1), 3),
        (window(3, 2, 1, 1), 4),
        (window(3, 2, 1, 0), 3),
        (window(3, 1, 1, 1), 16),
        (window(3, 1, 2, 2), 5),
        (window(5, 2, 1, 2), 4),
        (window(1, 2, 1, 0), 12),
        (window(1, 1, 1, 1), 6),
        (window(7, 1, 1, 6), 1),
    ] {
        for channels in [3, 8, 20] {
            cases += conv(memory, &mut random, window, [7, 9, input], channels);
        }
    }
    for window in [
        window(3, 1, 1, 1),
        window(3, 2, 1, 1),
        window(3, 1, 1, 0),
        window(3, 1, 2, 2),
        window(5, 1, 1, 2),
        window(1, 1, 1, 0),
        window(7, 3, 1, 3),
    ] {
        for channels in [1, 3, 4, 5, 7, 8, 12, 15, 16, 17, 31, 64, 67, 150] {
            for [height, width] in [[8, 9], [3, 3], [1, 2]] {
                cases += depthwise(memory, &mut random, window, [height, width, channels]);
            }
        }
    }
    print::line("isa", Isa::best().name());
    print::number("cases", cases);
    semihosting::process::exit(0)
}

/// Fills everything that a layer of `depth` products per output and `channels` outputs reads.
fn fill(memory: &mut Memory, random: &mut Lcg, depth: usize, channels: usize) {
    memory.x.0.fill_with(|| random.code());
    memory.residual.fill_with(|| random.code());
    memory.table.fill_with(|| random.code());
    let weights = &mut memory.plain[..depth * channels];
    weights.fill_with(|| random.code().max(-127));
    for c in 0..CHANNELS {
        memory.bias[c] = random.next() as i32 - (1 << 23);
        // Most outputs within the codes, some far outside.
        memory.multipliers[c] = (random.next() % 1000) as f32 / (8000.0 * depth as f32 + 2.0e5);
    }
    // What no output uses.
    memory.bias[channels..].fill(0);
}

/// Epilogues: plain, clamped, with residual, with everything.
fn epilogue<'m>(number: usize, residual: &'m [i8], table: &'m [i8; 256]) -> EpilogueI8<'m> {
    let residual = Residual {
        data: residual,
        zero: -5,
        multiplier: 0.37,
    };
    EpilogueI8 {
        zero: [0, -128, 7, 3][number],
        lo: [-128, -128, -20, -128][number],
        hi: [127, 99, 127, 100][number],
        table: (number == 3).then_some(table),
        residual: (number > 1).then_some(residual),
    }
}

fn conv(
    memory: &mut Memory,
    random: &mut Lcg,
    window: Window,
    input: [usize; 3],
    channels: usize,
) -> usize {
    let output = [0, 1].map(|axis| window.output(axis, input[axis]).unwrap_or(0));
    let depth = window.taps() * input[2];
    let packed = PackedShape::new(channels, depth);
    if output.contains(&0) || packed.bytes() + WEIGHT_SLACK > WEIGHTS {
        return 0;
    }
    fill(memory, random, depth, channels);
    pack_i8(
        packed,
        &memory.plain[..depth * channels],
        &mut memory.packed.0[..packed.bytes()],
    );
    memory.sums.fill(0);
    for (sum, row) in memory
        .sums
        .iter_mut()
        .zip(memory.plain[..depth * channels].chunks_exact(depth))
    {
        *sum = row.iter().map(|&w| i32::from(w)).sum();
    }
    let len = output[0] * output[1] * channels;
    for number in 0..4 {
        let conv = ConvI8 {
            window,
            input,
            output: [output[0], output[1], channels],
            weights: &memory.packed.0[..packed.bytes() + WEIGHT_SLACK],
            bias: &memory.bias,
            weight_sums: &memory.sums,
            multipliers: &memory.multipliers,
            input_zero: -9,
            epilogue: epilogue(number, &memory.residual[..len], &memory.table),
        };
        let x = &memory.x.0[..input.iter().product()];
        let (y, expected) = (&mut memory.y[..len], &mut memory.expected[..len]);
        conv_i8_reference(&conv, x, 0, expected);
        // No scratch, for one row, and for many.
        for scratch in [0, depth, 40 * depth] {
            y.fill(99);
            let scratch = &mut memory.scratch.0[..scratch.min(MAP)];
            if conv_i8(capability(), &conv, x, 0, y, scratch).is_err() || y != expected {
                print::number("depth", depth);
                print::number("channels", channels);
                print::number("epilogue", number);
                fail("a convolution differs");
            }
        }
    }
    4
}

fn depthwise(memory: &mut Memory, random: &mut Lcg, window: Window, input: [usize; 3]) -> usize {
    let [height, width, channels] = input;
    let (Some(h), Some(w)) = (window.output(0, height), window.output(1, width)) else {
        return 0;
    };
    let taps = window.taps();
    fill(memory, random, taps, channels);
    memory.sums.fill(0);
    for row in memory.plain[..taps * channels].chunks_exact(channels) {
        memory
            .sums
            .iter_mut()
            .zip(row)
            .for_each(|(sum, &w)| *sum += i32::from(w));
    }
    let len = h * w * channels;
    for number in 0..4 {
        let dw = DepthwiseI8 {
            window,
            input,
            output: [h, w],
            weights: &memory.plain[..taps * channels + WEIGHT_SLACK],
            bias: &memory.bias,
            weight_sums: &memory.sums,
            multipliers: &memory.multipliers,
            input_zero: 100,
            epilogue: epilogue(number, &memory.residual[..len], &memory.table),
        };
        let x = &memory.x.0[..height * width * channels];
        let (y, expected) = (&mut memory.y[..len], &mut memory.expected[..len]);
        depthwise_i8_reference(&dw, x, 0, expected);
        y.fill(99);
        if depthwise_i8(capability(), &dw, x, 0, y).is_err() || y != expected {
            print::number("kernel", window.kernel[0].into());
            print::number("channels", channels);
            print::number("epilogue", number);
            fail("a depthwise convolution differs");
        }
    }
    4
}

fn capability() -> Capability {
    match Capability::new(Isa::best()) {
        Ok(capability) => capability,
        Err(_) => fail("no instruction set"),
    }
}
