//! Which size learns in which step.

use super::Elastic;
use crate::augment::{Generator, Purpose};

/// Sizes in a shuffled list, in which small ones are more often than large ones and the whole network is not; the list
/// is gone through again and again, shuffled anew.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    list: Vec<usize>,
    seed: u64,
}

impl Order {
    pub fn new(elastic: &Elastic, seed: u64) -> Self {
        let sizes = elastic.sizes();
        let smaller = sizes[..sizes.len() - 1].iter().enumerate();
        let list = smaller.flat_map(|(i, size)| std::iter::repeat_n(i, size.times()));
        Order {
            list: list.collect(),
            seed,
        }
    }

    /// The size of a step.
    pub fn at(&self, step: u64) -> usize {
        let count = self.list.len() as u64;
        let (round, place) = (step / count, step % count);
        let mut random = Generator::new([self.seed, round, 0], Purpose::Size);
        self.list[random.permutation(count as u32)[place as usize] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::{self, Config};

    #[test]
    fn small_sizes_come_more_often_and_all_come() {
        let Config::TinyVit(config) = zoo::find("tinyvit-mini").unwrap().config.clone() else {
            unreachable!("a TinyViT")
        };
        let elastic = Elastic::new(config, &[0.34, 0.67]).unwrap();
        let order = Order::new(&elastic, 7);
        // 3, 2 and 1 times in both dimensions; the two smaller depths are one.
        let times: Vec<usize> = elastic.sizes().iter().map(Size::times).collect();
        assert_eq!(times, [9, 3, 6, 2, 3, 1]);
        let round = |first: u64| {
            let mut counts = [0; 6];
            for step in first..first + 23 {
                counts[order.at(step)] += 1;
            }
            counts
        };
        assert_eq!(round(0), [9, 3, 6, 2, 3, 0]);
        assert_eq!(round(23), [9, 3, 6, 2, 3, 0]);
        let steps = |first: u64| (first..first + 23).map(|s| order.at(s)).collect::<Vec<_>>();
        assert_eq!(steps(0), steps(0));
        assert_ne!(steps(0), steps(23));
    }

    use super::super::Size;
}
