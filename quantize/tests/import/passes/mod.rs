//! Each pass on small graphs: what it makes of them, and that the function stays the same.

mod affine;
mod attention;
mod branches;
mod fusion;
mod layout;
mod patterns;
mod tidying;

use ampoule_quantize::graph::{Graph, GraphError, Op, ReduceKind, ValueId};
use ampoule_quantize::passes::{self, Pass};
use ampoule_runtime::ops::Window;
use ampoule_runtime::ops::binary::BinaryKind;
use ampoule_runtime::ops::unary::UnaryKind;

use crate::fixtures::{difference, noise, run, source_shape, summary};
use crate::interpret::interpret;

const TO_NCHW: [usize; 4] = [0, 3, 1, 2];
const TO_NHWC: [usize; 4] = [0, 2, 3, 1];

/// A graph under construction; names are numbers.
#[derive(Default)]
struct Build(Graph);

impl Build {
    fn input(&mut self, shape: &[usize]) -> ValueId {
        let name = format!("x{}", self.0.inputs.len());
        self.0.input(&name, shape)
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let name = format!("n{}", self.0.nodes.len());
        self.0.push(&name, op, inputs).unwrap()
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let seed = self.0.values.len() as u64 + 7;
        let data = noise(shape.iter().product(), seed);
        self.0.constant_value("c", shape, data)
    }

    fn number(&mut self, x: f32) -> ValueId {
        self.0.constant_value("c", &[], vec![x])
    }

    fn unary(&mut self, kind: UnaryKind, x: ValueId) -> ValueId {
        self.push(Op::Unary(kind), &[x])
    }

    fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> ValueId {
        self.push(
            Op::Binary {
                kind,
                activation: None,
            },
            &[a, b],
        )
    }

    fn with(&mut self, kind: BinaryKind, x: ValueId, c: f32) -> ValueId {
        let c = self.number(c);
        self.binary(kind, x, c)
    }

    /// A convolution of an NHWC map.
    fn conv(&mut self, x: ValueId, outputs: usize, kernel: u16, pad: u16) -> ValueId {
        let channels = self.0.shape(x)[3];
        let side = usize::from(kernel);
        let w = self.constant(&[outputs, side, side, channels]);
        let b = self.constant(&[outputs]);
        let window = Window {
            kernel: [kernel; 2],
            pad: [pad; 4],
            ..Window::POINT
        };
        self.push(
            Op::Conv {
                window,
                groups: 1,
                residual: false,
                activation: None,
            },
            &[x, w, b],
        )
    }

    fn linear(&mut self, x: ValueId, outputs: usize) -> ValueId {
        let inputs = *self.0.shape(x).last().unwrap();
        let (w, b) = (self.constant(&[outputs, inputs]), self.constant(&[outputs]));
        self.push(
            Op::Linear {
                residual: false,
                activation: None,
            },
            &[x, w, b],
        )
    }

    /// [`Build::conv`] of an NCHW map, between transposes as import makes it.
    fn conv_nchw(&mut self, x: ValueId, outputs: usize) -> ValueId {
        let x = self.push(Op::Transpose(TO_NHWC.to_vec()), &[x]);
        let y = self.conv(x, outputs, 3, 1);
        self.push(Op::Transpose(TO_NCHW.to_vec()), &[y])
    }

    fn mean(&mut self, x: ValueId, axes: &[usize]) -> ValueId {
        self.push(
            Op::Reduce {
                kind: ReduceKind::Mean,
                axes: axes.to_vec(),
            },
            &[x],
        )
    }

    /// Declares the output, applies `pass` until it rests, checks the function and counts the nodes.
    fn after(mut self, pass: Pass, y: ValueId) -> String {
        self.0.output("y", y);
        let mut rounds = 0;
        self.compare(|graph| {
            while pass(graph)? > 0 {
                graph.validate()?;
                rounds += 1;
                assert!(rounds < 20, "the pass does not come to rest");
            }
            Ok(())
        })
    }

    /// The same with all passes.
    fn optimised(mut self, y: ValueId) -> String {
        self.0.output("y", y);
        self.compare(|graph| passes::optimise(graph, Some(&mut |_, graph| graph.validate())))
    }

    fn compare(mut self, f: impl FnOnce(&mut Graph) -> Result<(), GraphError>) -> String {
        self.0.validate().unwrap();
        let shapes = |g: &Graph| {
            g.inputs
                .iter()
                .map(|p| source_shape(g, p))
                .collect::<Vec<_>>()
        };
        let before = shapes(&self.0);
        let inputs: Vec<Vec<f32>> = before
            .iter()
            .enumerate()
            .map(|(i, s)| noise(s.iter().product(), i as u64))
            .collect();
        let expected = run(&self.0, interpret, &inputs).unwrap();
        f(&mut self.0).unwrap();
        self.0.validate().unwrap();
        assert_eq!(shapes(&self.0), before);
        let got = run(&self.0, interpret, &inputs).unwrap();
        let d = got
            .iter()
            .zip(&expected)
            .map(|(g, e)| difference(g, e))
            .fold(0.0, f32::max);
        assert!(d < 1e-5, "differs by {d}: {}", summary(&self.0));
        summary(&self.0)
    }
}

fn window(kernel: u16, stride: u16, pad: [u16; 4]) -> Window {
    Window {
        kernel: [kernel; 2],
        stride: [stride; 2],
        pad,
        ..Window::POINT
    }
}
