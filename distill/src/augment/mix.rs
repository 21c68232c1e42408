//! Mixup and cutmix of pairs.

use serde::{Deserialize, Serialize};

use super::generator::{Generator, Purpose};

/// Mixes the two pictures of a pair with each other, as timm's `Mixup` does in mode `pair`.
///
/// Whole batches can't be mixed when a store is used: the teacher saw its pictures one by one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// How often a pair is mixed.
    pub probability: f64,
    /// α of mixup, at most 2; 0 turns it off.
    pub mixup: f64,
    /// α of cutmix, at most 2; 0 turns it off.
    pub cutmix: f64,
    /// How often cutmix is chosen where both are on.
    pub switch: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Mix {
            probability: 1.0,
            mixup: 0.8,
            cutmix: 1.0,
            switch: 0.5,
        }
    }
}

impl Mix {
    /// Mixes the pictures of two records in place, and gives the share that each keeps of itself.
    pub(super) fn apply(&self, a: &mut [u8], b: &mut [u8], size: [u32; 2], seeds: [i32; 2]) -> f64 {
        let seed = (seeds[0] ^ seeds[1]) as u32;
        let mut random = Generator::new([u64::from(seed), 0, 0], Purpose::Pair);
        if !random.chance(self.probability) {
            return 1.0;
        }
        let cuts = random.chance(self.switch);
        match (self.mixup > 0.0, self.cutmix > 0.0) {
            (false, false) => 1.0,
            (true, cutmix) if !(cutmix && cuts) => blend(a, b, random.beta(self.mixup)),
            _ => {
                let share = random.beta(self.cutmix);
                swap_box(a, b, size, share, &mut random)
            }
        }
    }
}

/// `a ← λ·a + (1 − λ)·b` and the reverse, with λ in 16-bit fixed point.
fn blend(a: &mut [u8], b: &mut [u8], share: f64) -> f64 {
    const ONE: u32 = 1 << 16;
    let own = (share * f64::from(ONE)).round_ties_even() as u32;
    for (a, b) in a.iter_mut().zip(b) {
        let (x, y) = (u32::from(*a), u32::from(*b));
        let mixed = |x: u32, y: u32| ((x * own + y * (ONE - own) + ONE / 2) >> 16) as u8;
        (*a, *b) = (mixed(x, y), mixed(y, x));
    }
    f64::from(own) / f64::from(ONE)
}

/// Swaps a box of about `1 − share` of the area around a random centre, cut at the borders.
fn swap_box(
    a: &mut [u8],
    b: &mut [u8],
    [width, height]: [u32; 2],
    share: f64,
    random: &mut Generator,
) -> f64 {
    let ratio = (1.0 - share).sqrt();
    let mut span = |side: u32| {
        let half = (f64::from(side) * ratio) as u32 / 2;
        let centre = random.below(side);
        centre.saturating_sub(half) as usize..(centre + half).min(side) as usize
    };
    let (rows, columns) = (span(height), span(width));
    let pitch = 3 * width as usize;
    for y in rows.clone() {
        let part = y * pitch + 3 * columns.start..y * pitch + 3 * columns.end;
        a[part.clone()].swap_with_slice(&mut b[part]);
    }
    1.0 - (rows.len() * columns.len()) as f64 / (f64::from(width) * f64::from(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [u32; 2] = [20, 10];

    /// Black and white after mixing, and the share.
    fn mixed(mix: Mix, seeds: [i32; 2]) -> (Vec<u8>, Vec<u8>, f64) {
        let (mut a, mut b) = (vec![0; 600], vec![255; 600]);
        let share = mix.apply(&mut a, &mut b, SIZE, seeds);
        (a, b, share)
    }

    #[test]
    fn the_share_is_what_is_left_of_a_picture() {
        for (mixup, cutmix) in [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)] {
            let mix = Mix {
                mixup,
                cutmix,
                ..Mix::default()
            };
            for seed in 0..200 {
                let (a, b, share) = mixed(mix, [seed, 99]);
                let dark = a.iter().map(|&v| f64::from(255 - v)).sum::<f64>() / (600.0 * 255.0);
                assert!((dark - share).abs() < 2e-3, "{dark} {share}");
                assert!(a.iter().zip(&b).all(|(a, b)| a.abs_diff(255 - b) <= 1));
            }
        }
    }

    #[test]
    fn both_orders_of_a_pair_agree() {
        let mix = Mix::default();
        let (mut a, mut b) = (vec![10; 600], vec![200; 600]);
        let share = mix.apply(&mut a, &mut b, SIZE, [3, 8]);
        let (mut c, mut d) = (vec![200; 600], vec![10; 600]);
        assert_eq!(mix.apply(&mut c, &mut d, SIZE, [8, 3]), share);
        assert!(a == d && b == c && share < 1.0);
    }

    #[test]
    fn switched_off_nothing_changes() {
        for off in [
            Mix {
                probability: 0.0,
                ..Mix::default()
            },
            Mix {
                mixup: 0.0,
                cutmix: 0.0,
                ..Mix::default()
            },
        ] {
            assert_eq!(mixed(off, [1, 2]), (vec![0; 600], vec![255; 600], 1.0));
        }
    }
}
