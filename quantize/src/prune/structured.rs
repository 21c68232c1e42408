//! Which channels to cut.

use std::collections::{HashMap, HashSet};

use super::{Coupling, Group, GroupKind, Importance, PruneError};
use crate::graph::Graph;

/// How channels are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct StructuredOptions {
    /// Share of the channels, hidden units and heads that go, more than 0 and less than 1.
    pub share: f32,
    /// What is left of a group of channels is a multiple of this, which kernels like; groups of fewer than
    /// twice as many keep that share of their channels that comes closest.
    pub step: usize,
    /// One ranking for the whole graph, by importance over cost, instead of one per group.
    pub global: bool,
    /// Names of groups (first nodes) that are left alone, or where they begin with one of these and a `/` or `.`.
    pub keep: Vec<String>,
}

impl Default for StructuredOptions {
    fn default() -> Self {
        StructuredOptions {
            share: 0.5,
            step: 16,
            global: false,
            keep: Vec::new(),
        }
    }
}

/// Least share of a group that a global ranking leaves.
const LEAST: f32 = 0.1;

/// What goes of a group.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct GroupCut {
    /// The group's name.
    pub name: String,
    /// What its channels are.
    pub kind: GroupKind,
    /// Channels before.
    pub total: usize,
    /// Channels after.
    pub kept: usize,
    /// Share of the group's importance that goes.
    pub importance_lost: f64,
}

/// Chooses the least important channels: their numbers, for [`cut`](super::cut()), and what that means per group. Heads
/// and hidden units go, channels of single heads stay, unless there is but one head.
///
/// # Errors
///
/// [`PruneError::Share`], [`PruneError::Nothing`], [`PruneError::NoSuchLayer`].
pub fn structured(
    graph: &Graph,
    coupling: &Coupling,
    importance: &Importance,
    options: &StructuredOptions,
) -> Result<(HashSet<usize>, Vec<GroupCut>), PruneError> {
    let share = options.share;
    if !(share > 0.0 && share < 1.0) {
        return Err(PruneError::Share { share });
    }
    let groups = candidates(graph, coupling, options)?;
    let targets = match options.global {
        true => global(graph, coupling, importance, &groups, share),
        false => groups
            .iter()
            .map(|g| g.channels.len() as f32 * (1.0 - share))
            .collect(),
    };
    let mut gone = HashSet::new();
    let mut cuts = Vec::new();
    for (group, target) in groups.iter().zip(targets) {
        let kept = rounded(group, target, options.step);
        let of = |c: &usize| importance.get(c).copied().unwrap_or_default();
        let mut order = group.channels.clone();
        order.sort_by(|a, b| of(a).total_cmp(&of(b)).then(a.cmp(b)));
        let least = &order[..order.len() - kept];
        let all: f64 = order.iter().map(of).sum();
        cuts.push(GroupCut {
            name: group.name.clone(),
            kind: group.kind,
            total: order.len(),
            kept,
            importance_lost: least.iter().map(of).sum::<f64>() / all.max(f64::MIN_POSITIVE),
        });
        gone.extend(least);
    }
    match gone.is_empty() {
        true => Err(PruneError::Nothing {
            nodes: graph.nodes.len(),
        }),
        false => Ok((gone, cuts)),
    }
}

/// Groups that may lose channels.
fn candidates<'c>(
    graph: &Graph,
    coupling: &'c Coupling,
    options: &StructuredOptions,
) -> Result<Vec<&'c Group>, PruneError> {
    let names = || coupling.groups.iter().map(|g| g.name.as_str());
    let under = |name: &str, prefix: &str| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|r| r.is_empty() || r.starts_with(['/', '.']))
    };
    for wanted in &options.keep {
        if !names().any(|n| under(n, wanted)) {
            let nearest = names().min_by_key(|n| distance(n, wanted));
            return Err(PruneError::NoSuchLayer {
                name: wanted.clone(),
                nearest: nearest.unwrap_or_default().to_owned(),
            });
        }
    }
    // Head channels are a way to cut attention where heads are none.
    let with_heads: HashSet<&str> = coupling
        .groups
        .iter()
        .filter(|g| g.kind == GroupKind::Heads)
        .map(|g| g.name.as_str())
        .collect();
    let kept = |g: &&Group| options.keep.iter().any(|k| under(&g.name, k));
    let inside = |g: &&Group| g.kind == GroupKind::HeadChannels && !with_heads.is_empty();
    let groups = coupling.groups.iter().filter(|g| !kept(g) && !inside(g));
    let groups: Vec<&Group> = groups.collect();
    match groups.is_empty() {
        true => Err(PruneError::Nothing {
            nodes: graph.nodes.len(),
        }),
        false => Ok(groups),
    }
}

/// How many channels stay: at least one, not all unless the steps leave no choice.
fn rounded(group: &Group, target: f32, step: usize) -> usize {
    let total = group.channels.len();
    let kept = match group.kind {
        GroupKind::Channels if total >= 2 * step => {
            (target / step as f32).round().max(1.0) as usize * step
        }
        _ => target.round().max(1.0) as usize,
    };
    kept.min(total)
}

/// How many channels of each group stay when the whole graph loses a share of its multiply-accumulates, those that
/// matter least for what they cost first.
fn global(
    graph: &Graph,
    coupling: &Coupling,
    importance: &Importance,
    groups: &[&Group],
    share: f32,
) -> Vec<f32> {
    let costs = costs(graph, coupling);
    let cost = |c: usize| costs.get(&c).copied().unwrap_or(1.0).max(1.0);
    let mut all: Vec<(f64, usize, usize)> = Vec::new();
    for (g, group) in groups.iter().enumerate() {
        for &c in &group.channels {
            let worth = importance.get(&c).copied().unwrap_or_default() / cost(c);
            all.push((worth, g, c));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
    let total: f64 = all.iter().map(|&(_, _, c)| cost(c)).sum();
    let mut left: Vec<usize> = groups.iter().map(|g| g.channels.len()).collect();
    let mut gone = 0.0;
    for (_, g, c) in all {
        if gone >= total * f64::from(share) {
            break;
        }
        let least = (groups[g].channels.len() as f32 * LEAST).ceil().max(1.0);
        if left[g] as f32 > least {
            left[g] -= 1;
            gone += cost(c);
        }
    }
    left.into_iter().map(|n| n as f32).collect()
}

/// Multiply-accumulates that end with a channel, when nothing else is cut.
fn costs(graph: &Graph, coupling: &Coupling) -> HashMap<usize, f64> {
    let mut costs = HashMap::new();
    for node in &graph.nodes {
        let macs = graph.node_macs(node) as f64;
        if macs == 0.0 {
            continue;
        }
        let last = |v: crate::graph::ValueId| (v, graph.shape(v).len() - 1);
        let mut axes: Vec<_> = (0..graph.shape(node.output).len())
            .map(|axis| (node.output, axis))
            .collect();
        axes.push(last(node.inputs[0]));
        let mut seen = HashSet::new();
        for (value, axis) in axes {
            let indices = coupling.of(value, axis);
            let mut of: HashMap<usize, usize> = HashMap::new();
            for &c in indices.iter().flatten() {
                *of.entry(c).or_default() += 1;
            }
            for (c, n) in of {
                if seen.insert(c) {
                    *costs.entry(c).or_default() += macs * n as f64 / indices.len() as f64;
                }
            }
        }
    }
    costs
}

/// Levenshtein's distance, for hints.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
