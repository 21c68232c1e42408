//! The display as a window of a desktop.

use std::time::{Duration, Instant};

use embedded_graphics::pixelcolor::{Rgb565, Rgb888};
use embedded_graphics::prelude::RgbColor;
use minifb::{Key, Scale, Window, WindowOptions};

use crate::app::{self, Detector};
use crate::camera::Replay;
use crate::display::{Display, SIZE};

/// How long a frame stays.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the camera's frames over and over, until the window is closed or Escape is pressed.
pub fn watch(detector: &mut Detector, display: &mut Display) -> Result<(), &'static str> {
    let [width, height] = SIZE;
    let options = WindowOptions {
        scale: Scale::X2,
        ..WindowOptions::default()
    };
    let mut window = Window::new("Person detection", width, height, options)
        .map_err(|_| "no window can be opened")?;
    window.set_target_fps(30);
    for frame in Replay::new().cycle() {
        let score = detector.score(&frame)?;
        app::draw(display, &frame, score);
        let pixels: Vec<u32> = (0..height).flat_map(|y| display.row(y)).map(rgb).collect();
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            if !window.is_open() || window.is_key_down(Key::Escape) {
                return Ok(());
            }
            window
                .update_with_buffer(&pixels, width, height)
                .map_err(|_| "the window can't be drawn")?;
        }
    }
    Ok(())
}

/// A pixel as 0RGB with 8 bits each.
fn rgb(pixel: &Rgb565) -> u32 {
    let pixel = Rgb888::from(*pixel);
    u32::from_be_bytes([0, pixel.r(), pixel.g(), pixel.b()])
}
