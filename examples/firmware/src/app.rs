//! What the product is: a detector, and the picture of what it says.

use ampoule_runtime::preprocess::{Channels, Filter, ImageView, PixelFormat, Preprocess, Resize};
use ampoule_runtime::{Arena, Artifact, OperatorSet, Operators, Session, arena_bytes};
use embedded_graphics::image::{Image, ImageRaw};
use embedded_graphics::mono_font::{MonoTextStyle, ascii::FONT_10X20};
use embedded_graphics::pixelcolor::{Rgb565, Rgb888};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::Text;

use crate::camera::{Frame, SIZE};
use crate::display::Display;

/// The model, in flash.
static MODEL: &[u8] = ampoule_runtime::include_ampoule!("../model.amp");

/// How a frame becomes the model's input.
const PREPROCESS: Preprocess = Preprocess {
    resize: Resize::Exact,
    filter: Filter::Bilinear,
    antialias: true,
    width: 96,
    height: 96,
    channels: Channels::Rgb,
    scale: 1.0 / 255.0,
    mean: [0.0; 3],
    std: [1.0; 3],
};
/// Working memory of the resizing.
const SCRATCH: usize = 16 * 1024;

/// The operators that the model needs; the build script lists them.
struct Linked;

impl Operators for Linked {
    const SET: OperatorSet = include!(concat!(env!("OUT_DIR"), "/operators.rs"));
    /// The build script has verified the model: the device finds that it is this one.
    const PROVEN: Option<[u8; 32]> = Some(*include_bytes!(concat!(env!("OUT_DIR"), "/digest")));
}

/// All the memory that detection takes, known when it is compiled.
pub struct Memory {
    arena: Arena<{ arena_bytes(MODEL) }>,
    scratch: [u8; SCRATCH],
}

impl Memory {
    pub const fn new() -> Self {
        Memory {
            arena: Arena::new(),
            scratch: [0; SCRATCH],
        }
    }
}

/// A model that has passed its checks.
pub struct Detector {
    session: Session<'static, 'static, Linked>,
    scratch: &'static mut [u8],
    /// Code of each pixel value, by channel.
    table: [[i8; 256]; 3],
}

impl Detector {
    /// Compares the artifact with the one that the build has verified, and runs the golden vectors that it carries.
    pub fn boot(memory: &'static mut Memory) -> Result<Self, &'static str> {
        let artifact = Artifact::verify_for::<Linked>(MODEL).map_err(|_| "the model is damaged")?;
        let mut session = Session::linked(artifact, [memory.arena.bytes()])
            .map_err(|_| "the arena is too small")?;
        session.self_test().map_err(|_| "the self-test differs")?;
        let input = session
            .input(0)
            .map_err(|_| "the model has no input")?
            .tensor;
        let table = PREPROCESS.quantize_table(input.scale, input.zero_point);
        Ok(Detector {
            session,
            scratch: &mut memory.scratch,
            table,
        })
    }

    /// Probability of a person in the frame.
    pub fn score(&mut self, frame: &Frame) -> Result<f32, &'static str> {
        let [width, height] = SIZE;
        let image = ImageView::packed(frame.0, width, height, PixelFormat::Rgb8)
            .map_err(|_| "the frame is too short")?;
        let input = self
            .session
            .input_bytes(0)
            .map_err(|_| "the model has no input")?;
        PREPROCESS
            .run_u8(&image, self.scratch, input)
            .map_err(|_| "the frame can't be resized")?;
        for pixel in input.chunks_exact_mut(3) {
            for (value, table) in pixel.iter_mut().zip(&self.table) {
                *value = table[usize::from(*value)] as u8;
            }
        }
        self.session.run().map_err(|_| "the run failed")?;
        let mut scores = [0.0; 2];
        self.session
            .read_f32(0, &mut scores)
            .map_err(|_| "the model has other outputs")?;
        Ok(scores[1])
    }
}

/// Draws a frame with its label and score.
pub fn draw(display: &mut Display, frame: &Frame, score: f32) {
    let person = score >= 0.5;
    let colour = if person {
        Rgb565::GREEN
    } else {
        Rgb565::CSS_ORANGE
    };
    let frame = ImageRaw::<Rgb888>::new(frame.0, SIZE[0]);
    let mut enlarged = display.twice();
    // The frame buffer takes everything: drawing does not fail.
    let _ = Image::new(&frame, Point::zero()).draw(&mut enlarged.color_converted());
    let bar = Rectangle::new(Point::new(0, 208), Size::new(320, 32));
    let _ = bar
        .into_styled(PrimitiveStyle::with_fill(Rgb565::BLACK))
        .draw(display);
    let filled = Rectangle::new(Point::new(200, 218), Size::new((score * 110.0) as u32, 12));
    let _ = filled
        .into_styled(PrimitiveStyle::with_fill(colour))
        .draw(display);
    let outline = Rectangle::new(Point::new(199, 217), Size::new(112, 14));
    let _ = outline
        .into_styled(PrimitiveStyle::with_stroke(Rgb565::WHITE, 1))
        .draw(display);
    let style = MonoTextStyle::new(&FONT_10X20, colour);
    let label = if person { "person" } else { "no person" };
    let _ = Text::new(label, Point::new(8, 230), style).draw(display);
    let percent = (score * 100.0 + 0.5) as u8;
    let digits = [
        b'0' + percent / 100,
        b'0' + percent / 10 % 10,
        b'0' + percent % 10,
        b'%',
    ];
    let from = digits[..2].iter().take_while(|&&d| d == b'0').count();
    let text = core::str::from_utf8(&digits[from..]).unwrap_or("?");
    let _ = Text::new(text, Point::new(150, 230), style).draw(display);
}
