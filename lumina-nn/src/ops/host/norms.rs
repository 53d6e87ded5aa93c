//! The norms of the transformer.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::{Flex, Kernel, Operand, run, tensor, tensor_like, values};
use lumina_kernels::norm::group_moments as moments_kernel;
use lumina_kernels::norm::head_norm as head_norm_kernel;
use lumina_kernels::norm::head_norm::{Factors, Shape};
use lumina_kernels::norm::rms_norm as rms_norm_kernel;

pub(in crate::ops) fn rms_norm(x: &Tensor<2>, weight: &Tensor<1>, epsilon: f64) -> Option<Tensor<2>> {
    if x.dims()[1] != weight.dims()[0] || x.dims()[1] == 0 {
        return None;
    }
    run(RmsNorm { epsilon: epsilon as f32 }, [Operand::of(x)?, Operand::of(weight)?])
}

/// Nothing where gradients are recorded, which pass through Burn's operations.
pub(in crate::ops) fn group_moments(x: &Tensor<4>, groups: usize) -> Option<[Tensor<3>; 2]> {
    let [batch, channels, height, width] = x.dims();
    let x = Operand::of(x).filter(|x| !x.is_recorded())?.into_tensor();
    if groups == 0 || !channels.is_multiple_of(groups) {
        return None;
    }
    let (means, variances) = moments_kernel::moments(values(&x), channels / groups * height * width);
    Some([means, variances].map(|values| Tensor::from_primitive::<Flex>(tensor(values, &[batch, groups, 1]))))
}

#[derive(Debug, Clone)]
struct RmsNorm {
    epsilon: f32,
}

impl Kernel<2> for RmsNorm {
    type Saved = Vec<f32>;

    fn forward(&self, [x, weight]: &[FlexTensor; 2]) -> (FlexTensor, Vec<f32>) {
        let (y, inverses) = rms_norm_kernel::forward(values(x), values(weight), self.epsilon);
        (tensor_like(y, x), inverses)
    }

    fn backward(
        &self,
        [x, weight]: &[FlexTensor; 2],
        inverses: Vec<f32>,
        dy: FlexTensor,
        _: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let (dx, of_weight) = rms_norm_kernel::backward(values(x), values(weight), &inverses, values(&dy));
        [Some(tensor_like(dx, x)), Some(tensor_like(of_weight, weight))]
    }
}

pub(in crate::ops) fn head_norm_rotated(
    x: &Tensor<3>,
    weight: &Tensor<2>,
    bias: &Tensor<2>,
    (cos, sin): (&Tensor<3>, &Tensor<3>),
    epsilon: f64,
) -> Option<Tensor<3>> {
    let [n, heads, head_dim] = x.dims();
    let [parts, _] = weight.dims();
    let fits = weight.dims() == [parts, head_dim]
        && bias.dims() == weight.dims()
        && cos.dims() == [n, 1, head_dim / 2]
        && sin.dims() == cos.dims();
    if !fits || heads == 0 || parts == 0 || !heads.is_multiple_of(parts) || head_dim < 2 || !head_dim.is_multiple_of(2)
    {
        return None;
    }
    let shape = Shape { heads, head_dim, parts, epsilon: epsilon as f32 };
    let (cos, sin) = (Operand::of(cos)?.into_tensor(), Operand::of(sin)?.into_tensor());
    run(HeadNorm { shape, cos, sin }, [Operand::of(x)?, Operand::of(weight)?, Operand::of(bias)?])
}

#[derive(Debug, Clone)]
struct HeadNorm {
    shape: Shape,
    cos: FlexTensor,
    sin: FlexTensor,
}

impl HeadNorm {
    fn factors<'a>(&'a self, weight: &'a FlexTensor, bias: &'a FlexTensor) -> Factors<'a> {
        Factors { weight: values(weight), bias: values(bias), cos: values(&self.cos), sin: values(&self.sin) }
    }
}

impl Kernel<3> for HeadNorm {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: &[FlexTensor; 3]) -> (FlexTensor, ()) {
        let y = head_norm_kernel::forward(values(x), self.factors(weight, bias), &self.shape);
        (tensor_like(y, x), ())
    }

    fn backward(
        &self,
        [x, weight, bias]: &[FlexTensor; 3],
        (): (),
        dy: FlexTensor,
        _: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let factors = self.factors(weight, bias);
        let (dx, of_weight, of_bias) = head_norm_kernel::backward(values(x), factors, &self.shape, values(&dy));
        [Some(tensor_like(dx, x)), Some(tensor_like(of_weight, weight)), Some(tensor_like(of_bias, bias))]
    }
}
