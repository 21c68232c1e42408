use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

const CASES: &str = include_str!("../../../tests/fixtures/losses/losses.json");

/// A case of the numpy computation.
struct Case(Value);

impl Case {
    fn find(name: &str) -> Self {
        let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
        Case(cases.into_iter().find(|c| c["name"] == name).unwrap())
    }

    fn get<T: DeserializeOwned>(&self, field: &str) -> T {
        serde_json::from_value(self.0[field].clone()).unwrap()
    }

    fn input(&self, i: usize) -> Vec<f32> {
        self.get::<Vec<Vec<f32>>>("inputs")[i].clone()
    }

    /// Compares a loss and the gradients of the first inputs.
    fn check(&self, loss: f64, gradients: &[&[f32]]) {
        let expected: f64 = self.get("loss");
        assert!(
            (loss - expected).abs() < 1e-5 * expected.abs().max(1.0),
            "{loss} {expected}"
        );
        let all: Vec<Vec<f64>> = self.get("gradients");
        for (expected, got) in all.iter().zip(gradients) {
            assert_eq!(expected.len(), got.len());
            for (e, g) in expected.iter().zip(*got) {
                assert!(
                    (e - f64::from(*g)).abs() < 1e-5 * e.abs().max(1.0),
                    "{e} {g}"
                );
            }
        }
    }
}

#[test]
fn losses_of_classes_are_numpys() {
    let sparse = Case::find("sparse");
    let logits = sparse.input(0);
    let mut gradient = vec![9.0; logits.len()];
    let (indices, values): (Vec<u16>, Vec<f32>) = (sparse.get("indices"), sparse.get("values"));
    let loss = sparse_cross_entropy(&logits, &indices, &values, &mut gradient).unwrap();
    sparse.check(loss, &[&gradient]);

    let dense = Case::find("kd");
    let teacher: Vec<f32> = dense.get("teacher");
    let temperature = dense.get("temperature");
    let loss = dense_distillation(&logits, &teacher, temperature, &mut gradient).unwrap();
    dense.check(loss, &[&gradient]);

    let label = Case::find("label");
    let (class, smoothing) = (label.get("label"), label.get("smoothing"));
    let loss = label_cross_entropy(&logits, class, smoothing, &mut gradient).unwrap();
    label.check(loss, &[&gradient]);
}

