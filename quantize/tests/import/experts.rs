//! Mixtures of experts whose gate is fixed, against PyTorch's outputs (`tests/fixtures/experts/make.py`).

use ampoule_quantize::export::graph_to_onnx;
use ampoule_quantize::graph::{Graph, Op};
use ampoule_quantize::import::{self, ImportOptions};
use ampoule_quantize::passes;
use ampoule_quantize::prune::{PruneError, fix};

use crate::fixtures::{difference, fixtures, run, sealed};

const GATE: &str = "/Softmax";

fn read(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixtures().join("experts").join(name)).unwrap();
    let words = bytes.chunks_exact(4);
    words
        .map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]]))
        .collect()
}

fn imported(form: &str) -> Graph {
    import::onnx(fixtures().join(format!("experts/{form}.onnx")))
        .unwrap()
        .graph
}

#[test]
fn experts_that_are_never_asked_are_gone_and_the_rest_answers_the_same() {
    for form in ["sum", "stack"] {
        let input = [read(&format!("{form}.input.bin"))];
        for (case, gate, experts) in [
            ("one", [0.0, 0.0, 1.0, 0.0], 1),
            ("two", [0.25, 0.0, 0.75, 0.0], 2),
        ] {
            let expected = read(&format!("{form}.{case}.bin"));
            let mut graph = imported(form);
            fix(&mut graph, GATE, &gate).unwrap();
            passes::rewrite(&mut graph).unwrap();
            graph.validate().unwrap();
            let layers = |g: &Graph| {
                g.nodes
                    .iter()
                    .filter(|n| matches!(n.op, Op::Conv { .. } | Op::Linear { .. }))
                    .count()
            };
            // The stem and the head remain, and two convolutions an expert; the gate is gone.
            assert_eq!(layers(&graph), 2 + 2 * experts, "{form} {case}");
            let written = import::onnx_bytes(
                &graph_to_onnx(&graph, "experts", &[]).unwrap(),
                &ImportOptions::default(),
            );
            for graph in [graph, written.unwrap().graph] {
                let got = run(&graph, sealed, &input).unwrap();
                let error = difference(&got[0], &expected);
                assert!(error < 1e-5, "{form} {case}: {error}");
            }
        }
    }
}

#[test]
fn what_does_not_exist_or_fit_is_refused() {
    let mut graph = imported("sum");
    let error = fix(&mut graph, "/Sotfmax", &[1.0]).unwrap_err();
    assert!(matches!(error, PruneError::NoSuchValue { nearest, .. } if nearest == GATE));
    let error = fix(&mut graph, GATE, &[1.0, 0.0]).unwrap_err();
    assert!(matches!(&error, PruneError::Values { shape, got: 2, .. } if *shape == [1, 4]));
    let expected = "2 values can't be `/Softmax`, which is [1, 4]: expected 4, or one for all";
    assert_eq!(error.to_string(), expected);
}
