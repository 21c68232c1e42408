//! Interpolation of the weights of models of one graph.

use super::error::MergeError;
use super::file::OnnxFile;

/// Replaces the weights of `file` by a weighted mean with those of other models of the same graph, as several
/// training runs of one network give them (Wortsman et al., "Model soups", 2022). Models without a share get, like
/// the file itself, an equal part of what is left. Gives the file's own share.
///
/// # Errors
///
/// [`MergeError::OtherGraph`] where nodes or initialisers differ in more than the values of floats,
/// [`MergeError::Shares`] for shares that leave less than nothing, [`MergeError::NotFinite`].
pub fn average(file: &mut OnnxFile, others: &[(OnnxFile, Option<f64>)]) -> Result<f64, MergeError> {
    let given: f64 = others.iter().filter_map(|(_, share)| *share).sum();
    let positive = others.iter().filter_map(|o| o.1).all(|s| s > 0.0);
    let open = 1 + others.iter().filter(|(_, share)| share.is_none()).count();
    let left = (1.0 - given) / open as f64;
    if !positive || !(0.0..1.0).contains(&left) || (left == 0.0 && open > 1) {
        return Err(MergeError::Shares { sum: given });
    }
    for (other, _) in others {
        same_graph(file, other)?;
    }
    for index in 0..file.initializers().len() {
        if !file.is_float(index) {
            continue;
        }
        let own = file.values(index)?.1;
        let mut sum: Vec<f64> = own.iter().map(|&v| left * f64::from(v)).collect();
        let mut is_changed = false;
        for (other, share) in others {
            let values = other.values(index)?.1;
            is_changed |= values != own;
            let share = share.unwrap_or(left);
            for (sum, v) in sum.iter_mut().zip(&values) {
                *sum += share * f64::from(*v);
            }
        }
        // Constants of the graph stay exactly what they are.
        if !is_changed {
            continue;
        }
        let mean: Vec<f32> = sum.iter().map(|&v| v as f32).collect();
        if mean.iter().any(|v| !v.is_finite()) {
            return Err(MergeError::NotFinite {
                what: format!("the mean of `{}`", file.initializers()[index].name),
            });
        }
        file.replace(index, mean);
    }
    Ok(left)
}

fn same_graph(file: &OnnxFile, other: &OnnxFile) -> Result<(), MergeError> {
    let differ = |what: String| {
        Err(MergeError::OtherGraph {
            other: other.name.clone(),
            what,
        })
    };
    let (a, b) = (file.graph(), other.graph());
    if a.node.len() != b.node.len() {
        return differ(format!("{} nodes, not {}", b.node.len(), a.node.len()));
    }
    let nodes = a.node.iter().zip(&b.node);
    for (x, y) in nodes {
        let same = x.op_type == y.op_type && x.input == y.input && x.output == y.output;
        if !same || x.attribute != y.attribute {
            return differ(format!("node `{}` is another", x.name));
        }
    }
    if a.initializer.len() != b.initializer.len() {
        let [x, y] = [a, b].map(|g| g.initializer.len());
        return differ(format!("{y} initialisers, not {x}"));
    }
    for (index, (x, y)) in a.initializer.iter().zip(&b.initializer).enumerate() {
        if x.name != y.name || x.dims != y.dims || x.data_type != y.data_type {
            let (found, expected) = (&y.dims, &x.dims);
            return differ(format!(
                "initialiser `{}` {found:?} is not `{}` {expected:?}",
                y.name, x.name
            ));
        }
        if !file.is_float(index) && x != y {
            return differ(format!("`{}` has other integers", x.name));
        }
    }
    Ok(())
}
