//! Golden vectors of a sealed draft.

use ampoule_runtime::artifact::golden_input;
use ampoule_runtime::{DType, Isa};

use crate::model::{Compiled, Model, ModelError};

/// Seeds of the vectors stored in every artifact.
const SEEDS: [u32; 2] = [1, 2];

/// Runs the draft on generated inputs and returns seed and output bytes.
///
/// Programs with float steps get none: their last bits may differ between instruction sets.
pub(super) fn vectors(draft: &Compiled) -> Result<Vec<(u32, Vec<u8>)>, ModelError> {
    let floats = |id: u16| draft.program.tensor(id).dtype == DType::F32;
    if draft.program.steps.iter().any(|s| floats(s.output())) {
        return Ok(Vec::new());
    }
    let mut model = Model::from_bytes(draft.bytes.clone())?;
    let mut session = model.session(Isa::best())?;
    let inputs = session.artifact().inputs().count();
    let outputs = session.artifact().outputs().count();
    SEEDS
        .into_iter()
        .map(|seed| {
            for i in 0..inputs {
                let dtype = session.input(i)?.tensor.dtype;
                golden_input(seed.wrapping_add(i as u32), dtype, session.input_bytes(i)?);
            }
            session.run()?;
            let mut bytes = Vec::new();
            for o in 0..outputs {
                bytes.extend_from_slice(session.output_bytes(o)?);
            }
            Ok((seed, bytes))
        })
        .collect()
}
