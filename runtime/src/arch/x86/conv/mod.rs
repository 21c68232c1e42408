//! Convolution and linear layers.
//!
//! The integer kernels differ in how they multiply and agree on the rest: a *panel* holds the
//! patches of some output pixels as rows, and *tiles* of a few rows by a few blocks of 16 channels
//! are computed from it with the weights read in place, or by AVX2 from a widened copy of a block at a
//! time. AMX also reads the rows of a point window straight from the input.

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512vnni;
pub(crate) mod avxvnni;
mod epilogue256;
mod epilogue512;
pub(crate) mod f32_avx2;
pub(crate) mod f32_avx512;
mod f32_panel;
mod panel;
mod panel256;

/// Splits `total` into the fewest parts of at most `most`, as equal as can be: `(start, length)`.
fn parts(total: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let count = total.div_ceil(most.max(1)).max(1);
    let (short, longer) = (total / count, total % count);
    (0..count).map(move |i| (i * short + i.min(longer), short + usize::from(i < longer)))
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_cover_everything_once() {
        for total in 1..100 {
            for most in 1..20 {
                let mut at = 0;
                for (start, length) in parts(total, most) {
                    assert_eq!(start, at);
                    assert!((1..=most).contains(&length));
                    at += length;
                }
                assert_eq!(at, total);
            }
        }
    }
}
