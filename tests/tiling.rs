//! Bands of rows: less arena, the same bytes.
#![allow(missing_docs)]

mod common;

use ampoule_quantize::lower::LowerOptions;
use ampoule_quantize::model::{Model, ModelError, compile};
use ampoule_quantize::pipeline::QuantizeOptions;
use ampoule_quantize::plan::PlanOptions;
use ampoule_quantize::seal::Extras;
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::unary::UnaryKind;
use ampoule_runtime::{Isa, Pool, Session};
use common::{Builder, Lcg, quantized, window};

/// Convolutions of many shapes, an inverted residual, pooling; then a head that needs the whole map.
fn net() -> Builder {
    let mut b = Builder::new(11);
    let relu6 = Some(UnaryKind::Clamp(0.0, 6.0));
    let x = b.graph.input("image", &[1, 46, 40, 3]);
    let x = b.conv(x, 16, window(3, 2, [0, 0, 1, 1]), 1, relu6);
    let e = b.conv(x, 48, Window::POINT, 1, Some(UnaryKind::HardSwish));
    let d = b.conv(e, 48, window(5, 1, [2; 4]), 48, Some(UnaryKind::Silu));
    let x = b.conv_with(d, 16, Window::POINT, 1, None, Some(x));
    let x = b.conv(x, 24, window(3, 2, [1; 4]), 1, Some(UnaryKind::Relu));
    let x = b.conv(x, 24, window(7, 1, [3; 4]), 24, None);
    let x = b.conv(x, 8, window(3, 2, [1; 4]), 1, None);
    let x = b.attention(x, 2);
    let x = b.linear(x, 5);
    b.graph.output("y", x);
    b
}

fn run(session: &mut Session<'_, '_>, seed: u32) -> Vec<u8> {
    let mut rng = Lcg(seed);
    session
        .input_bytes(0)
        .unwrap()
        .fill_with(|| rng.next() as u8);
    session.run().unwrap();
    session.output_bytes(0).unwrap().to_vec()
}

#[test]
fn bands_take_less_memory_and_give_the_same_bytes() {
    let done = quantized(net(), &QuantizeOptions::default());
    let with = |arena_budget: Option<usize>| {
        let planning = PlanOptions {
            arena_budget,
            ..PlanOptions::default()
        };
        compile(
            &done.graph,
            Some(&done.scheme),
            &LowerOptions::default(),
            &planning,
            &Extras::default(),
        )
    };
    let plain = with(None).unwrap();
    let expected: Vec<_> = {
        let mut model = Model::from_bytes(plain.bytes.clone()).unwrap();
        let mut session = model.session(Isa::Portable).unwrap();
        (0..3).map(|seed| run(&mut session, seed)).collect()
    };
    let generous = with(Some(plain.plan.total())).unwrap();
    let curve = generous.tiled.unwrap().curve;
    assert_eq!(generous.bytes[..], plain.bytes[..]);
    assert!(curve.len() > 3, "{curve:?}");
    assert!(curve.is_sorted_by(|a, b| a.arena > b.arena && a.steps < b.steps));
    assert!(curve[curve.len() - 1].arena < plain.plan.total() / 2);
    let pool = Pool::new(2);
    for tiling in &curve {
        let compiled = with(Some(tiling.arena)).unwrap();
        assert_eq!(compiled.tiled.unwrap().chosen.as_ref(), Some(tiling));
        assert!(compiled.plan.total() <= tiling.arena);
        let macs = |p: &ampoule_quantize::program::Program| p.step_macs.iter().sum::<u64>();
        assert_eq!(macs(&compiled.program), macs(&plain.program));
        let mut model = Model::from_bytes(compiled.bytes).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut session = model.session_with_pool(isa, &pool).unwrap();
            for (seed, expected) in (0..).zip(&expected) {
                assert!(
                    &run(&mut session, seed) == expected,
                    "{} {tiling:?}",
                    isa.name()
                );
            }
        }
    }
    let least = curve[curve.len() - 1].arena;
    let refused = with(Some(1000)).unwrap_err();
    assert!(matches!(refused, ModelError::ArenaBudget { budget: 1000, least: l } if l <= least));
}
