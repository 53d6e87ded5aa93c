//! Where CPU kernels meet Burn: plain tensors of its `flex` backend, and those that record gradients.
//!
//! An operator that has a CPU kernel describes it as a [`Kernel`] of slices, and asks for the [`Operand`]s of its
//! tensors. Where there are operands, [`run`] computes, and records the backward pass if the tensors record gradients.
//! Where there are none (another backend, another type), the operator composes Burn's operations.

use std::fmt::Debug;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor, TensorData};

/// A function of `N` tensors in `f32`, with its gradients.
pub(in crate::ops) trait Kernel<const N: usize>: Clone + Debug + Send + Sync + 'static {
    /// What the backward pass needs besides the inputs.
    type Saved: Clone + Debug + Send + 'static;

    /// The result.
    fn forward(&self, inputs: [View<'_>; N]) -> (Array, Self::Saved);

    /// The gradients of the inputs that are `wanted`, from that of the result; each has the shape of its input.
    #[cfg_attr(not(feature = "autodiff"), allow(dead_code, reason = "without the feature nothing records gradients"))]
    fn backward(
        &self,
        inputs: [View<'_>; N],
        saved: Self::Saved,
        dy: &[f32],
        wanted: [bool; N],
    ) -> [Option<Gradient>; N];
}

/// The values of a tensor, row-major.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct View<'a> {
    pub(in crate::ops) values: &'a [f32],
    pub(in crate::ops) shape: &'a [usize],
}

impl View<'_> {
    /// Values of the shape of this.
    pub(in crate::ops) fn like(&self, values: Vec<f32>) -> Array {
        Array { values, shape: self.shape.to_vec() }
    }
}

/// A result, row-major.
#[derive(Debug)]
pub(in crate::ops) struct Array {
    pub(in crate::ops) values: Vec<f32>,
    pub(in crate::ops) shape: Vec<usize>,
}

/// The gradient of an input.
#[derive(Debug)]
#[cfg_attr(not(feature = "autodiff"), allow(dead_code, reason = "without the feature nothing records gradients"))]
pub(in crate::ops) enum Gradient {
    /// These values.
    Values(Vec<f32>),
    /// Those of the result's gradient.
    OfResult,
}

impl From<Vec<f32>> for Gradient {
    fn from(values: Vec<f32>) -> Self {
        Self::Values(values)
    }
}

/// The operands of a kernel, where all of its tensors have one, and all or none record gradients.
pub(in crate::ops) fn operands<const N: usize>(all: [Option<Operand>; N]) -> Option<[Operand; N]> {
    let recorded = all.iter().flatten().filter(|operand| operand.is_recorded()).count();
    if all.iter().any(Option::is_none) || (recorded != 0 && recorded != N) {
        return None;
    }
    Some(all.map(|operand| operand.expect("the line above returns where one is missing")))
}

/// A contiguous `f32` tensor of the CPU backend, and its place in the graph where it records gradients.
pub(in crate::ops) struct Operand {
    tensor: FlexTensor,
    #[cfg(feature = "autodiff")]
    node: Option<burn::backend::autodiff::ops::NodeGuard>,
}

impl Operand {
    /// `None` for tensors of other backends and types.
    pub(in crate::ops) fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
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
    pub(in crate::ops) fn is_recorded(&self) -> bool {
        #[cfg(feature = "autodiff")]
        return self.node.is_some();
        #[cfg(not(feature = "autodiff"))]
        false
    }

    #[cfg(feature = "autodiff")]
    fn into_parts(self) -> (FlexTensor, Option<burn::backend::autodiff::ops::NodeGuard>) {
        (self.tensor, self.node)
    }
}

/// A tensor that a kernel reads and computes no gradient of.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Constant(FlexTensor);

impl Constant {
    /// `None` for tensors of other backends and types. Gradients stop here.
    pub(in crate::ops) fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        Operand::of(tensor).map(|operand| Self(operand.tensor))
    }

    /// [`Constant::of`], and `None` for tensors that record gradients too.
    pub(in crate::ops) fn unrecorded<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        Operand::of(tensor).filter(|operand| !operand.is_recorded()).map(|operand| Self(operand.tensor))
    }

    pub(in crate::ops) fn values(&self) -> &[f32] {
        view(&self.0).values
    }
}

