//! Names of layers.

use std::collections::HashSet;

/// Name of the layer that a node belongs to: the path in front of the operator (`head.fc/MatMul`), without
/// the repetitions of PyTorch's exporter (`/stages/stages.0/conv/Conv`). Exporters without paths number
/// their operators, and these are the names then.
pub(super) fn layer(node: &str) -> String {
    let Some((path, _)) = node.rsplit_once('/') else {
        return node.split('.').next().unwrap_or_default().to_owned();
    };
    let modules: Vec<&str> = path.split('/').filter(|m| !m.is_empty()).collect();
    let repeated = |i: usize| {
        let next = modules.get(i + 1).and_then(|n| n.strip_prefix(modules[i]));
        next.is_some_and(|rest| rest.starts_with('.'))
    };
    let kept = (0..modules.len()).filter(|&i| !repeated(i));
    let kept: Vec<&str> = kept.map(|i| modules[i]).collect();
    match kept.is_empty() {
        true => node.trim_matches('/').to_owned(),
        false => kept.join("."),
    }
}

/// The name, or the name with a number when it is taken.
pub(super) fn unique(taken: &mut HashSet<String>, name: String) -> String {
    let numbered = (1..).map(|i| format!("{name}_{i}"));
    let free = std::iter::once(name.clone())
        .chain(numbered)
        .find(|n| taken.insert(n.clone()));
    free.unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers() {
        for (node, expected) in [
            ("head.fc/MatMul", "head.fc"),
            (
                "stages.1.blocks.0.attn.norm/LayerNormalization.normalized",
                "stages.1.blocks.0.attn.norm",
            ),
            (
                "/stages/stages.0/blocks/blocks.0/conv1/conv/Conv",
                "stages.0.blocks.0.conv1.conv",
            ),
            (
                "/stages/stages.1/blocks/blocks.0/attn/proj/MatMul.2.3",
                "stages.1.blocks.0.attn.proj",
            ),
            ("node_Conv_468", "node_Conv_468"),
            (
                "node_scaled_dot_product_attention.5",
                "node_scaled_dot_product_attention",
            ),
            ("/Add", "Add"),
        ] {
            assert_eq!(layer(node), expected);
        }
    }

    #[test]
    fn taken_names_are_numbered() {
        let mut taken = HashSet::new();
        let names = ["a", "a", "b", "a"].map(|n| unique(&mut taken, n.to_owned()));
        assert_eq!(names, ["a", "a_1", "b", "a_2"]);
    }
}
