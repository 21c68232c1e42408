//! Values that a task never changes.

use super::error::PruneError;
use super::structured::distance;
use crate::graph::Graph;
use crate::passes::dead;

/// Makes the value of a name, or the result of the node of that name, a constant.
///
/// `values` are its elements, row-major; one number alone stands for all of them. What only led to it goes;
/// [`passes::rewrite`](crate::passes::rewrite) then takes away what becomes a multiplication by zero. With the output of
/// the gate of a mixture of experts fixed to what it says in one task, experts that this task never asks are gone.
///
/// ```
/// use ampoule_quantize::graph::{Graph, Op};
/// use ampoule_quantize::{passes, prune};
/// use ampoule_runtime::ops::{binary::BinaryKind, unary::UnaryKind};
/// let mut g = Graph::default();
/// let x = g.input("x", &[1, 4]);
/// let gate = g.push("gate", Op::Unary(UnaryKind::Sigmoid), &[x])?;
/// let expert = g.push("expert", Op::Unary(UnaryKind::Square), &[x])?;
/// let op = |kind| Op::Binary { kind, activation: None };
/// let gated = g.push("gated", op(BinaryKind::Mul), &[expert, gate])?;
/// let sum = g.push("sum", op(BinaryKind::Add), &[x, gated])?;
/// let y = g.push("relu", Op::Unary(UnaryKind::Relu), &[sum])?;
/// g.output("y", y);
/// prune::fix(&mut g, "gate", &[0.0])?;
/// passes::rewrite(&mut g)?;
/// assert_eq!(g.nodes.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// No computed value has that name, or it has another number of elements.
pub fn fix(graph: &mut Graph, name: &str, values: &[f32]) -> Result<(), PruneError> {
    let found = graph
        .nodes
        .iter()
        .position(|n| n.name == name || graph.value(n.output).name == name);
    let Some(at) = found else {
        let names = graph.nodes.iter();
        let names = names.flat_map(|n| [&n.name[..], &graph.value(n.output).name]);
        return Err(PruneError::NoSuchValue {
            name: name.to_owned(),
            nearest: names
                .min_by_key(|n| distance(n, name))
                .unwrap_or_default()
                .to_owned(),
        });
    };
    let output = graph.nodes[at].output;
    let shape = graph.shape(output).to_vec();
    let expected = shape.iter().product();
    let data = match values {
        [one] => vec![*one; expected],
        _ if values.len() == expected => values.to_vec(),
        _ => {
            return Err(PruneError::Values {
                name: name.to_owned(),
                shape,
                got: values.len(),
            });
        }
    };
    graph.nodes.remove(at);
    graph.value_mut(output).data = Some(data.into());
    dead::run(graph)?;
    Ok(())
}
