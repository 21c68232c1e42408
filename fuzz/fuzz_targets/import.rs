//! What both importers' targets share.

use ampoule_quantize::import::Imported;
use ampoule_quantize::pipeline::{QuantizeOptions, take_over};
use ampoule_quantize::scheme::is_quantised;

/// Elements of all values of a model that is sealed.
const SMALL: usize = 1 << 20;

/// Seals a small model that is quantised already; errors are as good as results.
pub fn seal(imported: Imported) {
    let shapes = imported.graph.values.iter().map(|v| &v.shape);
    let elements = shapes.fold(0usize, |n, s| n.saturating_add(s.iter().product()));
    if elements < SMALL && is_quantised(&imported.graph) {
        let steps = &imported.weight_steps;
        let _ = take_over(imported.graph, steps, &QuantizeOptions::default());
    }
}
