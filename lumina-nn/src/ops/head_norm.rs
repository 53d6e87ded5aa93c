//! Layer norm of each head, and rotary positions.

use burn::tensor::{DType, Tensor};

use super::hidden::{Hidden, Place, Values};
use lumina_kernels::norm::head_norm as head_norm_kernel;
use lumina_kernels::norm::head_norm::{Factors, Shape};

/// Layer norm over each head's width, and the rotation that tells positions apart.
///
/// `x` is `[n, heads · head_dim]`; the rows of `weight` and `bias`, `[parts, head_dim]`, each serve `heads / parts`
/// consecutive heads. Then pairs (i, i + head_dim / 2) are turned by the angles whose cosines and sines are `cos` and
/// `sin`, `[n, head_dim / 2]`. The result is as `x`.
///
/// Mirrors `modeling_chameleon.py::ChameleonLayerNorm` and `apply_rotary_pos_emb`.
pub fn head_norm_rotated(
    x: &Hidden,
    weight: &Values<2>,
    bias: &Values<2>,
    (cos, sin): (&Hidden, &Hidden),
    epsilon: f64,
) -> Hidden {
    let [n, width] = x.dims();
    let [parts, head_dim] = weight.dims();
    let heads = width.checked_div(head_dim).unwrap_or(0);
    if let (Place::Host(x), Some(weight), Some(bias)) = (&x.0, weight.slice(), bias.slice())
        && let (Place::Host(cos), Place::Host(sin)) = (&cos.0, &sin.0)
    {
        let mut y = x.sibling(width);
        let factors = Factors { weight, bias, cos: &cos.values, sin: &sin.values };
        let shape = Shape { heads, head_dim, parts, epsilon: epsilon as f32 };
        head_norm_kernel::into(&x.values, factors, &shape, &mut y.values);
        return y.into();
    }
    let device = weight.device();
    let [cos, sin] = [cos, sin].map(|angles| angles.to_tensor(&device).reshape([n, 1, head_dim / 2]));
    let x = x.to_tensor(&device).reshape([n, heads, head_dim]);
    let y = of_tensors(x, weight.tensor(), bias.tensor(), (cos, sin), epsilon);
    y.reshape([n, width]).into()
}

fn of_tensors(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<2>,
    (cos, sin): (Tensor<3>, Tensor<3>),
    epsilon: f64,
) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::head_norm_rotated(&x, &weight, &bias, (&cos, &sin), epsilon) {
        return y;
    }
    let [_, heads, head_dim] = x.dims();
    let dtype = x.dtype();
    let wide = x.cast(DType::F32);
    let centred = wide.clone() - wide.mean_dim(2);
    let inverse = (centred.clone().square().mean_dim(2) + epsilon).sqrt().recip();
    let x = (centred * inverse).cast(dtype) * of_heads(weight.cast(dtype), heads) + of_heads(bias.cast(dtype), heads);
    let half = head_dim / 2;
    let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let turned_second = second * cos + first * sin;
    Tensor::cat(vec![turned_first, turned_second], 2)
}

/// The rows repeated for the heads that they serve, `[1, heads, head_dim]`.
fn of_heads(rows: Tensor<2>, heads: usize) -> Tensor<3> {
    let [parts, head_dim] = rows.dims();
    let each: Tensor<3> = rows.reshape([parts, 1, head_dim]).expand([parts, heads / parts, head_dim]);
    each.reshape([1, heads, head_dim])
}
