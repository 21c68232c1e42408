//! Layers from lists of blocks: the same bytes as dense ones, and damaged lists that are refused.
#![allow(missing_docs)]

mod common;

use ampoule_quantize::graph::{Op, ReduceKind};
use ampoule_quantize::lower::{LowerOptions, runs_sparse};
use ampoule_quantize::model::{Compiled, Model, compile};
use ampoule_quantize::pipeline::{QuantizeOptions, Quantized};
use ampoule_quantize::plan::PlanOptions;
use ampoule_quantize::prune::{Sparsity, magnitude};
use ampoule_quantize::seal::{AlignedBytes, Extras, SealError, seal};
use ampoule_runtime::artifact::{Blob, Step};
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::unary::UnaryKind;
use ampoule_runtime::{Artifact, Error, Isa, Pool};
use common::{Builder, outputs, quantized, window};

/// Most blocks of each layer that has a kernel for them are zero.
fn pruned_net() -> Builder {
    let mut b = Builder::new(31);
    let x = b.graph.input("image", &[1, 12, 13, 3]);
    let x = b.conv(x, 64, window(3, 1, [1; 4]), 1, Some(UnaryKind::Relu));
    let e = b.conv(x, 101, Window::POINT, 1, Some(UnaryKind::HardSwish));
    let d = b.conv(e, 101, window(3, 1, [1; 4]), 101, Some(UnaryKind::Silu));
    let r = b.conv_with(d, 64, Window::POINT, 1, None, Some(x));
    let wide = b.linear(r, 1200);
    let y = b.linear(wide, 18);
    let mean = Op::Reduce {
        kind: ReduceKind::Mean,
        axes: vec![1, 2],
    };
    let y = b.push("mean", mean, &[y]);
    b.graph.output("y", y);
    let report = magnitude(&mut b.graph, Sparsity::Blocks(0.9)).unwrap();
    let cut: Vec<bool> = report.iter().map(|l| l.empty_blocks > 0).collect();
    assert_eq!(cut, [false, true, false, true, true, true]);
    b
}

fn compiled(q: &Quantized, sparse: Option<Isa>, arena_budget: Option<usize>) -> Compiled {
    let lowering = LowerOptions {
        sparse,
        ..LowerOptions::default()
    };
    let planning = PlanOptions {
        arena_budget,
        ..PlanOptions::default()
    };
    compile(
        &q.graph,
        Some(&q.scheme),
        &lowering,
        &planning,
        &Extras::default(),
    )
    .unwrap()
}

fn sparse_steps(bytes: &AlignedBytes) -> usize {
    let artifact = Artifact::verify(bytes).unwrap();
    let is_sparse = |s: &Step| matches!(s, Step::Sparse { .. });
    artifact.steps().filter(is_sparse).count()
}

#[test]
fn blocks_give_the_bytes_of_dense_layers() {
    let q = quantized(pruned_net(), &QuantizeOptions::default());
    let dense = compiled(&q, None, None);
    assert_eq!(sparse_steps(&dense.bytes), 0);
    // There is no faster kernel for tiles of AMX.
    let for_amx = compiled(&q, Some(Isa::Amx), None);
    assert_eq!(for_amx.bytes[..], dense.bytes[..]);
    let sparse = compiled(&q, Some(Isa::Avx512Vnni), None);
    let can = |n: &&_| runs_sparse(&q.graph, n);
    assert_eq!(
        sparse_steps(&sparse.bytes),
        q.graph.nodes.iter().filter(can).count()
    );
    assert!(sparse.bytes.len() < dense.bytes.len());
    let macs = |c: &Compiled| c.program.step_macs.iter().sum::<u64>();
    assert!(macs(&sparse) < macs(&dense) / 2);
    let banded = compiled(&q, Some(Isa::Avx512Vnni), Some(sparse.plan.total() * 3 / 4));
    assert!(sparse_steps(&banded.bytes) > sparse_steps(&sparse.bytes));
    let expected = outputs(
        &mut Model::from_bytes(dense.bytes)
            .unwrap()
            .session(Isa::Portable)
            .unwrap(),
        7,
    );
    let pool = Pool::new(2);
    for bytes in [sparse.bytes, banded.bytes] {
        let mut model = Model::from_bytes(bytes).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert!(
                outputs(&mut model.session(isa).unwrap(), 7) == expected,
                "{isa:?}"
            );
            let mut session = model.session_with_pool(isa, &pool).unwrap();
            assert!(
                outputs(&mut session, 7) == expected,
                "{isa:?} on two threads"
            );
        }
    }
}

#[test]
fn damaged_lists_are_refused() {
    let q = quantized(pruned_net(), &QuantizeOptions::default());
    let good = compiled(&q, Some(Isa::Avx512Vnni), None);
    let at = |c: &Compiled| {
        let mut steps = c.program.steps.iter();
        steps.position(|s| matches!(s, Step::Sparse { .. }))
    };
    let at = at(&good).unwrap();
    let refused = |change: &dyn Fn(&mut Step)| {
        let mut program = good.program.clone();
        change(&mut program.steps[at]);
        let sealed = seal(&program, &good.plan, &Extras::default());
        assert!(matches!(
            sealed,
            Err(SealError::Refused(Error::BadStep(step))) if usize::from(step) == at
        ));
    };
    let of = |change: &dyn Fn(&mut Blob, &mut Blob, &mut Blob)| {
        refused(&|step| {
            if let Step::Sparse {
                layer,
                starts,
                quads,
            } = step
            {
                change(starts, quads, &mut layer.weights);
            }
        });
    };
    // Equal lists of another order, lists that end early, and one in the place of another.
    of(&|starts, _, _| starts.len -= 4);
    of(&|starts, _, _| starts.len -= 1);
    of(&|_, quads, _| quads.len -= 2);
    of(&|_, _, weights| weights.len -= 4);
    of(&|_, quads, weights| {
        quads.len -= 2;
        weights.len -= 4;
    });
    of(&|_, quads, weights| quads.offset = weights.offset);
    of(&|starts, quads, _| quads.offset = starts.offset);
    of(&|starts, quads, _| starts.offset = quads.offset);
    refused(&|step| {
        if let Step::Sparse { layer, .. } = step {
            layer.window = window(1, 2, [0; 4]);
        }
    });
    refused(&|step| {
        if let Step::Sparse { layer, .. } = step {
            layer.sums = None;
        }
    });
}
