//! Person detection as firmware: verifies its model, tests itself, and then shows every frame of a camera with
//! a label and a score.
//!
//!     cargo run --release                                         on an emulated Cortex-M4
//!     cargo run --release --target x86_64-unknown-linux-gnu       the same program on the desktop
//!     cargo run --release --target x86_64-unknown-linux-gnu --features window     and then a window
//!
//! Camera and display are a replay and a frame buffer that is written to `frame-N.png`; a product puts drivers
//! in their place.

#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

mod app;
mod camera;
mod display;
mod host;
mod png;
#[cfg(feature = "window")]
mod window;

use app::Detector;
use camera::Replay;
use display::Display;

/// The memory of the whole program.
static mut MEMORY: app::Memory = app::Memory::new();
static mut DISPLAY: Display = Display::new();

fn run() -> Result<(), &'static str> {
    // SAFETY: `run` is called once, and nothing else names either.
    let (memory, display) = unsafe {
        (
            &mut *core::ptr::addr_of_mut!(MEMORY),
            &mut *core::ptr::addr_of_mut!(DISPLAY),
        )
    };
    let mut detector = Detector::boot(memory)?;
    for (number, frame) in Replay::new().enumerate() {
        let score = detector.score(&frame)?;
        app::draw(display, &frame, score);
        host::save(number, |write| png::encode(display, write))?;
        host::print(if score >= 0.5 {
            "person\n"
        } else {
            "no person\n"
        });
    }
    #[cfg(feature = "window")]
    window::watch(&mut detector, display)?;
    Ok(())
}

#[cfg(target_os = "none")]
#[cortex_m_rt::entry]
fn main() -> ! {
    host::exit(run())
}

#[cfg(not(target_os = "none"))]
fn main() {
    host::exit(run())
}
