//! Capability tokens. The build decides: see `build.rs`.

/// Proof of the DSP extension.
#[derive(Debug, Clone, Copy)]
pub struct Dsp(());

impl Dsp {
    /// The proof, where the crate is built for such a processor.
    pub const fn detect() -> Option<Self> {
        // The module exists only there.
        Some(Dsp(()))
    }
}
