//! Time to unpack a packed artifact, beside that of verifying it: `unpack_times FILE.amp …`.

use std::time::Instant;

use ampoule_runtime::packed::{unpack, unpacked_len};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let file = std::fs::read(&path)?;
        let mut memory = vec![0; unpacked_len(&file)?];
        let mut times = Vec::new();
        for _ in 0..31 {
            let start = Instant::now();
            unpack(&file, &mut memory)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let (bytes, ms) = (memory.len(), times[15]);
        println!(
            "{path}: {} of {bytes} bytes, {ms:.3} ms (median of 31), {:.0} MB/s",
            file.len(),
            bytes as f64 / 1e3 / ms
        );
    }
    Ok(())
}
