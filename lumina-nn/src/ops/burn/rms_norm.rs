//! RMS norm on tensors.

use burn::tensor::{DType, Tensor};
use lumina_kernels::norm::rms_norm as cpu;

use super::first_device;
use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};
use crate::ops::hidden::Hidden;
use crate::ops::values::Values;

/// `x` `[n, hidden]` and `weight` `[hidden]`.
pub(in crate::ops) fn rms_norm(x: &Hidden, weight: &Values<1>, epsilon: f64) -> Hidden {
    let device = first_device([weight.device(), x.device()]);
    let (x, weight) = (x.to_tensor(&device), weight.tensor(&device));
    let fits = x.dims()[1] == weight.dims()[0] && x.dims()[1] > 0;
    let y: Tensor<2> = match operands([Operand::of(&x), Operand::of(&weight)]).filter(|_| fits) {
        Some(operands) => run(RmsNorm { epsilon: epsilon as f32 }, operands),
        None => {
            let dtype = x.dtype();
            let wide = x.cast(DType::F32);
            let inverse = (wide.clone().square().mean_dim(1) + epsilon).sqrt().recip();
            (wide * inverse).cast(dtype) * weight.cast(dtype).unsqueeze()
        }
    };
    y.into()
}

#[derive(Debug, Clone)]
struct RmsNorm {
    epsilon: f32,
}

impl Kernel<2> for RmsNorm {
    /// `1 / √(mean(x²) + epsilon)` of each row.
    type Saved = Vec<f32>;

    fn forward(&self, [x, weight]: [View<'_>; 2]) -> (Array, Vec<f32>) {
        let cpu::RmsNormOutput { y, inverse_rms } = cpu::forward(x.values, weight.values, self.epsilon);
        (x.like(y), inverse_rms)
    }

    fn backward(
        &self,
        [x, weight]: [View<'_>; 2],
        inverse_rms: Vec<f32>,
        dy: &[f32],
        _: [bool; 2],
    ) -> [Option<Gradient>; 2] {
        let cpu::RmsNormGradients { dx, dweight } = cpu::backward(x.values, weight.values, &inverse_rms, dy);
        [Some(dx.into()), Some(dweight.into())]
    }
}
