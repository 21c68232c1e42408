//! Capability tokens.

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// Proof of AVX-VNNI (256-bit `vpdpbusd`), and of all that [`Avx2`] proves.
#[derive(Debug, Clone, Copy)]
pub struct AvxVnni(Avx2);

/// Proof of AVX-512 F, BW, VL, DQ, VBMI and VNNI, and of all that [`Avx2`] proves.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(Avx2);

/// Proof of AMX-TILE and AMX-INT8 with the operating system's permission granted to this process,
/// and of all that [`Avx512Vnni`] proves.
#[derive(Debug, Clone, Copy)]
pub struct Amx(Avx512Vnni);

impl Avx2 {
    /// Detects the features.
    pub fn detect() -> Option<Self> {
        #[cfg(any(test, feature = "std"))]
        if std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("f16c")
        {
            return Some(Avx2(()));
        }
        if cfg!(all(
            target_feature = "avx2",
            target_feature = "fma",
            target_feature = "f16c"
        )) {
            return Some(Avx2(()));
        }
        None
    }
}

impl AvxVnni {
    /// Detects the features.
    pub fn detect() -> Option<Self> {
        #[cfg(any(test, feature = "std"))]
        if std::is_x86_feature_detected!("avxvnni") {
            return Avx2::detect().map(AvxVnni);
        }
        if cfg!(target_feature = "avxvnni") {
            return Avx2::detect().map(AvxVnni);
        }
        None
    }

    /// The weaker proof.
    pub fn avx2(self) -> Avx2 {
        self.0
    }
}

impl Avx512Vnni {
    /// Detects the features.
    pub fn detect() -> Option<Self> {
        #[cfg(any(test, feature = "std"))]
        if std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("avx512vbmi")
            && std::is_x86_feature_detected!("avx512vnni")
        {
            return Avx2::detect().map(Avx512Vnni);
        }
        if cfg!(all(
            target_feature = "avx512f",
            target_feature = "avx512bw",
            target_feature = "avx512vl",
            target_feature = "avx512dq",
            target_feature = "avx512vbmi",
            target_feature = "avx512vnni"
        )) {
            return Avx2::detect().map(Avx512Vnni);
        }
        None
    }

    /// The weaker proof.
    pub fn avx2(self) -> Avx2 {
        self.0
    }
}

impl Amx {
    /// Detects the features and asks the Linux kernel for permission to use the tile registers.
    ///
    /// The permission is per process and stays granted, so asking again is harmless.
    pub fn detect() -> Option<Self> {
        let base = Avx512Vnni::detect()?;
        #[cfg(test)]
        if super::conv::amx::emulator::is_on() {
            return Some(Amx(base));
        }
        Self::is_real().then_some(Amx(base))
    }

    /// Whether processor and system have the tile registers; unit tests emulate them otherwise.
    pub(crate) fn is_real() -> bool {
        cpuid_has_amx() && permission()
    }

    /// The weaker proof.
    pub fn avx512vnni(self) -> Avx512Vnni {
        self.0
    }
}

/// CPUID leaf 7, EDX bit 24 (AMX-TILE) and bit 25 (AMX-INT8).
fn cpuid_has_amx() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    if __cpuid(0).eax < 7 {
        return false;
    }
    let edx = __cpuid_count(7, 0).edx;
    edx >> 24 & 1 == 1 && edx >> 25 & 1 == 1
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(target_os = "linux")]
fn permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the system call takes two integers, touches no user memory and clobbers only rax,
    // rcx and r11, which are declared.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permission() -> bool {
    false
}
