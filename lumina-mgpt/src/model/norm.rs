//! The two norms: RMS norm of the hidden states, and layer norm of each query and key head.

use lumina_nn::Loader;
use lumina_nn::ops::{Hidden, Values, add_rms_norm, head_norm_rotated, rms_norm};

use super::rope::Rotation;

/// RMS norm as the original rounds it: all in `f32`, once to the input's type, then times the weight.
///
/// Mirrors `modeling_chameleon.py::ChameleonRMSNorm`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Values<1>,
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(loader: &Loader<'_>, width: usize, epsilon: f64) -> Self {
        Self { weight: loader.values("weight", [width]), epsilon }
    }

    /// `[n, hidden]` → `[n, hidden]`.
    pub(crate) fn forward(&self, x: &Hidden) -> Hidden {
        rms_norm(x, &self.weight, self.epsilon)
    }

    /// `x + y`, `[n, hidden]`, and its norm.
    pub(crate) fn add_forward(&self, x: Hidden, y: Hidden) -> (Hidden, Hidden) {
        add_rms_norm(x, y, &self.weight, self.epsilon)
    }
}

/// Layer norm over each head's width, with weights of its own for each group of consecutive heads.
///
/// The checkpoint has a row for each part of the parallel training, or one for each head; a row serves `heads / rows`
/// heads. Mirrors `modeling_chameleon.py::ChameleonLayerNorm`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) struct HeadNorm {
    weight: Values<2>,
    bias: Values<2>,
}

pub(super) const EPSILON: f64 = 1e-5;

impl HeadNorm {
    /// `parts` is the number of rows that the config states. A checkpoint with a row for each head is read as well.
    pub(crate) fn new(loader: &Loader<'_>, heads: usize, parts: usize, head_dim: usize) -> Self {
        let per_head = loader.shape("weight").is_some_and(|shape| shape == [heads, head_dim]);
        let rows = if per_head { heads } else { parts };
        Self { weight: loader.values("weight", [rows, head_dim]), bias: loader.values("bias", [rows, head_dim]) }
    }

    /// Weight and bias, `[parts, head_dim]`.
    #[cfg(feature = "cube")]
    pub(super) fn parameters(&self) -> (&Values<2>, &Values<2>) {
        (&self.weight, &self.bias)
    }

    /// `[n, heads · head_dim]` → the same, with rotary positions.
    pub(crate) fn forward(&self, x: &Hidden, rotation: &Rotation) -> Hidden {
        head_norm_rotated(x, &self.weight, &self.bias, rotation.factors(), EPSILON)
    }
}
