//! Shapes of results, and whether a layer fits.

use super::{Attention, Graph, Map, Op, ParameterId, Value};
use crate::ops::depthwise::MAX_TAPS;

type Shape = Result<Map, String>;

impl Graph {
    /// Shape of the result of a layer.
    pub(super) fn shape(&self, op: &Op, inputs: &[Value]) -> Shape {
        let expected = match op {
            Op::Add { .. } => inputs.len().max(1),
            Op::Gate => 2,
            Op::MaskedMean => inputs.len().clamp(2, 3),
            Op::Attention(a) => {
                let inputs = a.lanes.iter().map(|l| l.input).chain(a.mask);
                inputs.max().unwrap_or(0) + 1
            }
            _ => 1,
        };
        if inputs.len() != expected {
            return Err(format!("expected {expected} inputs, got {}", inputs.len()));
        }
        if let Some(v) = inputs.iter().find(|v| v.0 >= self.values.len()) {
            return Err(format!("input {} is not a value of this graph", v.0));
        }
        let x = self.map(inputs[0]);
        let c = x.channels;
        match op {
            Op::Conv {
                weight,
                bias,
                window,
            } => {
                let out = self.dim(*weight, 0)?;
                let [height, width] = output(window, x)?;
                self.has(*weight, out * c * window.taps())?;
                self.has_all(bias, out)?;
                Ok(Map::new(height, width, out))
            }
            Op::Depthwise {
                weight,
                bias,
                window,
            } => {
                if window.taps() > MAX_TAPS {
                    return Err(format!(
                        "kernel of {} places, at most {MAX_TAPS}",
                        window.taps()
                    ));
                }
                let [height, width] = output(window, x)?;
                self.has(*weight, c * window.taps())?;
                self.has_all(bias, c)?;
                Ok(Map::new(height, width, c))
            }
            Op::BatchNorm(n) => {
                [n.weight, n.bias, n.mean, n.variance]
                    .into_iter()
                    .try_for_each(|p| self.has(p, c))?;
                Ok(x)
            }
            Op::LayerNorm { weight, bias, .. } => {
                [*weight, *bias]
                    .into_iter()
                    .try_for_each(|p| self.has(p, c))?;
                Ok(x)
            }
            Op::Activation(_) => Ok(x),
            Op::Attention(a) => self.attention(a, inputs),
            Op::Add { drop_path } => {
                if !(0.0..1.0).contains(drop_path) {
                    return Err(format!(
                        "drop path of {drop_path}, expected at least 0 and below 1"
                    ));
                }
                match inputs.iter().map(|&v| self.map(v)).find(|&m| m != x) {
                    Some(other) => Err(format!("sum of {:?} and {:?}", x.dims(), other.dims())),
                    None => Ok(x),
                }
            }
            Op::Gate => match self.map(inputs[1]) {
                gate if gate == Map::new(1, 1, c) || gate == x => Ok(x),
                gate => Err(format!("gate of {:?} for {:?}", gate.dims(), x.dims())),
            },
            Op::AveragePool(window) | Op::MaxPool(window) => {
                let [height, width] = output(window, x)?;
                Ok(Map::new(height, width, c))
            }
            Op::Mean => Ok(Map::new(1, 1, c)),
            Op::MaskedMean => {
                let per_pixel = Map { channels: 1, ..x };
                match inputs[1..].iter().find(|&&v| self.map(v) != per_pixel) {
                    Some(&v) => Err(format!(
                        "mask or weights of {:?} for {:?}",
                        self.map(v).dims(),
                        x.dims()
                    )),
                    None => Ok(Map::new(1, 1, c)),
                }
            }
            Op::Embedding { table } => {
                let width = self.dim(*table, 1)?;
                self.has(*table, self.dim(*table, 0)? * width)?;
                if c != 1 || !self.inputs.contains(&inputs[0]) {
                    return Err(format!(
                        "rows of a table by {:?}; expected an input of the graph with one channel",
                        x.dims()
                    ));
                }
                Ok(Map {
                    channels: width,
                    ..x
                })
            }
            Op::Positions { table } => {
                self.has(*table, x.len())?;
                Ok(x)
            }
            Op::Tokens { table } => {
                let rows = self.parameters.get(table.0).map_or(0, |p| p.len() / c);
                self.has(*table, rows.max(1) * c)?;
                Ok(Map::new(1, rows + x.pixels(), c))
            }
            Op::Queries { table, size } => {
                let pixels = size[0] * size[1];
                let width = self.dim(*table, 1)?;
                self.has(*table, pixels * width)?;
                match pixels {
                    0 => Err(format!("a map of {size:?}")),
                    _ => Ok(Map::new(size[0], size[1], width)),
                }
            }
            Op::Normalize => Ok(x),
            Op::FakeQuantize { range, .. } => {
                self.has(*range, 2)?;
                Ok(x)
            }
            Op::Pad([down, right]) => Ok(Map::new(x.height + down, x.width + right, c)),
            Op::Crop([down, right]) if *down < x.height && *right < x.width => {
                Ok(Map::new(x.height - down, x.width - right, c))
            }
            Op::Crop(by) => Err(format!("crop by {by:?} of {:?}", x.dims())),
        }
    }

