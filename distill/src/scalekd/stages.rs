//! The stages of a network.

use ampoule_distill_kernels::graph::{Graph, Op, Value};

/// The last maps of a network's last two stages: of its two smallest sizes beyond one pixel, each the last residual
/// sum of that size, or the last map at all where there are sums of fewer sizes. None unless the last comes behind the
/// other and has at most half as many pixels: class tokens alone make no stage.
pub fn stages(graph: &Graph) -> Option<[Value; 2]> {
    let last_of_each = |wanted: &dyn Fn(&Op) -> bool| {
        let mut sizes: Vec<(usize, Value)> = Vec::new();
        for node in graph.nodes().iter().filter(|n| wanted(&n.op)) {
            let pixels = graph.map(node.output).pixels();
            match sizes.iter_mut().find(|(known, _)| *known == pixels) {
                Some((_, value)) => *value = node.output,
                None if pixels > 1 => sizes.push((pixels, node.output)),
                None => {}
            }
        }
        sizes.sort_by_key(|(pixels, _)| *pixels);
        match sizes[..] {
            [(few, last), (more, before), ..] if before < last && more >= 2 * few => {
                Some([before, last])
            }
            _ => None,
        }
    };
    let sums = last_of_each(&|op| matches!(op, Op::Add { .. }));
    sums.or_else(|| last_of_each(&|_| true))
}
