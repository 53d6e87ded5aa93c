//! Convolutions, doubling of pixels, and swish.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::{Kernel, Operand, run, tensor, tensor_like, values};
use lumina_kernels::conv::conv3x3 as conv_kernel;
use lumina_kernels::conv::conv3x3::Shape;
use lumina_kernels::conv::gradient as conv_gradient_kernel;
use lumina_kernels::conv::upsample2x as double_kernel;
use lumina_kernels::elementwise::swish as swish_kernel;

pub(in crate::ops) fn conv3x3(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
    padding: (usize, usize),
    stride: usize,
) -> Option<Tensor<4>> {
    let ([batch, inputs, height, width], [outputs, _, 3, 3]) = (x.dims(), weight.dims()) else { return None };
    // Narrow images would leave most of a vector empty; Burn lays out patches, which suits them.
    if width < 12 || padding.0 > 1 || padding.1 > 1 {
        return None;
    }
    let operands = [Operand::of(x)?, Operand::of(weight)?, Operand::of(bias)?];
    // The gradients are those of stride 1.
    if !(1..=2).contains(&stride) || stride == 2 && operands.iter().any(Operand::is_recorded) {
        return None;
    }
    let shape = Shape { batch, inputs, outputs, height, width, padding, stride };
    if shape.rows() == 0 { None } else { run(Conv { shape }, operands) }
}

#[derive(Debug, Clone)]
struct Conv {
    shape: Shape,
}

impl Kernel<3> for Conv {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: &[FlexTensor; 3]) -> (FlexTensor, ()) {
        let shape = &self.shape;
        let y = conv_kernel::forward(values(x), values(weight), Some(values(bias)), shape);
        (tensor(y, &[shape.batch, shape.outputs, shape.rows(), shape.columns()]), ())
    }

    fn backward(
        &self,
        [x, weight, _]: &[FlexTensor; 3],
        (): (),
        dy: FlexTensor,
        [of_x, of_weight, of_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let Self { shape, .. } = self;
        let dy = values(&dy);
        let of_bias = of_bias.then(|| {
            let mut sums = vec![0.0; shape.outputs];
            let plane = shape.rows() * shape.width;
            for (index, plane) in dy.chunks_exact(plane.max(1)).enumerate() {
                sums[index % shape.outputs] += plane.iter().sum::<f32>();
            }
            tensor(sums, &[shape.outputs])
        });
        [
            of_x.then(|| tensor_like(conv_gradient_kernel::input_gradient(dy, values(weight), shape), x)),
            of_weight.then(|| tensor_like(conv_gradient_kernel::weight_gradient(values(x), dy, shape), weight)),
            of_bias,
        ]
    }
}

pub(in crate::ops) fn doubled(x: &Tensor<4>, rows: &Range<usize>) -> Option<Tensor<4>> {
    run(Double { rows: rows.clone() }, [Operand::of(x)?])
}

#[derive(Debug, Clone)]
struct Double {
    rows: Range<usize>,
}

impl Kernel<1> for Double {
    type Saved = ();

    fn forward(&self, [x]: &[FlexTensor; 1]) -> (FlexTensor, ()) {
        let [batch, channels, height, width] = x.layout().shape().dims();
        let y = double_kernel::forward(values(x), (height, width), &self.rows);
        (tensor(y, &[batch, channels, self.rows.len(), 2 * width]), ())
    }

    fn backward(&self, [x]: &[FlexTensor; 1], (): (), dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let [batch, channels, height, width] = x.layout().shape().dims();
        let dx = double_kernel::backward(values(&dy), (batch * channels, height, width), &self.rows);
        [Some(tensor_like(dx, x))]
    }
}

pub(in crate::ops) fn scaled_swish(x: &Tensor<4>, scale: &Tensor<4>, shift: &Tensor<4>) -> Option<Tensor<4>> {
    let [batch, channels, ..] = x.dims();
    if scale.dims() != [batch, channels, 1, 1] || shift.dims() != scale.dims() {
        return None;
    }
    run(ScaledSwish, [Operand::of(x)?, Operand::of(scale)?, Operand::of(shift)?])
}

#[derive(Debug, Clone)]
struct ScaledSwish;

impl Kernel<3> for ScaledSwish {
    type Saved = ();

    fn forward(&self, [x, scale, shift]: &[FlexTensor; 3]) -> (FlexTensor, ()) {
        (tensor_like(swish_kernel::forward(values(x), values(scale), values(shift)), x), ())
    }

    fn backward(
        &self,
        [x, scale, shift]: &[FlexTensor; 3],
        (): (),
        dy: FlexTensor,
        _: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let (dx, of_scale, of_shift) = swish_kernel::backward(values(x), values(scale), values(shift), values(&dy));
        [Some(tensor_like(dx, x)), Some(tensor_like(of_scale, scale)), Some(tensor_like(of_shift, shift))]
    }
}