    fn attention(&self, a: &Attention, inputs: &[Value]) -> Shape {
        let x = self.map(inputs[0]);
        for lane in &a.lanes {
            let map = self.map(inputs[lane.input]);
            let last = lane.offset + (a.heads.max(1) - 1) * lane.stride + a.head_size;
            if [map.height, map.width] != [x.height, x.width] || last > map.channels {
                return Err(format!("heads up to channel {last} of {:?}", map.dims()));
            }
            if a.heads > 1 && lane.stride < a.head_size {
                return Err(format!(
                    "heads of {} channels {} apart",
                    a.head_size, lane.stride
                ));
            }
        }
        if let Some(mask) = a.mask.map(|m| self.map(inputs[m]))
            && mask != (Map { channels: 1, ..x })
        {
            return Err(format!("mask of {:?} for {:?}", mask.dims(), x.dims()));
        }
        let window = a.window.unwrap_or([x.height, x.width]);
        let fits = |size: usize, window: usize| window > 0 && size % window == 0;
        if !fits(x.height, window[0]) || !fits(x.width, window[1]) {
            return Err(format!(
                "windows of {window:?} do not divide {:?}; pad the map",
                x.dims()
            ));
        }
        if let Some(bias) = &a.bias {
            let tokens = window[0] * window[1];
            let entries = self.parameters[bias.table.0].len() / a.heads.max(1);
            if bias.index.len() != tokens * tokens {
                return Err(format!("{} indices for {tokens} tokens", bias.index.len()));
            }
            if let Some(i) = bias.index.iter().find(|&&i| i as usize >= entries) {
                return Err(format!("index {i} in a table of {entries} entries"));
            }
        }
        Ok(Map::new(x.height, x.width, a.heads * a.head_size))
    }

    fn dim(&self, parameter: ParameterId, axis: usize) -> Result<usize, String> {
        let p = self
            .parameters
            .get(parameter.0)
            .ok_or("unknown parameter")?;
        p.shape
            .get(axis)
            .copied()
            .ok_or_else(|| format!("`{}` has no axis {axis}", p.name))
    }

    fn has(&self, parameter: ParameterId, len: usize) -> Result<(), String> {
        let p = self
            .parameters
            .get(parameter.0)
            .ok_or("unknown parameter")?;
        if p.len() == len {
            return Ok(());
        }
        Err(format!(
            "`{}` has shape {:?}, expected {len} elements",
            p.name, p.shape
        ))
    }

    fn has_all(&self, parameter: &Option<ParameterId>, len: usize) -> Result<(), String> {
        parameter.map_or(Ok(()), |p| self.has(p, len))
    }
}

fn output(window: &crate::ops::Window, x: Map) -> Result<[usize; 2], String> {
    let fits = window.output([x.height, x.width]);
    fits.ok_or_else(|| format!("{window:?} does not fit {:?}", x.dims()))
}
