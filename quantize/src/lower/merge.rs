//! Token merging.

use ampoule_runtime::DType;
use ampoule_runtime::artifact::Step;
use ampoule_runtime::ops::merge::Matching;

use super::{LowerError, Lowering};
use crate::graph::Node;
use crate::program::Stage;

impl Lowering<'_> {
    /// Lowers a matching, which reads keys in the type that they have.
    pub(super) fn match_tokens(
        &mut self,
        node: &Node,
        matching: &Matching,
    ) -> Result<(), LowerError> {
        let keys = node.inputs[0];
        let is_i8 = self.find(keys, Stage::Post, DType::I8).is_some();
        let (dtype, bytes) = match is_i8 {
            true => (DType::I8, matching.scratch_bytes::<i8>()),
            false => (DType::F32, matching.scratch_bytes::<f32>()),
        };
        let step = Step::Match {
            k: self.operand(keys, dtype)?,
            y: self.result(node.output, Stage::Post, DType::I32)?,
            matching: *matching,
            scratch: self.working_memory(node, bytes)?,
        };
        self.program
            .push(&node.name, self.graph.node_macs(node), step);
        Ok(())
    }

    /// Lowers the averages of tokens, or the sums of their sizes.
    pub(super) fn merge(&mut self, node: &Node, dtype: DType) -> Result<(), LowerError> {
        let y = self.result(node.output, Stage::Post, dtype)?;
        let step = Step::Merge {
            x: self.same_parameters(node, node.inputs[0], y, dtype)?,
            places: self.operand(node.inputs[1], DType::I32)?,
            sizes: match node.inputs.get(2) {
                Some(&sizes) => Some(self.operand(sizes, DType::I32)?),
                None => None,
            },
            y,
        };
        self.program.push(&node.name, 0, step);
        Ok(())
    }
}
