//! Capability tokens.

/// Proof that the processor has NEON, which is part of all but a few special builds.
#[derive(Debug, Clone, Copy)]
pub struct Neon(());

/// Proof of `FEAT_DotProd` (SDOT), and of NEON.
#[derive(Debug, Clone, Copy)]
pub struct Dotprod(Neon);

/// Proof of `FEAT_I8MM` (SMMLA), and of all that [`Dotprod`] proves.
#[derive(Debug, Clone, Copy)]
pub struct I8mm(Dotprod);

/// Whether a feature is there: at run time with the standard library, else as compiled.
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(any(test, feature = "std"))]
        let found = std::arch::is_aarch64_feature_detected!($feature);
        #[cfg(not(any(test, feature = "std")))]
        let found = false;
        found || cfg!(target_feature = $feature)
    }};
}

impl Neon {
    /// Detects the feature.
    pub fn detect() -> Option<Self> {
        has!("neon").then_some(Neon(()))
    }
}

impl Dotprod {
    /// Detects the features.
    pub fn detect() -> Option<Self> {
        Neon::detect().filter(|_| has!("dotprod")).map(Dotprod)
    }

    /// The weaker proof.
    pub fn neon(self) -> Neon {
        self.0
    }
}

impl I8mm {
    /// Detects the features.
    pub fn detect() -> Option<Self> {
        Dotprod::detect().filter(|_| has!("i8mm")).map(I8mm)
    }

    /// The weaker proof.
    pub fn dotprod(self) -> Dotprod {
        self.0
    }
}
