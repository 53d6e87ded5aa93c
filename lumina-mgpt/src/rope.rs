//! Rotary positions: pairs (i, i + head_dim / 2) are turned by an angle that grows with the position.

use burn::tensor::{DType, Tensor, TensorData};
use lumina_core::Compute;

use crate::config::{Architecture, RopeScaling};
use crate::transformer::Run;

/// Cosines and sines of one pass, `[n, 1, head_dim / 2]`, shared by all layers.
///
/// Mirrors `modeling_chameleon.py::ChameleonRotaryEmbedding` with its linear and dynamic scalings.
pub(crate) struct Rotation {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Rotation {
    /// The rotation of the tokens of all rows.
    pub(crate) fn new(architecture: &Architecture, runs: &[Run], compute: &Compute) -> Self {
        let half = architecture.head_dim / 2;
        let n: usize = runs.iter().map(|run| run.len).sum();
        let (mut cos, mut sin) = (Vec::with_capacity(n * half), Vec::with_capacity(n * half));
        for run in runs {
            let frequencies = frequencies(architecture, run.planned_len);
            for position in run.position..run.position + run.len {
                let position = match architecture.rope_scaling {
                    RopeScaling::Linear(factor) => position as f32 / factor as f32,
                    _ => position as f32,
                };
                for frequency in &frequencies {
                    let (sine, cosine) = (position * frequency).sin_cos();
                    cos.push(cosine);
                    sin.push(sine);
                }
            }
        }
        let (device, dtype) = compute.options();
        let tensor =
            |values| Tensor::<3>::from_data(TensorData::new(values, [n, 1, half]), (device, DType::F32)).cast(dtype);
        Self { cos: tensor(cos), sin: tensor(sin) }
    }

    /// Cosines and sines.
    pub(crate) fn factors(&self) -> (Tensor<3>, Tensor<3>) {
        (self.cos.clone(), self.sin.clone())
    }
}

/// Radians a position, for each pair, in `f32` as the original computes them.
fn frequencies(architecture: &Architecture, length: usize) -> Vec<f32> {
    let width = architecture.head_dim as f64;
    let max = architecture.max_positions as f64;
    let base = match architecture.rope_scaling {
        RopeScaling::Dynamic(factor) if length > architecture.max_positions && width > 2.0 => {
            let grown = factor * length as f64 / max - (factor - 1.0);
            architecture.rope_theta * grown.powf(width / (width - 2.0))
        }
        _ => architecture.rope_theta,
    };
    (0..architecture.head_dim / 2)
        .map(|pair| {
            let exponent = (2 * pair) as f32 / architecture.head_dim as f32;
            1.0 / (base as f32).powf(exponent)
        })
        .collect()
}
