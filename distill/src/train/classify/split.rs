//! Which samples are learnt from, which labels are used, and which samples are held out.

use std::collections::BTreeMap;

use crate::augment::{Generator, Purpose};
use crate::data::Dataset;

/// How samples are shared out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitOptions {
    /// Share of each class that is held out for measuring.
    pub held_out: f64,
    /// Share of the labels of what is left that is used.
    pub labels: f64,
    /// What the choices are made of.
    pub seed: u64,
}

/// What samples are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Per sample: whether it is held out.
    pub held_out: Vec<bool>,
    /// Per sample: its class, where that is known and may be used for training.
    pub labels: Vec<Option<u32>>,
}

impl Split {
    /// Takes of each class the same share, rounded up; samples without class count as one more.
    pub fn new(data: &Dataset, options: SplitOptions) -> Self {
        let class = |sample: usize| data.samples()[sample].class;
        let all = data.len();
        let chosen = |share: f64, purpose: u64, among: &dyn Fn(usize) -> bool| {
            let mut sizes = BTreeMap::<_, usize>::new();
            for sample in (0..all).filter(|&s| among(s)) {
                *sizes.entry(class(sample)).or_default() += 1;
            }
            let mut left = sizes;
            for size in left.values_mut() {
                *size = (*size as f64 * share).ceil() as usize;
            }
            let mut chosen = vec![false; all];
            let count = u32::try_from(all).unwrap_or(u32::MAX);
            let mut random = Generator::new([options.seed, purpose, 0], Purpose::Split);
            for sample in random.permutation(count).into_iter().map(|s| s as usize) {
                if among(sample)
                    && let Some(left) = left.get_mut(&class(sample)).filter(|left| **left > 0)
                {
                    *left -= 1;
                    chosen[sample] = true;
                }
            }
            chosen
        };
        let held_out = chosen(options.held_out, 0, &|_| true);
        let labelled = chosen(options.labels, 1, &|s| !held_out[s]);
        let labels = (0..all).map(|s| class(s).filter(|_| labelled[s]));
        Split {
            labels: labels.collect(),
            held_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_gives_its_share() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.csv");
        let row = |i: usize| match i % 10 {
            9 => format!("{i}.png,\n"),
            n => format!("{i}.png,{}\n", n / 3),
        };
        let rows: String = (0..100).map(row).collect();
        std::fs::write(&list, format!("path,label\n{rows}")).unwrap();
        let data = Dataset::open(&list).unwrap();
        let split = |seed| {
            let options = SplitOptions {
                held_out: 0.2,
                labels: 0.25,
                seed,
            };
            Split::new(&data, options)
        };
        let one = split(1);
        let count = |class: Option<u32>, of: &dyn Fn(usize) -> bool| {
            let samples = (0..100).filter(|&s| data.samples()[s].class == class);
            samples.filter(|&s| of(s)).count()
        };
        for class in 0..3 {
            assert_eq!(count(Some(class), &|s| one.held_out[s]), 6);
            assert_eq!(count(Some(class), &|s| one.labels[s] == Some(class)), 6);
        }
        assert_eq!(count(None, &|s| one.held_out[s]), 2);
        assert!((0..100).all(|s| !(one.held_out[s] && one.labels[s].is_some())));
        assert!(one == split(1) && one != split(2));
    }
}
