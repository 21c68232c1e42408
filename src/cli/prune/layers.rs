//! What is left of each layer, and how long it takes.

use std::collections::HashMap;
use std::time::Duration;

use ampoule_quantize::graph::{Graph, Op};
use ampoule_quantize::model::Model;
use ampoule_quantize::prune::GroupCut;
use serde::Serialize;

use crate::cli::args::ExecArgs;
use crate::cli::error::Failure;
use crate::cli::inspect::details::Details;
use crate::cli::output::{Table, bytes, count, micros, shortened};
use crate::cli::timing::{Until, profile};

/// Rounds in which the models take turns.
const ROUNDS: usize = 5;
/// How long each turn is.
const TURN: Duration = Duration::from_millis(80);

/// Columns of the table.
pub const HEADER: [&str; 8] = [
    "layer",
    ">channels",
    ">time",
    ">change",
    ">importance lost",
    ">parameters",
    ">MACs",
    ">int8 bytes",
];

/// A layer before and after.
#[derive(Debug, Clone, Serialize)]
pub struct LayerCut {
    pub name: String,
    /// Of its output.
    pub channels: [usize; 2],
    /// Of the group that its output channels are, where it is the group's first layer.
    pub importance_lost: Option<f64>,
    pub parameters: [u64; 2],
    pub macs: [u64; 2],
    /// Constants of its step in the int8 artifacts.
    pub int8_bytes: Option<[usize; 2]>,
    /// Median time of its step.
    pub us: Option<[f64; 2]>,
}

impl LayerCut {
    /// All columns but the name.
    pub fn cells(&self) -> [String; 7] {
        let share = self.importance_lost;
        [
            before_after(&self.channels),
            self.us
                .map_or(String::new(), |us| before_after(&us.map(micros))),
            self.us.map_or(String::new(), change),
            share.map_or(String::new(), |s| format!("{:.1} %", 100.0 * s)),
            before_after(&self.parameters.map(count)),
            before_after(&self.macs.map(count)),
            self.int8_bytes
                .map_or(String::new(), |b| before_after(&b.map(bytes))),
        ]
    }
}

/// `before → after`.
pub fn before_after<T: ToString>([a, b]: &[T; 2]) -> String {
    format!("{} → {}", a.to_string(), b.to_string())
}

/// The change of a time.
pub fn change([a, b]: [f64; 2]) -> String {
    format!("{:+.1} %", 100.0 * (b / a.max(1e-3) - 1.0))
}

/// The layers of a graph that multiply by weights, whole and cut; cutting keeps the nodes.
pub fn cuts(whole: &Graph, pruned: &Graph, groups: &[GroupCut]) -> Vec<LayerCut> {
    let lost: HashMap<&str, f64> = groups
        .iter()
        .map(|g| (&*g.name, g.importance_lost))
        .collect();
    let constants = |graph: &Graph, n: usize| -> u64 {
        let inputs = graph.nodes[n].inputs.iter();
        let constants = inputs.filter_map(|&v| graph.constant(v));
        constants.map(|d| d.len() as u64).sum()
    };
    let nodes = whole.nodes.iter().zip(&pruned.nodes).enumerate();
    nodes
        .filter(|(_, (a, _))| matches!(a.op, Op::Conv { .. } | Op::Linear { .. }))
        .map(|(n, (a, b))| {
            let channels = |graph: &Graph, value| graph.shape(value).last().copied().unwrap_or(1);
            LayerCut {
                name: a.name.clone(),
                channels: [channels(whole, a.output), channels(pruned, b.output)],
                importance_lost: lost.get(&*a.name).copied(),
                parameters: [constants(whole, n), constants(pruned, n)],
                macs: [whole.node_macs(a), pruned.node_macs(b)],
                int8_bytes: None,
                us: None,
            }
        })
        .collect()
}

/// Fills in times and bytes from the int8 models, which take turns; gives the times of all steps that are no layer's.
pub fn time(
    layers: &mut [LayerCut],
    mut models: [Model; 2],
    exec: &ExecArgs,
) -> Result<[f64; 2], Failure> {
    let pool = exec.pool();
    let mut rounds: [Vec<Vec<f64>>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (model, rounds) in models.iter_mut().zip(&mut rounds) {
            let mut session = exec.session(model, pool.as_ref())?;
            rounds.push(profile(&mut session, Until::Elapsed(TURN))?);
        }
    }
    let mut others = [0.0; 2];
    let mut found: [HashMap<String, (f64, usize)>; 2] = Default::default();
    for (side, (model, rounds)) in models.iter().zip(&rounds).enumerate() {
        for step in Details::of(model)?.steps {
            let mut times: Vec<f64> = rounds.iter().map(|r| r[step.index]).collect();
            times.sort_by(f64::total_cmp);
            let us = times[times.len() / 2];
            match layers.iter().any(|l| l.name == step.name) {
                true => {
                    let entry = found[side].entry(step.name).or_default();
                    (entry.0, entry.1) = (entry.0 + us, entry.1 + step.weight_bytes);
                }
                false => others[side] += us,
            }
        }
    }
    for layer in layers {
        if let [Some(a), Some(b)] = [0, 1].map(|s: usize| found[s].get(&layer.name)) {
            (layer.us, layer.int8_bytes) = (Some([a.0, b.0]), Some([a.1, b.1]));
        }
    }
    Ok(others)
}

/// The layers as a table.
pub fn render(layers: &[LayerCut], others_us: Option<[f64; 2]>) -> String {
    let mut table = Table::new(&HEADER);
    for layer in layers {
        let name = shortened(&layer.name, 40);
        table.row(std::iter::once(name).chain(layer.cells()));
    }
    if let Some(us) = others_us {
        let mut row = vec!["all other steps".to_owned(), String::new()];
        row.extend([before_after(&us.map(micros)), change(us)]);
        row.resize(HEADER.len(), String::new());
        table.row(row);
    }
    table.render()
}
