//! Recall of retrieval.

use serde::{Deserialize, Serialize};

/// Numbers of candidates that count.
const DEPTHS: [usize; 3] = [1, 5, 10];

/// Shares of queries whose answer is among the first 1, 5 and 10 candidates.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Recall {
    /// Among 1.
    pub at_1: f64,
    /// Among 5.
    pub at_5: f64,
    /// Among 10.
    pub at_10: f64,
}

/// Recall in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Retrieval {
    /// Pictures found by a text: any of the text's pictures is right.
    pub text_to_image: Recall,
    /// Texts found by a picture.
    pub image_to_text: Recall,
    /// Pictures.
    pub images: usize,
    /// Different texts.
    pub texts: usize,
}

impl Retrieval {
    /// Of embeddings of length 1: `images[n, width]`, which show `group[n]`, and `texts[groups, width]`. Of
    /// candidates that are as close as the right one half count as closer.
    pub fn of(width: usize, images: &[f32], group: &[usize], texts: &[f32]) -> Self {
        let width = width.max(1);
        let images: Vec<&[f32]> = images.chunks_exact(width).collect();
        let texts: Vec<&[f32]> = texts.chunks_exact(width).collect();
        let cosine = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let by_text = texts.iter().enumerate().filter_map(|(g, text)| {
            let scores: Vec<f32> = images.iter().map(|i| cosine(i, text)).collect();
            let own = scores.iter().zip(group).filter(|(_, of)| **of == g);
            let best = own.map(|(s, _)| *s).reduce(f32::max)?;
            let others = scores.iter().zip(group).filter(|(_, of)| **of != g);
            Some(rank(best, others.map(|(s, _)| *s)))
        });
        let by_image = images.iter().zip(group).map(|(image, &g)| {
            let scores: Vec<f32> = texts.iter().map(|t| cosine(image, t)).collect();
            let others = scores.iter().enumerate().filter(|(of, _)| *of != g);
            rank(scores[g], others.map(|(_, s)| *s))
        });
        Retrieval {
            text_to_image: Recall::of(&by_text.collect::<Vec<_>>()),
            image_to_text: Recall::of(&by_image.collect::<Vec<_>>()),
            images: images.len(),
            texts: texts.len(),
        }
    }
}

impl Recall {
    fn of(ranks: &[usize]) -> Self {
        let count = ranks.len().max(1) as f64;
        let share = |k: usize| ranks.iter().filter(|&&rank| rank < k).count() as f64 / count;
        let [at_1, at_5, at_10] = DEPTHS.map(share);
        Recall { at_1, at_5, at_10 }
    }
}

/// How many candidates come before one of that score.
fn rank(score: f32, others: impl Iterator<Item = f32>) -> usize {
    let (mut closer, mut equal) = (0, 0);
    for other in others {
        closer += usize::from(other > score);
        equal += usize::from(other == score);
    }
    closer + equal.div_ceil(2)
}
