//! The two norms: RMS norm of the hidden states, and layer norm of each query and key head.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use lumina_core::Loader;

/// RMS norm as the original rounds it: all in `f32`, once to the input's type, then times the weight.
///
/// Mirrors `modeling_chameleon.py::ChameleonRMSNorm`.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(loader: &Loader<'_>, width: usize, epsilon: f64) -> Self {
        Self { weight: loader.param("weight", [width]), epsilon }
    }

    /// `[n, hidden]` → `[n, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let wide = x.cast(DType::F32);
        let inverse = (wide.clone().square().mean_dim(1) + self.epsilon).sqrt().recip();
        (wide * inverse).cast(dtype) * self.weight.val().cast(dtype).unsqueeze()
    }
}

/// Layer norm over each head's width, with weights of its own for each group of consecutive heads.
///
/// The checkpoint's rows, one a part of the parallel training or one a head, each serve `heads / rows` heads.
/// Mirrors `modeling_chameleon.py::ChameleonLayerNorm`.
#[derive(Module, Debug)]
pub(crate) struct HeadNorm {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<2>>,
    heads: usize,
}

const EPSILON: f64 = 1e-5;

impl HeadNorm {
    /// `parts` is the number of rows that the config promises; a checkpoint with a row a head is taken as well.
    pub(crate) fn new(loader: &Loader<'_>, heads: usize, parts: usize, head_dim: usize) -> Self {
        let per_head = loader.shape("weight").is_some_and(|shape| shape == [heads, head_dim]);
        let rows = if per_head { heads } else { parts };
        Self { weight: loader.param("weight", [rows, head_dim]), bias: loader.param("bias", [rows, head_dim]), heads }
    }

    /// `[n, heads, head_dim]` → the same.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let dtype = x.dtype();
        let wide = x.cast(DType::F32);
        let centred = wide.clone() - wide.mean_dim(2);
        let inverse = (centred.clone().square().mean_dim(2) + EPSILON).sqrt().recip();
        (centred * inverse).cast(dtype) * self.of_heads(&self.weight, dtype) + self.of_heads(&self.bias, dtype)
    }

    /// The rows repeated for the heads that they serve, `[1, heads, head_dim]`.
    fn of_heads(&self, rows: &Param<Tensor<2>>, dtype: DType) -> Tensor<3> {
        let rows = rows.val().cast(dtype);
        let [parts, head_dim] = rows.dims();
        let each: Tensor<3> = rows.reshape([parts, 1, head_dim]).expand([parts, self.heads / parts, head_dim]);
        each.reshape([1, self.heads, head_dim])
    }
}
