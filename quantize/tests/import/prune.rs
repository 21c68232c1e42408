//! Cut graphs against masked ones, and graphs written as ONNX.

use std::collections::HashSet;
use std::path::Path;

use ampoule_quantize::export::graph_to_onnx;
use ampoule_quantize::graph::{Graph, GraphError, Op};
use ampoule_quantize::prune::{Coupling, GroupKind, cut};
use ampoule_quantize::{import, passes};
use ampoule_runtime::ops::binary::BinaryKind;

use crate::families::{for_each, samples};
use crate::fixtures::{difference, fixtures, float_models, run, sealed};

fn rewritten(path: &Path) -> Graph {
    let mut graph = import::onnx(path).unwrap_or_else(|e| panic!("{e}")).graph;
    passes::rewrite(&mut graph).unwrap();
    graph.validate().unwrap();
    graph
}

/// The graph whose sums over channels see zeros where channels are cut.
fn masked(graph: &Graph, coupling: &Coupling, channels: &HashSet<usize>) -> Graph {
    let mut out = Graph {
        nodes: Vec::new(),
        ..graph.clone()
    };
    for node in &graph.nodes {
        let x = node.inputs.first().copied();
        let axes = match &node.op {
            Op::Conv { groups: 1, .. } | Op::Linear { .. } | Op::MatMul => {
                vec![graph.shape(x.unwrap()).len() - 1]
            }
            Op::Conv { groups, .. } => match graph.shape(node.inputs[1])[3] == 1
                && graph.shape(node.inputs[1])[0] == *groups
            {
                true => vec![],
                false => vec![3],
            },
            Op::Reduce { axes, .. } => axes.clone(),
            _ => vec![],
        };
        let mut node = node.clone();
        for axis in axes {
            let stays = |of: &Vec<usize>| !of.iter().any(|c| channels.contains(c));
            let mask: Vec<f32> = coupling
                .of(x.unwrap(), axis)
                .iter()
                .map(|of| f32::from(u8::from(stays(of))))
                .collect();
            if mask.contains(&0.0) {
                let mut shape = vec![1; graph.shape(x.unwrap()).len()];
                shape[axis] = mask.len();
                let mask = out.constant_value("mask", &shape, mask);
                let op = Op::Binary {
                    kind: BinaryKind::Mul,
                    activation: None,
                };
                let name = format!("{}/masked{axis}", node.name);
                node.inputs[0] = out.push(&name, op, &[node.inputs[0], mask]).unwrap();
            }
        }
        out.nodes.push(node);
    }
    out
}

fn optimised(mut graph: Graph) -> Graph {
    passes::optimise::<GraphError>(&mut graph, None).unwrap();
    graph.validate().unwrap();
    graph
}

fn outputs(graph: &Graph, inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
    run(graph, sealed, inputs).unwrap()
}

/// Half of every group is cut, at random: outputs are those of the masked graph.
#[test]
fn cut_graphs_equal_masked_ones() {
    for_each(&float_models(), |path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let graph = rewritten(path);
        let coupling = Coupling::new(&graph);
        let kinds = |kind| coupling.groups.iter().filter(|g| g.kind == kind).count();
        let [channels, heads, inside] = [
            GroupKind::Channels,
            GroupKind::Heads,
            GroupKind::HeadChannels,
        ]
        .map(kinds);
        println!(
            "{name}: {channels} groups of channels, {heads} of heads, {inside} of head channels"
        );
        assert!(!coupling.groups.is_empty(), "{name}");
        let mut state = 12345u32;
        let mut random = |n: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % n
        };
        let mut gone = HashSet::new();
        for group in &coupling.groups {
            let mut left = group.channels.clone();
            for _ in 0..group.channels.len() / 2 {
                gone.insert(left.swap_remove(random(left.len())));
            }
        }
        let small = cut(&graph, &coupling, &gone).unwrap_or_else(|e| panic!("{name}: {e}"));
        small.validate().unwrap();
        assert!(small.parameters() < graph.parameters(), "{name}");
        let masked = masked(&graph, &coupling, &gone);
        masked.validate().unwrap();
        let inputs = samples(path).swap_remove(0).0;
        let expected = outputs(&optimised(masked), &inputs);
        let got = outputs(&optimised(small.clone()), &inputs);
        for (got, expected) in got.iter().zip(&expected) {
            let error = difference(got, expected);
            assert!(error < 1e-5, "{name}: {error:e}");
        }
        // What is written is read back as the same.
        let file = graph_to_onnx(&small, "pruned", &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Some(folder) = std::env::var_os("AMPOULE_WRITE_PRUNED") {
            write(Path::new(&folder), &name, &file, &expected);
        }
        let back = import::onnx_bytes(&file, &Default::default());
        let back = back.unwrap_or_else(|e| panic!("{name}: {e}")).graph;
        for (got, expected) in outputs(&optimised(back), &inputs).iter().zip(&expected) {
            let error = difference(got, expected);
            assert!(error < 1e-5, "{name}: read back {error:e}");
        }
    });
}

/// Leaves a cut model and the masked one's outputs for `tests/fixtures/models/check_pruned.py`, which runs the file in ONNX
/// Runtime.
fn write(folder: &Path, name: &str, file: &[u8], expected: &[Vec<f32>]) {
    let bytes: Vec<u8> = expected
        .iter()
        .flatten()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    std::fs::write(folder.join(name), file).unwrap();
    std::fs::write(folder.join(name).with_extension("masked.bin"), bytes).unwrap();
}

/// What the groups of a small transformer are: heads and channels of heads, hidden units.
#[test]
fn groups_of_a_transformer() {
    let path = fixtures().join("models/families/vit-tracer17.onnx");
    let graph = rewritten(&path);
    let coupling = Coupling::new(&graph);
    let groups = coupling.groups.iter().map(|g| (g.kind, g.channels.len()));
    let block = [
        (GroupKind::Heads, 3),
        (GroupKind::HeadChannels, 10),
        (GroupKind::Channels, 60),
    ];
    assert!(groups.eq(block.into_iter().chain(block)));
}
