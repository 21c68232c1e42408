//! Choice of instruction set.

#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64;
#[cfg(arm_dsp)]
use crate::arch::cortex_m;
#[cfg(wasm_simd128)]
use crate::arch::wasm32;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86;
use crate::error::Error;
use crate::operators::Operators;

/// An instruction set the kernels can be forced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, any processor.
    Portable,
    /// x86 AVX2 and FMA.
    Avx2,
    /// x86 AVX-VNNI.
    AvxVnni,
    /// x86 AVX-512 with VNNI and VBMI.
    Avx512Vnni,
    /// x86 AMX-INT8 over AVX-512.
    Amx,
    /// aarch64 NEON.
    Neon,
    /// aarch64 NEON with SDOT.
    Dotprod,
    /// aarch64 NEON with SDOT and SMMLA.
    I8mm,
    /// WebAssembly `simd128`.
    Simd128,
    /// Arm DSP extension.
    Dsp,
    /// Arm M-profile vector extension, Helium.
    Mve,
}

impl Isa {
    /// All of them, those of one architecture weakest first.
    pub const ALL: [Isa; 11] = [
        Isa::Portable,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Vnni,
        Isa::Amx,
        Isa::Neon,
        Isa::Dotprod,
        Isa::I8mm,
        Isa::Simd128,
        Isa::Dsp,
        Isa::Mve,
    ];

    /// Those that processors of this architecture can have, weakest first.
    pub const OF_ARCHITECTURE: &[Isa] = match () {
        _ if cfg!(target_arch = "x86_64") => &[
            Isa::Portable,
            Isa::Avx2,
            Isa::AvxVnni,
            Isa::Avx512Vnni,
            Isa::Amx,
        ],
        _ if cfg!(target_arch = "aarch64") => &[Isa::Portable, Isa::Neon, Isa::Dotprod, Isa::I8mm],
        _ if cfg!(target_arch = "wasm32") => &[Isa::Portable, Isa::Simd128],
        _ if cfg!(target_arch = "arm") => &[Isa::Portable, Isa::Dsp, Isa::Mve],
        _ => &[Isa::Portable],
    };

    /// Name as `--isa` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::Dotprod => "dotprod",
            Isa::I8mm => "i8mm",
            Isa::Simd128 => "simd128",
            Isa::Dsp => "dsp",
            Isa::Mve => "mve",
        }
    }

    /// The instruction set of that name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        Capability::new(self).is_ok()
    }

    /// The strongest one that this processor has.
    ///
    /// ```
    /// use ampoule_runtime::Isa;
    /// assert!(Isa::best().is_available());
    /// ```
    pub fn best() -> Isa {
        Isa::ALL
            .into_iter()
            .rev()
            .find(|isa| isa.is_available())
            .unwrap_or(Isa::Portable)
    }
}

/// An instruction set with the proof that it may be used.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Capability {
    /// Plain Rust.
    Portable,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(x86::AvxVnni),
    /// AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(x86::Avx512Vnni),
    /// AMX.
    #[cfg(target_arch = "x86_64")]
    Amx(x86::Amx),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(aarch64::Neon),
    /// NEON with SDOT.
    #[cfg(target_arch = "aarch64")]
    Dotprod(aarch64::Dotprod),
    /// NEON with SDOT and SMMLA.
    #[cfg(target_arch = "aarch64")]
    I8mm(aarch64::I8mm),
    /// WebAssembly `simd128`.
    #[cfg(wasm_simd128)]
    Simd128(wasm32::Simd128),
    /// Arm DSP extension.
    #[cfg(arm_dsp)]
    Dsp(cortex_m::Dsp),
    /// Helium.
    #[cfg(arm_mve)]
    Mve(cortex_m::Mve),
}

impl Capability {
    /// The strongest instruction set, where the build decides it alone.
    #[cfg(arm_mve)]
    pub(crate) const BUILT_IN: Option<Self> = match cortex_m::Mve::detect() {
        Some(token) => Some(Capability::Mve(token)),
        None => None,
    };
    /// The strongest instruction set, where the build decides it alone.
    #[cfg(all(arm_dsp, not(arm_mve)))]
    pub(crate) const BUILT_IN: Option<Self> = match cortex_m::Dsp::detect() {
        Some(token) => Some(Capability::Dsp(token)),
        None => None,
    };
    /// The strongest instruction set, where the build decides it alone.
    #[cfg(not(arm_dsp))]
    pub(crate) const BUILT_IN: Option<Self> = None;

    /// Detects `isa` on this processor.
    pub fn new(isa: Isa) -> Result<Self, Error> {
        let found = match isa {
            Isa::Portable => Some(Capability::Portable),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::Avx2::detect().map(Capability::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => x86::AvxVnni::detect().map(Capability::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => x86::Avx512Vnni::detect().map(Capability::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => x86::Amx::detect().map(Capability::Amx),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => aarch64::Neon::detect().map(Capability::Neon),
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod => aarch64::Dotprod::detect().map(Capability::Dotprod),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm => aarch64::I8mm::detect().map(Capability::I8mm),
            #[cfg(wasm_simd128)]
            Isa::Simd128 => wasm32::Simd128::detect().map(Capability::Simd128),
            #[cfg(arm_dsp)]
            Isa::Dsp => cortex_m::Dsp::detect().map(Capability::Dsp),
            #[cfg(arm_mve)]
            Isa::Mve => cortex_m::Mve::detect().map(Capability::Mve),
            _ => None,
        };
        found.ok_or(Error::IsaUnavailable(isa.name()))
    }

    /// This one, or where the build of a program with few operators decides it alone, that constant: so no other
    /// instruction set's kernels are linked.
    #[inline(always)]
    pub(crate) fn built_in<O: Operators>(self) -> Self {
        match Self::BUILT_IN {
            Some(built_in) if !O::SET.is_all() => built_in,
            _ => self,
        }
    }

    /// Vectors of 128 bits, where this is a proof of them.
    #[cfg(simd128)]
    pub(crate) fn simd128(self) -> Option<crate::arch::simd128::Vectors> {
        match self {
            Capability::Portable => None,
            #[cfg(target_arch = "aarch64")]
            Capability::Neon(token) => Some(token),
            #[cfg(target_arch = "aarch64")]
            Capability::Dotprod(token) => Some(token.neon()),
            #[cfg(target_arch = "aarch64")]
            Capability::I8mm(token) => Some(token.dotprod().neon()),
            #[cfg(wasm_simd128)]
            Capability::Simd128(token) => Some(token),
        }
    }

    /// Which instruction set this is.
    pub fn isa(self) -> Isa {
        match self {
            Capability::Portable => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Capability::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Capability::AvxVnni(_) => Isa::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Capability::Avx512Vnni(_) => Isa::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Capability::Amx(_) => Isa::Amx,
            #[cfg(target_arch = "aarch64")]
            Capability::Neon(_) => Isa::Neon,
            #[cfg(target_arch = "aarch64")]
            Capability::Dotprod(_) => Isa::Dotprod,
            #[cfg(target_arch = "aarch64")]
            Capability::I8mm(_) => Isa::I8mm,
            #[cfg(wasm_simd128)]
            Capability::Simd128(_) => Isa::Simd128,
            #[cfg(arm_dsp)]
            Capability::Dsp(_) => Isa::Dsp,
            #[cfg(arm_mve)]
            Capability::Mve(_) => Isa::Mve,
        }
    }
}
