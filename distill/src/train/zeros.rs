//! Weights that stay zero.

use ampoule_distill_kernels::graph::{Kind, Parameter};

/// Places of a network's weights that are zero from the start, as pruning leaves them.
#[derive(Debug, Clone)]
pub(super) struct Zeros {
    /// Per parameter, which of its values; ascending.
    places: Vec<Vec<u32>>,
}

impl Zeros {
    /// Those of the weights of layers; biases, norms and statistics may well be zero and still learn.
    pub(super) fn of(parameters: &[Parameter], values: &[Vec<f32>]) -> Self {
        let of_parameter = |(parameter, values): (&Parameter, &Vec<f32>)| {
            let places = (0..).zip(values).filter(|(_, v)| **v == 0.0);
            match parameter.kind {
                Kind::Weight => places.map(|(i, _)| i).collect(),
                _ => Vec::new(),
            }
        };
        Zeros {
            places: parameters.iter().zip(values).map(of_parameter).collect(),
        }
    }

    /// Sets values of the parameters, or their gradients, to zero there.
    pub(super) fn restore(&self, values: &mut [Vec<f32>]) {
        for (values, places) in values.iter_mut().zip(&self.places) {
            for &i in places {
                values[i as usize] = 0.0;
            }
        }
    }
}
