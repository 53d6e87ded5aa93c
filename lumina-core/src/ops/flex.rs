//! Where kernels of ours meet tensors of Burn's CPU backend, with and without gradients.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor, TensorData};

use super::conv_kernel::{self, Shape};
use super::swish_kernel;

/// A contiguous `f32` tensor of the CPU backend, or nothing for others.
fn contiguous(tensor: FlexTensor) -> Option<FlexTensor> {
    (tensor.dtype() == DType::F32).then(|| tensor.to_contiguous())
}

/// The same of a tensor that records no gradients.
fn plain<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    tensor.clone().try_into_primitive::<Flex>().ok().and_then(contiguous)
}

fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("`contiguous` made sure of type and layout")
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

pub(super) fn conv3x3(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
    padding: (usize, usize),
) -> Option<Tensor<4>> {
    let ([batch, inputs, height, width], [outputs, _, 3, 3]) = (x.dims(), weight.dims()) else { return None };
    // Narrow images would leave most of a vector empty; Burn lays out patches, which suits them.
    if width < 12 || padding.0 > 1 || padding.1 > 1 {
        return None;
    }
    let shape = Shape { batch, inputs, outputs, height, width, padding };
    #[cfg(feature = "autodiff")]
    if let Some(y) = recorded::conv3x3(x, weight, bias, shape) {
        return Some(y);
    }
    Some(Tensor::from_primitive::<Flex>(run_conv(&plain(x)?, &plain(weight)?, &plain(bias)?, &shape)))
}

fn run_conv(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor, shape: &Shape) -> FlexTensor {
    let y = conv_kernel::forward(values(x), values(weight), Some(values(bias)), shape);
    tensor(y, &[shape.batch, shape.outputs, shape.rows(), shape.width])
}

pub(super) fn scaled_swish(x: &Tensor<4>, scale: &Tensor<4>, shift: &Tensor<4>) -> Option<Tensor<4>> {
    let [batch, channels, ..] = x.dims();
    if scale.dims() != [batch, channels, 1, 1] || shift.dims() != scale.dims() {
        return None;
    }
    #[cfg(feature = "autodiff")]
    if let Some(y) = recorded::scaled_swish(x, scale, shift) {
        return Some(y);
    }
    Some(Tensor::from_primitive::<Flex>(run_swish(&plain(x)?, &plain(scale)?, &plain(shift)?)))
}

fn run_swish(x: &FlexTensor, scale: &FlexTensor, shift: &FlexTensor) -> FlexTensor {
    let y = swish_kernel::forward(values(x), values(scale), values(shift));
    tensor(y, x.layout().shape())
}

/// The same on tensors that record gradients.
#[cfg(feature = "autodiff")]
mod recorded {
    use burn::backend::Autodiff;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
    use burn::tensor::Tensor;

    use super::{Flex, FlexTensor, Shape, contiguous, conv_kernel, run_conv, run_swish, swish_kernel, tensor, values};

    type Recorded = Autodiff<Flex>;

    /// A contiguous `f32` tensor of the CPU backend that records gradients, and its place in the graph.
    fn tracked<const D: usize>(tensor: &Tensor<D>) -> Option<(NodeGuard, FlexTensor)> {
        let tensor = tensor.clone().try_into_primitive::<Recorded>().ok()?;
        let node = tensor.node();
        Some((node, contiguous(tensor.into_primitive())?))
    }

    #[derive(Debug)]
    struct Conv;

    impl Backward<Flex, 3> for Conv {
        type State = (FlexTensor, FlexTensor, Shape);

        fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (x, weight, shape) = ops.state;
            let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
            let [of_x, of_weight, of_bias] = ops.parents;
            let Shape { batch, inputs, outputs, height, width, .. } = shape;
            if let Some(node) = of_x {
                let dx = conv_kernel::input_gradient(values(&dy), values(&weight), &shape);
                grads.register::<Flex>(node.id, tensor(dx, &[batch, inputs, height, width]));
            }
            if let Some(node) = of_weight {
                let dw = conv_kernel::weight_gradient(values(&x), values(&dy), &shape);
                grads.register::<Flex>(node.id, tensor(dw, &[outputs, inputs, 3, 3]));
            }
            if let Some(node) = of_bias {
                let mut sums = vec![0.0; outputs];
                let plane = shape.rows() * width;
                for (index, plane) in values(&dy).chunks_exact(plane.max(1)).enumerate() {
                    sums[index % outputs] += plane.iter().sum::<f32>();
                }
                grads.register::<Flex>(node.id, tensor(sums, &[outputs]));
            }
        }
    }

    pub(super) fn conv3x3(x: &Tensor<4>, weight: &Tensor<4>, bias: &Tensor<1>, shape: Shape) -> Option<Tensor<4>> {
        let ((x_node, x), (weight_node, weight), (bias_node, bias)) = (tracked(x)?, tracked(weight)?, tracked(bias)?);
        let y = run_conv(&x, &weight, &bias, &shape);
        let y = match Conv.prepare::<NoCheckpointing>([x_node, weight_node, bias_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight, shape), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        };
        Some(Tensor::from_primitive::<Recorded>(y))
    }

    #[derive(Debug)]
    struct ScaledSwish;

    impl Backward<Flex, 3> for ScaledSwish {
        type State = [FlexTensor; 3];

        fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [x, scale, shift] = ops.state;
            let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
            let (dx, of_scale, of_shift) =
                swish_kernel::backward(values(&x), values(&scale), values(&shift), values(&dy));
            let results = [(dx, &x), (of_scale, &scale), (of_shift, &shift)];
            for (node, (gradient, like)) in ops.parents.into_iter().zip(results) {
                if let Some(node) = node {
                    grads.register::<Flex>(node.id, tensor(gradient, like.layout().shape()));
                }
            }
        }
    }

    pub(super) fn scaled_swish(x: &Tensor<4>, scale: &Tensor<4>, shift: &Tensor<4>) -> Option<Tensor<4>> {
        let ((x_node, x), (scale_node, scale), (shift_node, shift)) = (tracked(x)?, tracked(scale)?, tracked(shift)?);
        let y = run_swish(&x, &scale, &shift);
        let y =
            match ScaledSwish.prepare::<NoCheckpointing>([x_node, scale_node, shift_node]).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish([x, scale, shift], y),
                OpsKind::UnTracked(prepared) => prepared.finish(y),
            };
        Some(Tensor::from_primitive::<Recorded>(y))
    }
}
