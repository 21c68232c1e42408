//! The cross-attention projector.

use ampoule_distill_kernels::graph::{Activation, Attention, Lane, Map, Op, ParameterId, Value};
use ampoule_distill_kernels::ops::Window;

use crate::zoo::Role;
use crate::zoo::builder::{Builder, Built};

/// Factor of the logits beside that of the head's size.
const SHARPNESS: f32 = 5.0;
/// Most heads; fewer where the channels do not divide.
const HEADS: usize = 8;
/// Hidden units of the perceptron per channel.
const EXPANSION: usize = 4;

/// What the student's map `x` has for each place of a map `to` of the teacher. Places ask with `query`, a map of
/// that size, or with learnt queries. Masks that it needs are added to `masks` with their values.
pub(super) fn add(
    net: &mut Builder,
    x: Value,
    query: Option<Value>,
    to: Map,
    name: &str,
    masks: &mut Vec<(ParameterId, Vec<f32>)>,
) -> Built {
    let own = net.map(x);
    let keys = format!("{name}.keys");
    let y = net.conv(x, &keys, own.channels, Window::square(3, 1), false)?;
    let y = net.batch_norm(y, &format!("{keys}.norm"), Role::Gain, 1e-5, 0.1)?;
    let y = net.activation(y, &keys, Activation::Relu)?;
    let y = net.positions(y, &format!("{name}.positions"))?;
    let queries = format!("{name}.queries");
    let q = match query {
        Some(query) => {
            let q = net.conv(query, &queries, to.channels, Window::POINT, true)?;
            net.activation(q, &queries, Activation::Relu)?
        }
        None => {
            let shape = [to.pixels(), to.channels];
            let table = net.parameter(&queries, "weight", &shape, Role::Embedding);
            let size = [to.height, to.width];
            net.graph
                .push(&queries, Op::Queries { table, size }, &[x])?
        }
    };
    let q = net.linear(q, &format!("{name}.q"), to.channels)?;
    let k = net.linear(y, &format!("{name}.k"), to.channels)?;
    let v = net.linear(y, &format!("{name}.v"), to.channels)?;
    let y = attend(net, [q, k, v], name, masks)?;
    let y = net.linear(y, &format!("{name}.proj"), to.channels)?;
    let y = net.layer_norm(y, &format!("{name}.norm"))?;
    let z = net.linear(y, &format!("{name}.fc1"), EXPANSION * to.channels)?;
    let z = net.activation(z, name, Activation::Gelu)?;
    let z = net.linear(z, &format!("{name}.fc2"), to.channels)?;
    net.add(y, z, name, 0.0)
}

/// Attention of queries on the keys and values of a map of another size: both are padded to one size, and no query
/// sees the padding of keys.
fn attend(
    net: &mut Builder,
    [q, k, v]: [Value; 3],
    name: &str,
    masks: &mut Vec<(ParameterId, Vec<f32>)>,
) -> Built {
    let (to, from) = (net.map(q), net.map(k));
    let size = [to.height.max(from.height), to.width.max(from.width)];
    let beyond = |map: Map| [size[0] - map.height, size[1] - map.width];
    let pad = |net: &mut Builder, x: Value| match beyond(net.map(x)) {
        [0, 0] => Ok(x),
        by => net.graph.push(name, Op::Pad(by), &[x]),
    };
    let mut inputs = vec![pad(net, q)?, pad(net, k)?, pad(net, v)?];
    let is_masked = beyond(from) != [0, 0];
    if is_masked {
        let shape = [size[0] * size[1], 1];
        let table = net.parameter(name, "mask", &shape, Role::Mean);
        let places = (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x)));
        let seen = places.map(|(y, x)| f32::from(y < from.height && x < from.width));
        masks.push((table, seen.collect()));
        inputs.push(net.graph.push(name, Op::Queries { table, size }, &[k])?);
    }
    let c = to.channels;
    let heads = (1..=HEADS.min(c)).rev().find(|h| c % h == 0).unwrap_or(1);
    let head_size = c / heads;
    let lane = |input| Lane {
        input,
        offset: 0,
        stride: head_size,
    };
    let op = Op::Attention(Attention {
        heads,
        head_size,
        scale: SHARPNESS * (head_size as f32).powf(-0.5),
        lanes: [0, 1, 2].map(lane),
        window: None,
        bias: None,
        causal: false,
        mask: is_masked.then_some(3),
    });
    let y = net.graph.push(name, op, &inputs)?;
    net.crop(y, name, beyond(to))
}
