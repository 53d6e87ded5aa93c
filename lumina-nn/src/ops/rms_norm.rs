//! RMS norm.

use burn::tensor::{DType, Tensor};

use super::hidden::{Hidden, Place, Values};
use lumina_kernels::norm::rms_norm as rms_norm_kernel;

/// RMS norm over the last axis of `x` `[n, hidden]`, times `weight` `[hidden]`: the same shape.
///
/// Rounds as the original does: all in `f32`, once to the type of `x`, then times the weight in that type.
/// Mirrors `modeling_chameleon.py::ChameleonRMSNorm`.
pub fn rms_norm(x: &Hidden, weight: &Values<1>, epsilon: f64) -> Hidden {
    if let (Place::Host(x), Some(weight)) = (&x.0, weight.slice()) {
        let mut y = x.sibling(x.width);
        let mut inverses = x.sibling(1).values;
        rms_norm_kernel::into(&x.values, weight, epsilon as f32, &mut y.values, &mut inverses);
        return y.into();
    }
    of_tensors(x.to_tensor(&weight.device()), weight.tensor(), epsilon).into()
}

fn of_tensors(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::rms_norm(&x, &weight, epsilon) {
        return y;
    }
    let dtype = x.dtype();
    let wide = x.cast(DType::F32);
    let inverse = (wide.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    (wide * inverse).cast(dtype) * weight.cast(dtype).unsqueeze()
}
