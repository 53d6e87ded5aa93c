//! Products with weights, and dropout with a residual addition, on tensors.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use lumina_kernels::elementwise::dropout_add;
use lumina_kernels::matmul::f32_gemm::Operand::{Normal, Transposed};
use lumina_kernels::matmul::f32_gemm::{GemmShape, gemm};

use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};

/// `x · Wᵀ` with some rows of `weight` `[outputs, inputs]`: `[n, inputs]` → `[n, rows.len()]`.
pub(in crate::ops) fn linear(x: Tensor<2>, weight: Tensor<2>, rows: Range<usize>) -> Tensor<2> {
    let weight = if rows.len() == weight.dims()[0] { weight } else { weight.narrow(0, rows.start, rows.len()) };
    let weight = weight.cast(x.dtype());
    match operands([Operand::of(&x), Operand::of(&weight)]) {
        Some(operands) => run(Linear, operands),
        None => x.matmul(weight.transpose()),
    }
}

/// `dx = dy · W` and `dW = dyᵀ · x`.
#[derive(Debug, Clone)]
struct Linear;

impl Kernel<2> for Linear {
    type Saved = ();

    fn forward(&self, [x, weight]: [View<'_>; 2]) -> (Array, ()) {
        let (n, inputs, outputs) = (x.shape[0], x.shape[1], weight.shape[0]);
        let shape = GemmShape { m: n, n: outputs, k: inputs };
        let values = gemm(Normal(x.values), Transposed(weight.values), shape);
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
            dx.then(|| gemm(Normal(dy), Normal(weight.values), dx_shape).into()),
            dweight.then(|| gemm(Transposed(dy), Normal(x.values), dweight_shape).into()),
        ]
    }
}

/// `x + y · scale` where `kept` is not zero.
#[derive(Debug, Clone)]
pub(in crate::ops) struct DropoutAdd {
    pub(in crate::ops) kept: Arc<[u8]>,
    pub(in crate::ops) scale: f32,
}

impl Kernel<2> for DropoutAdd {
    type Saved = ();

    fn forward(&self, [x, y]: [View<'_>; 2]) -> (Array, ()) {
        (x.like(dropout_add::forward(x.values, y.values, &self.kept, self.scale)), ())
    }

    fn backward(&self, _: [View<'_>; 2], (): (), dy: &[f32], _: [bool; 2]) -> [Option<Gradient>; 2] {
        [Some(Gradient::OfResult), Some(dropout_add::backward(dy, &self.kept, self.scale).into())]
    }
}
