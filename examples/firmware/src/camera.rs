//! A camera that replays frames from flash.

/// Width and height of a frame.
pub const SIZE: [u32; 2] = [160, 120];

/// A frame, RGB888.
#[derive(Clone, Copy)]
pub struct Frame(pub &'static [u8]);

/// The frames, one after another; `frames/make_frames.py` made them.
#[derive(Clone)]
pub struct Replay(usize);

static FRAMES: [&[u8]; 2] = [
    include_bytes!("../frames/tennis.rgb"),
    include_bytes!("../frames/bears.rgb"),
];

impl Replay {
    pub fn new() -> Self {
        Replay(0)
    }
}

impl Iterator for Replay {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let frame = FRAMES.get(self.0)?;
        self.0 += 1;
        Some(Frame(frame))
    }
}
