//! Which optimiser, and its state as bytes.

use ampoule_distill_kernels::graph::Parameter;
use ampoule_distill_kernels::optim::{
    AdamWConfig, Optimizer, OptimizerConfig, SgdSaiConfig, StateArray, StateData,
};
use serde::{Deserialize, Serialize};

/// How gradients change parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    #[default]
    AdamW,
    /// The same with one-byte moments.
    CoatAdamW,
    /// Momentum with rates set by the first gradient.
    SgdSai,
}

impl OptimizerKind {
    /// The optimiser for these parameters, with everything else at its default. `factors` scale the
    /// learning rate of each.
    pub(super) fn build(
        self,
        parameters: &[Parameter],
        weight_decay: f32,
        factors: &[f32],
    ) -> Box<dyn Optimizer> {
        let adam = AdamWConfig {
            weight_decay,
            ..AdamWConfig::default()
        };
        let config = match self {
            OptimizerKind::AdamW => OptimizerConfig::AdamW(adam),
            OptimizerKind::CoatAdamW => OptimizerConfig::CoatAdamW(adam),
            OptimizerKind::SgdSai => OptimizerConfig::SgdSai(SgdSaiConfig {
                weight_decay,
                ..SgdSaiConfig::default()
            }),
        };
        config.build(parameters, factors)
    }
}

/// A state: per array the length of its name, the name, its type, its number of values, the values; all
/// little-endian.
pub(super) fn to_bytes(state: Vec<StateArray>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for StateArray { name, data } in state {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name.as_bytes());
        let mut values = |kind: u8, count: usize, values: Vec<u8>| {
            bytes.push(kind);
            bytes.extend((count as u64).to_le_bytes());
            bytes.extend(values);
        };
        match data {
            StateData::F32(x) => {
                values(0, x.len(), x.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            StateData::U8(x) => values(1, x.len(), x),
            StateData::U64(x) => {
                values(2, x.len(), x.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            other => unreachable!("{other:?} is none of an optimiser's types"),
        }
    }
    bytes
}

/// The state in some bytes; none when they are not one.
pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Vec<StateArray>> {
    let mut state = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(*take(&mut bytes)?) as usize;
        let (name, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        let [kind] = *take::<1>(&mut bytes)?;
        let count = usize::try_from(u64::from_le_bytes(*take(&mut bytes)?)).ok()?;
        let size = [4, 1, 8].get(usize::from(kind))?;
        let (values, rest) = bytes.split_at_checked(count.checked_mul(*size)?)?;
        bytes = rest;
        let data = match kind {
            0 => StateData::F32(
                values
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b))
                    .collect(),
            ),
            1 => StateData::U8(values.to_vec()),
            _ => StateData::U64(
                values
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| u64::from_le_bytes(*b))
                    .collect(),
            ),
        };
        let name = String::from_utf8(name.to_vec()).ok()?;
        state.push(StateArray { name, data });
    }
    Some(state)
}

fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_bytes() {
        let array = |name: &str, data| StateArray {
            name: name.into(),
            data,
        };
        let state = vec![
            array("steps", StateData::U64(vec![7, u64::MAX])),
            array(
                "first/größe",
                StateData::F32(vec![1.5, -0.0, f32::INFINITY]),
            ),
            array("codes", StateData::U8(vec![])),
        ];
        let bytes = to_bytes(state.clone());
        assert_eq!(from_bytes(&bytes), Some(state));
        assert!((1..18).all(|cut| from_bytes(&bytes[..bytes.len() - cut]).is_none()));
    }
}
