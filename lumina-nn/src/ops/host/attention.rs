//! Causal attention.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::{Kernel, Operand, run, tensor, tensor_like, values};
use lumina_kernels::attention::causal as attention_kernel;
use lumina_kernels::attention::causal::Shape;

pub(in crate::ops) fn causal_attention(
    q: &Tensor<3>,
    k: &Tensor<3>,
    v: &Tensor<3>,
    lens: &[usize],
) -> Option<Tensor<2>> {
    let ([n, heads, head_dim], [_, kv_heads, _]) = (q.dims(), k.dims());
    let fits = k.dims() == [n, kv_heads, head_dim] && v.dims() == k.dims() && lens.iter().sum::<usize>() == n;
    if !fits || kv_heads == 0 || !heads.is_multiple_of(kv_heads) || head_dim == 0 {
        return None;
    }
    let kernel = Attention { lens: lens.into(), shape: Shape { heads, kv_heads, head_dim } };
    run(kernel, [Operand::of(q)?, Operand::of(k)?, Operand::of(v)?])
}

#[derive(Debug, Clone)]
struct Attention {
    lens: Arc<[usize]>,
    shape: Shape,
}

impl Kernel<3> for Attention {
    /// The log-sum-exp of scores.
    type Saved = Arc<Vec<Vec<f32>>>;

    fn forward(&self, [q, k, v]: &[FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let Shape { heads, head_dim, .. } = self.shape;
        let (y, sums) = attention_kernel::forward(values(q), values(k), values(v), &self.lens, &self.shape);
        let n = y.len() / (heads * head_dim);
        (tensor(y, &[n, heads * head_dim]), Arc::new(sums))
    }

    fn backward(
        &self,
        [q, k, v]: &[FlexTensor; 3],
        sums: Self::Saved,
        dy: FlexTensor,
        _: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let inputs = [values(q), values(k), values(v)];
        let (of_q, of_k, of_v) = attention_kernel::backward(inputs, &sums, &self.lens, &self.shape, values(&dy));
        [Some(tensor_like(of_q, q)), Some(tensor_like(of_k, k)), Some(tensor_like(of_v, v))]
    }
}
