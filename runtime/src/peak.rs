//! What the processor can do at most: short loops to be timed by the caller.
//!
//! Nothing here measures time, which the core cannot.
//!
//! ```
//! use ampoule_runtime::{Capability, Isa, peak};
//! let start = std::time::Instant::now();
//! let best = Capability::new(Isa::best())?;
//! if let Some(products) = peak::products(best, peak::Product::Float, 1000) {
//!     println!("{} per second", products as f64 / start.elapsed().as_secs_f64());
//! }
//! # Ok::<(), ampoule_runtime::Error>(())
//! ```

#[cfg(target_arch = "x86_64")]
use crate::arch::x86::peak as x86;
use crate::isa::Capability;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Product {
    /// Int8 with exact 32-bit sums.
    Int8,
    /// Single precision.
    Float,
}

/// Runs a loop of nothing but products in registers, with the instruction that the kernels use, and
/// gives the number of multiply-accumulates; `None` where there is no such loop: portable code, whose
/// instructions the compiler chooses, and AMX int8.
pub fn products(cap: Capability, product: Product, rounds: u64) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    return Some(match (product, cap) {
        (Product::Int8, Capability::Avx2(t)) => x86::int8_avx2(t, rounds),
        (Product::Int8, Capability::AvxVnni(t)) => x86::int8_avxvnni(t, rounds),
        (Product::Int8, Capability::Avx512Vnni(t)) => x86::int8_avx512vnni(t, rounds),
        (Product::Float, Capability::Avx2(t)) => x86::float_avx2(t, rounds),
        (Product::Float, Capability::AvxVnni(t)) => x86::float_avx2(t.avx2(), rounds),
        (Product::Float, Capability::Avx512Vnni(t)) => x86::float_avx512(t, rounds),
        (Product::Float, Capability::Amx(t)) => x86::float_avx512(t.avx512vnni(), rounds),
        _ => return None,
    });
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (cap, product, rounds);
        None
    }
}

/// Runs a chain of operations that wait for each other and gives the clock cycles it takes; `None`
/// where that is not known.
pub fn cycles(rounds: u64) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    return Some(x86::cycles(rounds));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = rounds;
        None
    }
}
