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

/// Proof of the M-profile vector extension (Helium) with its floats, and of all that [`Dsp`] proves.
#[cfg(arm_mve)]
#[derive(Debug, Clone, Copy)]
pub struct Mve(Dsp);

#[cfg(arm_mve)]
impl Mve {
    /// The proof, where the crate is built for such a processor.
    pub const fn detect() -> Option<Self> {
        Some(Mve(Dsp(())))
    }

    /// The weaker proof.
    pub fn dsp(self) -> Dsp {
        self.0
    }
}
