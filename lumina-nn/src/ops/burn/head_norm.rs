//! QK-norm and rotary positions on tensors.

use burn::tensor::{DType, Tensor};
use lumina_kernels::norm::head_norm::{self as cpu, HeadNormParams, HeadNormShape};

use super::first_device;
use super::kernel::{Array, Constant, Gradient, Kernel, Operand, View, operands, run};
use crate::ops::hidden::Hidden;
use crate::ops::values::Values;

/// `x` `[n, heads · head_dim]`, weight and bias `[parts, head_dim]`, cosines and sines `[n, head_dim / 2]`.
pub(in crate::ops) fn head_norm_rotated(
    x: &Hidden,
    [weight, bias]: [&Values<2>; 2],
    angles: [&Hidden; 2],
    epsilon: f64,
) -> Hidden {
    let ([n, width], [_, head_dim]) = (x.dims(), weight.dims());
    let device = first_device([weight.device(), x.device()]);
    let angles = angles.map(|angles| angles.to_tensor(&device).reshape([n, 1, head_dim / 2]));
    let x = x.to_tensor(&device).reshape([n, width.checked_div(head_dim).unwrap_or(0), head_dim]);
    let y = of_heads(x, weight.tensor(&device), bias.tensor(&device), angles, epsilon);
    y.reshape([n, width]).into()
}

/// `x` `[n, heads, head_dim]`, cosines and sines `[n, 1, head_dim / 2]`.
fn of_heads(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<2>, [cos, sin]: [Tensor<3>; 2], epsilon: f64) -> Tensor<3> {
    let [n, heads, head_dim] = x.dims();
    let [parts, _] = weight.dims();
    let fits = weight.dims() == [parts, head_dim]
        && bias.dims() == weight.dims()
        && cos.dims() == [n, 1, head_dim / 2]
        && sin.dims() == cos.dims()
        && parts > 0
        && heads > 0
        && heads.is_multiple_of(parts)
        && head_dim >= 2
        && head_dim.is_multiple_of(2);
    let all = operands([Operand::of(&x), Operand::of(&weight), Operand::of(&bias)]).filter(|_| fits);
    match (all, Constant::of(&cos), Constant::of(&sin)) {
        (Some(operands), Some(cos), Some(sin)) => {
            let shape = HeadNormShape { heads, head_dim, weight_rows: parts, epsilon: epsilon as f32 };
            run(HeadNorm { shape, cos, sin }, operands)
        }
        _ => composed(x, weight, bias, [cos, sin], epsilon),
    }
}

fn composed(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<2>, [cos, sin]: [Tensor<3>; 2], epsilon: f64) -> Tensor<3> {
    let [_, heads, head_dim] = x.dims();
    let dtype = x.dtype();
    let wide = x.cast(DType::F32);
    let centred = wide.clone() - wide.mean_dim(2);
    let inverse = (centred.clone().square().mean_dim(2) + epsilon).sqrt().recip();
    let normed = (centred * inverse).cast(dtype);
    let x = normed * repeated(weight.cast(dtype), heads) + repeated(bias.cast(dtype), heads);
    let half = head_dim / 2;
    let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let rotated_second = second * cos + first * sin;
    Tensor::cat(vec![rotated_first, rotated_second], 2)
}

/// The rows repeated for the heads that they serve, `[1, heads, head_dim]`.
fn repeated(rows: Tensor<2>, heads: usize) -> Tensor<3> {
    let [parts, head_dim] = rows.dims();
    let each: Tensor<3> = rows.reshape([parts, 1, head_dim]).expand([parts, heads / parts, head_dim]);
    each.reshape([1, heads, head_dim])
}

#[derive(Debug, Clone)]
struct HeadNorm {
    shape: HeadNormShape,
    cos: Constant,
    sin: Constant,
}

impl HeadNorm {
    fn params<'a>(&'a self, weight: View<'a>, bias: View<'a>) -> HeadNormParams<'a> {
        HeadNormParams { weight: weight.values, bias: bias.values, cos: self.cos.values(), sin: self.sin.values() }
    }
}

impl Kernel<3> for HeadNorm {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: [View<'_>; 3]) -> (Array, ()) {
        (x.like(cpu::forward(x.values, self.params(weight, bias), &self.shape)), ())
    }

    fn backward(&self, [x, weight, bias]: [View<'_>; 3], (): (), dy: &[f32], _: [bool; 3]) -> [Option<Gradient>; 3] {
        let cpu::HeadNormGradients { dx, dweight, dbias } =
            cpu::backward(x.values, self.params(weight, bias), &self.shape, dy);
        [dx, dweight, dbias].map(|gradient| Some(gradient.into()))
    }
}