#[test]
fn a_full_store_record_is_dense_distillation() {
    let case = Case::find("kd");
    let (logits, teacher): (_, Vec<f32>) = (case.input(0), case.get("teacher"));
    let logs = log_softmax(teacher.iter().map(|&v| f64::from(v)));
    let values: Vec<f32> = logs.iter().map(|l| l.exp() as f32).collect();
    let indices: Vec<u16> = (0..values.len() as u16).collect();
    let (mut sparse, mut dense) = (vec![0.0; logits.len()], vec![0.0; logits.len()]);
    sparse_cross_entropy(&logits, &indices, &values, &mut sparse).unwrap();
    dense_distillation(&logits, &teacher, 1.0, &mut dense).unwrap();
    assert!(sparse.iter().zip(&dense).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn losses_of_vectors_are_numpys() {
    for (name, loss) in [
        (
            "mse",
            mean_squared_error as fn(&[f32], &[f32], &mut [f32]) -> _,
        ),
        ("cosine", cosine_distance),
    ] {
        let case = Case::find(name);
        let (student, teacher) = (case.input(0), case.get::<Vec<f32>>("target"));
        let mut gradient = vec![9.0; student.len()];
        let loss: Result<f64, LossError> = loss(&student, &teacher, &mut gradient);
        case.check(loss.unwrap(), &[&gradient]);
    }
}

#[test]
fn losses_of_pairs_are_numpys() {
    for name in ["clip", "relational", "grouped"] {
        let case = Case::find(name);
        let (images, texts) = (case.input(0), case.input(1));
        let batch = Contrast {
            images: &images,
            texts: &texts,
            rows: case.get("rows"),
            scale: case.input(2)[0].into(),
        };
        let (mut by_image, mut by_text) = (vec![9.0; images.len()], vec![9.0; texts.len()]);
        let result = match name {
            "clip" => info_nce(&batch, &mut by_image, &mut by_text),
            "grouped" => {
                let groups: Vec<usize> = case.get("groups");
                grouped_info_nce(&batch, &groups, &mut by_image, &mut by_text)
            }
            _ => {
                let teachers: Vec<[Vec<f32>; 2]> = case.get("teachers");
                let teachers: Vec<_> = teachers
                    .iter()
                    .map(|[images, texts]| TeacherPairs { images, texts })
                    .collect();
                let scale = case.get("scale");
                relational(&batch, &teachers, scale, &mut by_image, &mut by_text)
            }
        };
        let (loss, by_scale) = result.unwrap();
        case.check(loss, &[&by_image, &by_text, &[by_scale as f32]]);
    }
}

#[test]
fn losses_of_maps_are_numpys() {
    for (name, view) in [("direct", View::Direct), ("alternative", View::Alternative)] {
        let case = Case::find(name);
        let (student, teacher): (_, Vec<f32>) = (case.input(0), case.get("target"));
        let mut gradient = vec![9.0; student.len()];
        let loss = mimicking(view, case.get("shape"), &student, &teacher, &mut gradient);
        case.check(loss.unwrap(), &[&gradient]);
    }
    let case = Case::find("attention");
    let (student, teacher): (_, Vec<f32>) = (case.input(0), case.get("target"));
    let mut gradient = vec![9.0; student.len()];
    let loss = attention_maps(case.get("keys"), &student, &teacher, &mut gradient);
    case.check(loss.unwrap(), &[&gradient]);
}

#[test]
fn dynamic_contrast_is_numpys() {
    let case = Case::find("dcd");
    let (student, teacher): (_, Vec<f32>) = (case.input(0), case.get("target"));
    let mut gradient = vec![9.0; student.len()];
    let (candidates, share) = (case.get("candidates"), case.get("share"));
    let loss = dynamic_contrast(candidates, &student, &teacher, share, &mut gradient);
    case.check(loss.unwrap(), &[&gradient]);
}

/// The defects of the released code: weights that do nothing, and sorted scores of the teacher.
#[test]
fn dynamic_contrast_weighs_pictures_and_keeps_their_order() {
    assert_eq!(hardest(&[0.1, 0.9, 0.5, 0.7], 2, 3), [2, 1, 3]);
    assert_eq!(hardest(&[0.1, 0.9], 0, 8), [0, 1]);
    // The teacher is sure of the second picture alone: that one counts more.
    let teacher = [0.0, 0.0, 9.0, 0.0];
    let loss =
        |student: &[f32]| dynamic_contrast(2, student, &teacher, 1.0, &mut [0.0; 4]).unwrap();
    let (unsure, sure) = (loss(&[1.0, 0.0, 9.0, 0.0]), loss(&[0.0, 0.0, 8.0, 0.0]));
    assert!(sure > 1.5 * unsure, "{sure} {unsure}");
    // A student that equals a teacher which is wrong has nothing to learn from it.
    let wrong = [-1.0, 2.0, 0.3, 0.1];
    let equal = dynamic_contrast(2, &wrong, &wrong, 1.0, &mut [0.0; 4]).unwrap();
    assert_eq!(equal, 0.0);
}

#[test]
fn lengths_that_differ_are_refused() {
    let mut gradient = [0.0; 3];
    let logits = [0.0; 3];
    let errors = [
        sparse_cross_entropy(&logits, &[0, 3], &[0.5, 0.1], &mut gradient),
        sparse_cross_entropy(&logits, &[0], &[], &mut gradient),
        label_cross_entropy(&logits, 3, 0.0, &mut gradient),
        label_cross_entropy(&logits, 1, 0.0, &mut gradient[..2]),
        dense_distillation(&logits, &logits[..2], 1.0, &mut gradient),
        mean_squared_error(&logits, &logits[..2], &mut gradient),
        cosine_distance(&logits, &logits, &mut gradient[..1]),
        attention_maps(2, &logits, &logits, &mut gradient),
        dynamic_contrast(2, &logits, &logits, 0.2, &mut gradient),
        mimicking(View::Direct, [1, 2, 2], &logits, &logits, &mut gradient),
    ];
    assert!(errors.iter().all(Result::is_err));
    let batch = Contrast {
        images: &[0.0; 6],
        texts: &[0.0; 6],
        rows: 4,
        scale: 1.0,
    };
    assert!(info_nce(&batch, &mut [0.0; 6], &mut [0.0; 6]).is_err());
    assert!(relational(&batch, &[], 1.0, &mut [0.0; 6], &mut [0.0; 6]).is_err());
}
