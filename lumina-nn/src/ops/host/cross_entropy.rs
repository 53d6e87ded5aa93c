//! Cross entropy and z-loss.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::{Kernel, Operand, run, tensor, tensor_like, values};
use lumina_kernels::loss::cross_entropy as cross_entropy_kernel;

pub(in crate::ops) fn cross_entropy(logits: &Tensor<2>, targets: &[u32]) -> Option<Tensor<1>> {
    run(CrossEntropy { targets: targets.into() }, [Operand::of(logits)?])
}

#[derive(Debug, Clone)]
struct CrossEntropy {
    targets: Arc<[u32]>,
}

impl Kernel<1> for CrossEntropy {
    /// The log-sum-exp of each row.
    type Saved = Vec<f32>;

    fn forward(&self, [logits]: &[FlexTensor; 1]) -> (FlexTensor, Vec<f32>) {
        let (entropy, squares, sums) = cross_entropy_kernel::forward(values(logits), &self.targets);
        (tensor(vec![entropy, squares], &[2]), sums)
    }

    fn backward(
        &self,
        [logits]: &[FlexTensor; 1],
        sums: Vec<f32>,
        dy: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let dy = values(&dy);
        let gradient = cross_entropy_kernel::backward(values(logits), &self.targets, &sums, [dy[0], dy[1]]);
        [Some(tensor_like(gradient, logits))]
    }
}
