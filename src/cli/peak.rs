//! What this machine can do at most, measured by short loops.

use std::hint::black_box;
use std::time::Instant;

use ampoule_runtime::peak::{Product, cycles, products};
use ampoule_runtime::{Capability, Isa};
use serde::Serialize;

/// Attempts, of which the fastest counts: the others were disturbed.
const ATTEMPTS: usize = 40;
/// Rounds of an attempt: some tens of microseconds.
const ROUNDS: u64 = 10_000;
/// Bytes read and written in all by a copy that stays in the first, second and third level of cache,
/// and by one that does not.
const FOOTPRINTS: [usize; 4] = [24 << 10, 384 << 10, 6 << 20, 96 << 20];

/// Limits of one thread.
#[derive(Debug, Clone, Serialize)]
pub struct Peaks {
    /// Clock frequency, from a chain of dependent operations.
    pub clock_ghz: Option<f64>,
    /// Int8 products in registers, 10⁹ multiply-accumulates a second.
    pub int8_gmacs: Option<f64>,
    /// Float products, likewise.
    pub float_gmacs: Option<f64>,
    /// Copies, smallest first.
    pub copies: Vec<Copy>,
}

/// Speed of a copy.
#[derive(Debug, Clone, Serialize)]
pub struct Copy {
    /// Bytes read and written.
    pub bytes: usize,
    /// Both together, 10⁹ bytes a second.
    pub gb_per_second: f64,
}

impl Peaks {
    /// Measures; takes about a tenth of a second.
    pub fn measure(isa: Isa) -> Self {
        let speed = |product| {
            let cap = Capability::new(isa).ok()?;
            fastest(|| products(cap, product, ROUNDS))
        };
        Peaks {
            clock_ghz: fastest(|| cycles(ROUNDS)),
            int8_gmacs: speed(Product::Int8),
            float_gmacs: speed(Product::Float),
            copies: FOOTPRINTS.into_iter().filter_map(copy).collect(),
        }
    }

    /// The fastest that memory goes for a step that touches so many bytes.
    pub fn copy(&self, bytes: usize) -> Option<f64> {
        let holds = self.copies.iter().find(|c| c.bytes >= bytes);
        holds.or(self.copies.last()).map(|c| c.gb_per_second)
    }

    /// One line.
    pub fn summary(&self) -> String {
        let products = [("int8", self.int8_gmacs), ("f32", self.float_gmacs)];
        let mut parts: Vec<String> = products
            .into_iter()
            .filter_map(|(name, speed)| Some(format!("{name} {:.1} GMAC/s", speed?)))
            .collect();
        parts.extend(self.copies.iter().map(|c| {
            let size = super::output::bytes(c.bytes);
            format!("copy of {size} {:.0} GB/s", c.gb_per_second)
        }));
        parts.extend(self.clock_ghz.map(|ghz| format!("clock {ghz:.2} GHz")));
        parts.join(", ")
    }
}

/// Most units of work per nanosecond that `work` does.
fn fastest(mut work: impl FnMut() -> Option<u64>) -> Option<f64> {
    let mut best = 0.0f64;
    for _ in 0..ATTEMPTS {
        let start = Instant::now();
        let units = work()?;
        best = best.max(units as f64 / start.elapsed().as_nanos().max(1) as f64);
    }
    Some(best)
}

fn copy(bytes: usize) -> Option<Copy> {
    let from = vec![1u8; bytes / 2];
    let mut to = vec![0u8; bytes / 2];
    let repeat = ((1 << 20) / bytes).max(1);
    let gb_per_second = fastest(|| {
        for _ in 0..repeat {
            black_box(&mut to[..]).copy_from_slice(black_box(&from));
        }
        Some((repeat * bytes) as u64)
    })?;
    Some(Copy {
        bytes,
        gb_per_second,
    })
}
