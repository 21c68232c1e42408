//! Parameter names of TinyViT's authors, in timm's way.

use std::collections::BTreeMap;

use super::read::Stored;

/// Renames the tensors of a file with the authors' names; leaves others alone.
pub(super) fn modern(stored: BTreeMap<String, Stored>) -> BTreeMap<String, Stored> {
    match stored.keys().any(|name| name.starts_with("layers.")) {
        true => stored
            .into_iter()
            .map(|(name, t)| (timm(&name), t))
            .collect(),
        false => stored,
    }
}

/// timm puts the merging at the start of the next stage.
fn timm(name: &str) -> String {
    let (place, rest) = match name.split('.').collect::<Vec<_>>()[..] {
        ["patch_embed", "seq", "0", ref rest @ ..] => {
            ("patch_embed.conv1".to_owned(), rest.join("."))
        }
        ["patch_embed", "seq", "2", ref rest @ ..] => {
            ("patch_embed.conv2".to_owned(), rest.join("."))
        }
        ["layers", stage, "downsample", ref rest @ ..] => {
            let next = stage.parse::<u8>().map_or(0, |s| s.saturating_add(1));
            (format!("stages.{next}.downsample"), rest.join("."))
        }
        ["layers", stage, ref rest @ ..] => (format!("stages.{stage}"), rest.join(".")),
        ["norm_head", ref rest @ ..] => ("head.norm".to_owned(), rest.join(".")),
        ["head", ref rest @ ..] => ("head.fc".to_owned(), rest.join(".")),
        _ => return name.to_owned(),
    };
    format!("{place}.{rest}").replace(".c.", ".conv.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_names() {
        for (theirs, ours) in [
            (
                "patch_embed.seq.0.c.weight",
                "patch_embed.conv1.conv.weight",
            ),
            (
                "patch_embed.seq.2.bn.running_mean",
                "patch_embed.conv2.bn.running_mean",
            ),
            (
                "layers.0.blocks.1.conv3.c.weight",
                "stages.0.blocks.1.conv3.conv.weight",
            ),
            (
                "layers.0.downsample.conv2.bn.bias",
                "stages.1.downsample.conv2.bn.bias",
            ),
            (
                "layers.2.blocks.5.attn.attention_biases",
                "stages.2.blocks.5.attn.attention_biases",
            ),
            (
                "layers.3.blocks.0.local_conv.c.weight",
                "stages.3.blocks.0.local_conv.conv.weight",
            ),
            ("norm_head.weight", "head.norm.weight"),
            ("head.bias", "head.fc.bias"),
        ] {
            assert_eq!(timm(theirs), ours);
        }
    }
}
