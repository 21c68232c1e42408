//! What can be wrong with a graph.

use std::collections::HashSet;

use thiserror::Error;

use super::{Graph, infer_shape};

/// A graph breaks a rule; says which node.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Wrong number of operands.
    #[error("node `{node}` ({op}): expected {expected} operands, got {got}")]
    Arity {
        /// Node name.
        node: String,
        /// Operator name.
        op: &'static str,
        /// Expected operand count.
        expected: usize,
        /// Found operand count.
        got: usize,
    },
    /// Operand shapes that do not go together.
    #[error("node `{node}` ({op}): {what}; operand shapes {shapes:?}")]
    Shape {
        /// Node name.
        node: String,
        /// Operator name.
        op: &'static str,
        /// The rule that is broken.
        what: String,
        /// Shapes of the operands.
        shapes: Vec<Vec<usize>>,
    },
    /// A node reads a value that nothing produced before it.
    #[error("node `{node}` reads `{value}` before it is produced")]
    Order {
        /// Node name.
        node: String,
        /// Value name.
        value: String,
    },
    /// A graph output that nothing produces.
    #[error("output `{0}` is never produced")]
    NoProducer(String),
}

impl Graph {
    /// Checks execution order, single producers and every shape.
    pub fn validate(&self) -> Result<(), GraphError> {
        let mut known: HashSet<_> = self.inputs.iter().map(|p| p.value).collect();
        let is_constant = |v| self.constant(v).is_some();
        for node in &self.nodes {
            if let Some(v) = node
                .inputs
                .iter()
                .find(|v| !known.contains(v) && !is_constant(**v))
            {
                return Err(GraphError::Order {
                    node: node.name.clone(),
                    value: self.value(*v).name.clone(),
                });
            }
            let shape = infer_shape(self, &node.name, &node.op, &node.inputs)?;
            if shape != self.shape(node.output) || !known.insert(node.output) {
                return Err(GraphError::Shape {
                    node: node.name.clone(),
                    op: node.op.name(),
                    what: format!(
                        "result {shape:?} does not match value {:?}",
                        self.shape(node.output)
                    ),
                    shapes: node
                        .inputs
                        .iter()
                        .map(|&v| self.shape(v).to_vec())
                        .collect(),
                });
            }
        }
        match self
            .outputs
            .iter()
            .find(|p| !known.contains(&p.value) && !is_constant(p.value))
        {
            Some(port) => Err(GraphError::NoProducer(port.name.clone())),
            None => Ok(()),
        }
    }
}