/// A vector of the CPU backend that is overwritten, in place where nothing else holds it.
pub(in crate::ops) struct InPlace(FlexTensor);

impl InPlace {
    /// `None` for tensors of other backends and types.
    pub(in crate::ops) fn of(tensor: Tensor<1>) -> Option<Self> {
        let tensor = contiguous(tensor.try_into_primitive::<Flex>().ok()?)?;
        let values = view(&tensor).values;
        // A part of a larger tensor would be overwritten together with the rest.
        Some(if tensor.bytes().len() == size_of_val(values) { Self(tensor) } else { Self::new(values.to_vec()) })
    }

    fn new(values: Vec<f32>) -> Self {
        let shape = vec![values.len()];
        Self(array(Array { values, shape }))
    }

    /// The tensor, which [`InPlace::is_possible`] has looked at, or without one as many zeros as there are values.
    pub(in crate::ops) fn or_zeros(tensor: Option<Tensor<1>>, like: &Constant) -> Self {
        tensor.and_then(Self::of).unwrap_or_else(|| Self::new(vec![0.0; like.values().len()]))
    }

    /// Whether this is a vector of `n` values of the CPU backend. Another would be lost.
    pub(in crate::ops) fn is_possible(tensor: &Tensor<1>, n: usize) -> bool {
        tensor.dims() == [n] && Constant::unrecorded(tensor).is_some()
    }

    pub(in crate::ops) fn values_mut(&mut self) -> &mut [f32] {
        if self.0.try_storage_mut::<f32>().is_none() {
            *self = Self::new(view(&self.0).values.to_vec());
        }
        self.0.try_storage_mut::<f32>().expect("a tensor that was just made has one handle")
    }

    pub(in crate::ops) fn into_tensor(self) -> Tensor<1> {
        Tensor::from_primitive::<Flex>(self.0)
    }
}

/// The kernel's result on operands that all record gradients or all do not, which [`operands`] makes
/// sure of.
pub(in crate::ops) fn run<K: Kernel<N>, const N: usize, const D: usize>(
    kernel: K,
    operands: [Operand; N],
) -> Tensor<D> {
    #[cfg(feature = "autodiff")]
    if operands.iter().any(Operand::is_recorded) {
        return recorded::run(kernel, operands);
    }
    let inputs = operands.each_ref().map(|operand| view(&operand.tensor));
    Tensor::from_primitive::<Flex>(array(kernel.forward(inputs).0))
}

fn contiguous(tensor: FlexTensor) -> Option<FlexTensor> {
    // A handle less than `to_contiguous` would leave, so that a tensor with one handle keeps one.
    (tensor.dtype() == DType::F32)
        .then(|| if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() })
}

fn view(tensor: &FlexTensor) -> View<'_> {
    let values = tensor.as_slice::<f32>().expect("`contiguous` made sure of type and layout");
    View { values, shape: tensor.layout().shape() }
}

fn array(Array { values, shape }: Array) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Kernels on tensors that record gradients.
#[cfg(feature = "autodiff")]
mod recorded {
    use std::marker::PhantomData;

    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::flex::FlexTensor;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Tensor;

    use super::{Array, Gradient, Kernel, Operand, array, view};

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
            let results = kernel.backward(inputs.each_ref().map(view), saved, view(&dy).values, wanted);
            for ((node, gradient), input) in ops.parents.into_iter().zip(results).zip(&inputs) {
                if let (Some(node), Some(gradient)) = (node, gradient) {
                    let gradient = match gradient {
                        Gradient::Values(values) => array(Array { values, shape: input.layout().shape().to_vec() }),
                        Gradient::OfResult => dy.clone(),
                    };
                    grads.register::<Flex>(node.id, gradient);
                }
            }
        }
    }

    pub(super) fn run<K: Kernel<N>, const N: usize, const D: usize>(kernel: K, operands: [Operand; N]) -> Tensor<D> {
        let parts = operands.map(Operand::into_parts);
        let inputs = parts.each_ref().map(|(tensor, _)| tensor.clone());
        let nodes = parts.map(|(_, node)| node.expect("`operands` made sure that all record gradients"));
        let (y, saved) = kernel.forward(inputs.each_ref().map(view));
        let y = array(y);
        let y = match Step::<K>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((kernel, inputs, saved), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        };
        Tensor::from_primitive::<Recorded>(y)
    }
}
