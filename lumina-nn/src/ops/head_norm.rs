//! QK-norm and rotary positions.

use lumina_kernels::norm::head_norm::{self as kernel, HeadNormParams, HeadNormShape};

use super::hidden::{Activation, Hidden};
use super::values::Values;

/// Layer norm over each head's width, then rotary positions.
///
/// `x` is `[n, heads · head_dim]`. The rows of `weight` and `bias`, `[parts, head_dim]`, each serve `heads / parts`
/// consecutive heads. Then pairs (i, i + head_dim / 2) are rotated by the angles whose cosines and sines are `cos` and
/// `sin`, `[n, head_dim / 2]`. The result has the shape of `x`.
///
/// Mirrors `modeling_chameleon.py::ChameleonLayerNorm` and `apply_rotary_pos_emb`.
pub fn head_norm_rotated(
    x: &Hidden,
    weight: &Values<2>,
    bias: &Values<2>,
    (cos, sin): (&Hidden, &Hidden),
    epsilon: f64,
) -> Hidden {
    let [_, width] = x.dims();
    let [parts, head_dim] = weight.dims();
    let heads = width.checked_div(head_dim).unwrap_or(0);
    match (&x.0, weight.slice(), bias.slice(), &cos.0, &sin.0) {
        (Activation::Host(x), Some(weight), Some(bias), Activation::Host(cos), Activation::Host(sin)) => {
            let mut y = x.sibling(width);
            let params = HeadNormParams { weight, bias, cos: &cos.values, sin: &sin.values };
            let shape = HeadNormShape { heads, head_dim, weight_rows: parts, epsilon: epsilon as f32 };
            kernel::forward_into(&x.values, params, &shape, &mut y.values);
            y.into()
        }
        _ => in_tensors!(x => super::burn::head_norm_rotated(x, [weight, bias], [cos, sin], epsilon)),
    }
}
