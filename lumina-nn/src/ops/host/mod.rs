//! Where kernels of ours meet tensors of Burn's CPU backend, with and without gradients.

mod adamw;
mod attention;
mod conv;
mod cross_entropy;
mod gather;
mod layer;
mod norms;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor, TensorData};

pub(super) use adamw::{adamw, square_sum};
pub(super) use attention::causal_attention;
pub(super) use conv::{conv3x3, doubled, scaled_swish};
pub(super) use cross_entropy::cross_entropy;
pub(super) use gather::gather;
pub(super) use layer::{add_kept, linear, swiglu};
pub(super) use norms::{group_moments, head_norm_rotated, rms_norm};

/// A function of `N` tensors, with its gradients.
pub(super) trait Kernel<const N: usize>: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// What the way back needs besides the inputs.
    type Saved: Clone + std::fmt::Debug + Send + 'static;

    /// The result, of contiguous inputs in `f32`.
    fn forward(&self, inputs: &[FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// The gradients of the inputs that are `wanted`, from that of the result, which is contiguous.
    fn backward(
        &self,
        inputs: &[FlexTensor; N],
        saved: Self::Saved,
        dy: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// A contiguous `f32` tensor of the CPU backend, and its place in the graph where it records gradients.
pub(super) struct Operand {
    tensor: FlexTensor,
    #[cfg(feature = "autodiff")]
    node: Option<burn::backend::autodiff::ops::NodeGuard>,
}

impl Operand {
    /// Nothing for tensors of other backends and types.
    pub(super) fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        #[cfg(feature = "autodiff")]
        if let Ok(tensor) = tensor.clone().try_into_primitive::<recorded::Recorded>() {
            let node = Some(tensor.node());
            return Some(Self { node, tensor: contiguous(tensor.into_primitive())? });
        }
        let tensor = contiguous(tensor.clone().try_into_primitive::<Flex>().ok()?)?;
        Some(Self {
            tensor,
            #[cfg(feature = "autodiff")]
            node: None,
        })
    }

    /// Whether gradients are recorded.
    pub(super) fn is_recorded(&self) -> bool {
        #[cfg(feature = "autodiff")]
        return self.node.is_some();
        #[cfg(not(feature = "autodiff"))]
        false
    }

    /// The values, where gradients do not matter.
    pub(super) fn into_tensor(self) -> FlexTensor {
        self.tensor
    }
}

/// The kernel's result on operands that all record gradients or all do not; nothing where they are mixed.
pub(super) fn run<K: Kernel<N>, const N: usize, const D: usize>(
    kernel: K,
    operands: [Operand; N],
) -> Option<Tensor<D>> {
    #[cfg(feature = "autodiff")]
    if operands.iter().any(Operand::is_recorded) {
        return recorded::run(kernel, operands);
    }
    let inputs = operands.map(|operand| operand.tensor);
    Some(Tensor::from_primitive::<Flex>(kernel.forward(&inputs).0))
}

fn contiguous(tensor: FlexTensor) -> Option<FlexTensor> {
    // A handle less than `to_contiguous` would leave, so that what is unique stays so.
    (tensor.dtype() == DType::F32)
        .then(|| if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() })
}

pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("`contiguous` made sure of type and layout")
}

pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// Values in the shape of another tensor.
pub(super) fn tensor_like(values: Vec<f32>, like: &FlexTensor) -> FlexTensor {
    tensor(values, like.layout().shape())
}

/// Kernels on tensors that record gradients.
#[cfg(feature = "autodiff")]
mod recorded {
    use std::marker::PhantomData;

    use burn::backend::Autodiff;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::tensor::Tensor;

    use super::{Flex, FlexTensor, Kernel, Operand};

    pub(super) type Recorded = Autodiff<Flex>;

    #[derive(Debug)]
    struct Step<K>(PhantomData<K>);

    impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
        type State = (K, [FlexTensor; N], K::Saved);

        fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (kernel, inputs, saved) = ops.state;
            let dy = grads.consume::<Flex>(&ops.node);
            let dy = if dy.as_slice::<f32>().is_some() { dy } else { dy.to_contiguous() };
            let wanted = ops.parents.each_ref().map(Option::is_some);
            let results = kernel.backward(&inputs, saved, dy, wanted);
            for (node, gradient) in ops.parents.into_iter().zip(results) {
                if let (Some(node), Some(gradient)) = (node, gradient) {
                    grads.register::<Flex>(node.id, gradient);
                }
            }
        }
    }

    pub(super) fn run<K: Kernel<N>, const N: usize, const D: usize>(
        kernel: K,
        operands: [Operand; N],
    ) -> Option<Tensor<D>> {
        let inputs = operands.each_ref().map(|operand| operand.tensor.clone());
        let nodes: Vec<_> = operands.into_iter().filter_map(|operand| operand.node).collect();
        let nodes = <[_; N]>::try_from(nodes).ok()?;
        let (y, saved) = kernel.forward(&inputs);
        let y = match Step::<K>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((kernel, inputs, saved), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        };
        Some(Tensor::from_primitive::<Recorded>(y))
    }
}
