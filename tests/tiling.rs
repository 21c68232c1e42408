//! Bands of rows: less arena, the same bytes.
#![allow(missing_docs)]

mod common;

use ampoule_quantize::lower::LowerOptions;
use ampoule_quantize::model::{Model, ModelError, compile};
use ampoule_quantize::pipeline::QuantizeOptions;
use ampoule_quantize::plan::PlanOptions;
use ampoule_quantize::seal::Extras;
use ampoule_runtime::{Isa, Pool};
use common::{outputs, quantized, rows_net};

#[test]
fn bands_take_less_memory_and_give_the_same_bytes() {
    let done = quantized(rows_net(), &QuantizeOptions::default());
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
        (0..3).map(|seed| outputs(&mut session, seed)).collect()
    };
    let total = plain.plan.total();
    let generous = with(Some(total)).unwrap();
    assert_eq!(generous.bytes[..], plain.bytes[..]);
    let tight = with(Some(total / 2)).unwrap();
    let curve = tight.tiled.unwrap().curve;
    assert!(curve.len() > 3, "{curve:?}");
    assert!(curve.is_sorted_by(|a, b| a.arena > b.arena && a.steps < b.steps));
    assert!(curve[curve.len() - 1].arena <= total / 2);
    let pool = Pool::new(2);
    for tiling in curve.iter().rev().step_by(curve.len().div_ceil(4)) {
        let compiled = with(Some(tiling.arena)).unwrap();
        assert!(compiled.plan.total() <= tiling.arena);
        assert!(compiled.tiled.unwrap().chosen.is_some());
        let macs = |p: &ampoule_quantize::program::Program| p.step_macs.iter().sum::<u64>();
        assert_eq!(macs(&compiled.program), macs(&plain.program));
        let mut model = Model::from_bytes(compiled.bytes).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut session = model.session_with_pool(isa, &pool).unwrap();
            for (seed, expected) in (0..).zip(&expected) {
                assert!(
                    &outputs(&mut session, seed) == expected,
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
