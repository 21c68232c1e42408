use super::*;

#[test]
fn recall_counts_ranks() {
    // Texts at the axes; the second picture is closest to the third text.
    let texts = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let images = [0.8, 0.6, 0.0, 0.0, 0.6, 0.8, 0.0, 0.0, 1.0, 0.6, 0.8, 0.0];
    let found = Retrieval::of(3, &images, &[0, 1, 2, 0], &texts);
    assert_eq!((found.images, found.texts), (4, 3));
    // By the second text come the last picture (0.8), then the first and its own (0.6 both).
    assert_eq!(found.text_to_image.at_1, 2.0 / 3.0);
    assert_eq!(found.text_to_image.at_5, 1.0);
    assert_eq!(found.image_to_text.at_1, 0.5);
}

/// Equal embeddings of everything find nothing by chance.
#[test]
fn a_constant_finds_nothing() {
    let same: Vec<f32> = [0.6, 0.8].repeat(30);
    let group: Vec<usize> = (0..30).collect();
    let found = Retrieval::of(2, &same, &group, &same);
    assert_eq!(found.text_to_image, Recall::default());
    assert_eq!(found.image_to_text, Recall::default());
}

#[test]
fn a_space_keeps_what_differs() {
    // Points on a plane in four dimensions, far from the origin.
    let point = |a: f32, b: f32| [10.0 + a, 10.0 + b, 10.0 - a, 10.0 - b];
    let points: Vec<f32> = (0..40)
        .flat_map(|i| point((i as f32 * 0.7).sin(), (i as f32 * 1.1).cos()))
        .collect();
    let (narrow, whole) = (Space::of(&points, 4, 2), Space::of(&points, 4, 4));
    assert_eq!([narrow.width(), whole.width()], [2, 4]);
    let rows: Vec<&[f32]> = points.chunks(4).collect();
    let cosine = |space: &Space, a: &[f32], b: &[f32]| -> f32 {
        let (a, b) = (space.project(a), space.project(b));
        a.iter().zip(&b).map(|(a, b)| a * b).sum()
    };
    for (i, j) in [(0, 1), (3, 17), (20, 39)] {
        let (got, all) = (
            cosine(&narrow, rows[i], rows[j]),
            cosine(&whole, rows[i], rows[j]),
        );
        assert!((got - all).abs() < 1e-2, "{got} {all}");
    }
}

/// Coordinates of known sizes, turned: the largest come out.
#[test]
fn a_space_keeps_the_largest_components() {
    const WIDTH: usize = 16;
    let sign = |a: usize, b: usize| {
        if (a & b).count_ones() % 2 == 0 {
            1.0
        } else {
            -1.0
        }
    };
    let size = |k: usize| 0.8f32.powi(k as i32);
    let value = |n, k| size(k) * sign(n, k);
    let point = |n: usize| {
        let channel = move |c| (1..WIDTH).map(|k| value(n, k) * sign(k, c)).sum::<f32>();
        (0..WIDTH).map(channel)
    };
    let points: Vec<f32> = (0..WIDTH).flat_map(point).collect();
    let space = Space::of(&points, WIDTH, 5);
    let rows: Vec<&[f32]> = points.chunks(WIDTH).collect();
    for (a, b) in [(0, 1), (3, 12), (7, 9), (15, 15)] {
        let [x, y] = [a, b].map(|n| space.project(rows[n]));
        let got: f32 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
        let product: f32 = (1..6).map(|k| value(a, k) * value(b, k)).sum();
        let expected = product / (1..6).map(|k| size(k) * size(k)).sum::<f32>();
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    }
}

#[test]
fn pairs_that_lack_a_half_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.jsonl");
    let refusal = |lines: &str| {
        std::fs::write(&list, lines).unwrap();
        match crate::data::Dataset::open(&list) {
            Ok(data) => Captions::of(&data).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    };
    std::fs::write(folder.path().join("there.png"), []).unwrap();
    let bare =
        refusal("{\"path\": \"there.png\"}\n{\"path\": \"there.png\", \"caption\": \"a\"}\n");
    assert!(
        bare.starts_with("1 of 2 pictures have no caption, such as `there.png`"),
        "{bare}"
    );
    let lost = refusal("{\"path\": \"lost.png\", \"caption\": \"a\"}\n");
    assert!(
        lost.starts_with("1 of 1 captions have no picture, such as `lost.png`"),
        "{lost}"
    );
    let broken = refusal("{\"path\": \"there.png\", \"caption\": \"a\"}\n{\"path\": \n");
    assert!(broken.contains("list.jsonl` line 2"), "{broken}");
}

#[test]
fn pictures_of_equal_captions_are_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.jsonl");
    std::fs::write(folder.path().join("a.png"), []).unwrap();
    let lines = [
        r#""caption": "cat""#,
        r#""captions": ["dog", "cat"]"#,
        r#""captions": ["cat", "pet"]"#,
    ];
    let lines = lines.map(|rest| format!("{{\"path\": \"a.png\", {rest}}}\n"));
    std::fs::write(&list, lines.concat()).unwrap();
    let captions = Captions::of(&crate::data::Dataset::open(&list).unwrap()).unwrap();
    assert_eq!(captions.texts, ["cat", "dog", "pet"]);
    assert_eq!(captions.of_sample, [vec![0], vec![1, 0], vec![0, 2]]);
    assert_eq!(
        (captions.group, captions.names),
        (vec![0, 1, 0], vec![0, 1])
    );
}

/// A table of token vectors learns what a teacher says to each word.
#[test]
fn texts_are_learnt_from_their_teacher() {
    use crate::train::{End, TrainOptions, Trainer};
    use ampoule_distill_kernels::graph::{Graph, Kind, Map, Op};
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = folder.path().join("vocab.txt");
    std::fs::write(&vocabulary, "[PAD]\n[UNK]\ncat\ndog\n").unwrap();
    let tokenizer = crate::text::WordPiece::read(&vocabulary).unwrap();
    let texts = ["cat", "dog"].map(str::to_owned);
    let taught = vec![0.6, 0.8, 0.8, -0.6];
    let mut task = Texts::new(&texts, taught.clone(), &tokenizer, [2, 1], 0)
        .measured_on(&texts, taught, &tokenizer);
    let mut graph = Graph::new();
    let ids = graph.input(Map::new(1, 1, 1));
    let table = graph.parameter("table", &[4, 2], Kind::Undecayed);
    let rows = graph.push("rows", Op::Embedding { table }, &[ids]).unwrap();
    let unit = graph.push("unit", Op::Normalize, &[rows]).unwrap();
    graph.output(unit);
    let first = vec![vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.1, 0.1, 1.0]];
    let options = TrainOptions {
        epochs: 300,
        rate: 0.05,
        ema: None,
        ..TrainOptions::default()
    };
    let mut trainer = Trainer::new(graph, first, options).unwrap();
    let end = trainer
        .train(&mut task, None, &mut crate::train::Silent)
        .unwrap();
    assert_eq!(end, End::Done);
    use crate::train::Task;
    let measures = task.evaluate(&mut trainer.evaluator()).unwrap();
    assert!(measures.get("cosine").unwrap() > 0.999, "{measures:?}");
}
