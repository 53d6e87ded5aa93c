//! Rotary positions: pairs (i, i + head_dim / 2) are rotated by an angle that grows with the position.

use lumina_nn::Compute;
use lumina_nn::ops::Hidden;
use smallvec::SmallVec;

use super::config::{Architecture, RopeScaling};
use super::row::Row;

/// Cosines and sines of one pass, `[n, head_dim / 2]`, shared by all layers.
///
/// Mirrors `modeling_chameleon.py::ChameleonRotaryEmbedding` with its linear and dynamic scalings.
pub(crate) struct Rotation {
    cos: Hidden,
    sin: Hidden,
}

impl Rotation {
    /// The rotation of the tokens of all rows.
    pub(crate) fn new(architecture: &Architecture, rows: &[Row<'_>], compute: &Compute) -> Self {
        let n: usize = rows.iter().map(Row::len).sum();
        let of_angles = |part: fn(f32) -> f32| {
            Hidden::new(compute, n, architecture.head_dim / 2, |values| write_angles(architecture, rows, part, values))
        };
        Self { cos: of_angles(f32::cos), sin: of_angles(f32::sin) }
    }

    /// Cosines and sines that are on a GPU.
    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu([cos, sin]: [Hidden; 2]) -> Self {
        Self { cos, sin }
    }

    /// Cosines and sines.
    pub(crate) fn factors(&self) -> (&Hidden, &Hidden) {
        (&self.cos, &self.sin)
    }
}

/// Writes `part` of the angle of each token and pair, `[n, head_dim / 2]`.
pub(super) fn write_angles(architecture: &Architecture, rows: &[Row<'_>], part: fn(f32) -> f32, values: &mut [f32]) {
    let half = architecture.head_dim / 2;
    let mut tokens = values.chunks_exact_mut(half.max(1));
    for row in rows {
        let frequencies = frequencies(architecture, row.planned_len());
        for (position, token) in row.positions().zip(&mut tokens) {
            let position = match architecture.rope_scaling {
                RopeScaling::Linear(factor) => position as f32 / factor as f32,
                _ => position as f32,
            };
            token.iter_mut().zip(&frequencies).for_each(|(to, frequency)| *to = part(position * frequency));
        }
    }
}

/// Radians a position, for each pair, in `f32` as the original computes them: 64 in the published models.
fn frequencies(architecture: &Architecture, length: usize) -> SmallVec<[f32; 64]> {
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
