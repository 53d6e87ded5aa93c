//! Products with weights, on tensors.

use std::ops::Range;

use burn::tensor::Tensor;
use lumina_kernels::ActivationPrecision;
use lumina_kernels::matmul::bf16_gemm;
use lumina_kernels::matmul::f32_gemm::Operand::{Normal, Transposed};
use lumina_kernels::matmul::f32_gemm::{self, GemmShape};

use super::first_device;
use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};
use crate::ops::hidden::Hidden;
use crate::ops::values::Values;

/// `x · Wᵀ` with some rows of `weight` `[outputs, inputs]`: `[n, inputs]` → `[n, rows.len()]`.
pub(in crate::ops) fn linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    rows: Range<usize>,
    precision: ActivationPrecision,
) -> Tensor<2> {
    let weight = if rows.len() == weight.dims()[0] { weight } else { weight.narrow(0, rows.start, rows.len()) };
    let weight = weight.cast(x.dtype());
    match operands([Operand::of(&x), Operand::of(&weight)]) {
        Some(operands) => run(Linear { precision }, operands),
        None => x.matmul(weight.transpose()),
    }
}

/// Adds some outputs' part of a bias to each row.
pub(in crate::ops) fn add_bias(y: Hidden, bias: &Values<1>, outputs: Range<usize>) -> Hidden {
    let device = first_device([bias.device(), y.device()]);
    let (y, bias) = (y.into_tensor(&device), bias.tensor(&device));
    let bias = if outputs.len() == bias.dims()[0] { bias } else { bias.narrow(0, outputs.start, outputs.len()) };
    let bias = bias.cast(y.dtype()).unsqueeze();
    (y + bias).into()
}

/// `dx = dy · W` and `dW = dyᵀ · x`.
#[derive(Debug, Clone)]
struct Linear {
    precision: ActivationPrecision,
}

impl Linear {
    fn product(&self, a: f32_gemm::Operand<'_>, b: f32_gemm::Operand<'_>, shape: GemmShape) -> Vec<f32> {
        let reduced = (self.precision == ActivationPrecision::Reduced).then(|| bf16_gemm::gemm(a, b, shape));
        reduced.flatten().unwrap_or_else(|| f32_gemm::gemm(a, b, shape))
    }
}

impl Kernel<2> for Linear {
    type Saved = ();

    fn forward(&self, [x, weight]: [View<'_>; 2]) -> (Array, ()) {
        let (n, inputs, outputs) = (x.shape[0], x.shape[1], weight.shape[0]);
        let shape = GemmShape { m: n, n: outputs, k: inputs };
        let values = self.product(Normal(x.values), Transposed(weight.values), shape);
        (Array { values, shape: vec![n, outputs] }, ())
    }

    fn backward(
        &self,
        [x, weight]: [View<'_>; 2],
        (): (),
        dy: &[f32],
        [dx, dweight]: [bool; 2],
    ) -> [Option<Gradient>; 2] {
        let (n, inputs, outputs) = (x.shape[0], x.shape[1], weight.shape[0]);
        let (dx_shape, dweight_shape) =
            (GemmShape { m: n, n: inputs, k: outputs }, GemmShape { m: outputs, n: inputs, k: n });
        [
            dx.then(|| self.product(Normal(dy), Normal(weight.values), dx_shape).into()),
            dweight.then(|| self.product(Transposed(dy), Normal(x.values), dweight_shape).into()),
        ]
    }
}
