//! AdamW and norms of gradients: functions of plain tensors, without gradients of their own.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::{Operand, contiguous, tensor, tensor_like, values};
use crate::ops::adamw::{AdamWStep, Moments};
use lumina_kernels::optim::adamw as adamw_kernel;

/// Nothing, and the moments stay, where the tensors are not of this backend or do not belong together.
pub(in crate::ops) fn adamw<const D: usize>(
    weight: &Tensor<D>,
    grad: &Tensor<D>,
    moments: &mut Option<Moments>,
    step: &AdamWStep,
) -> Option<(Tensor<D>, Moments)> {
    let (weight, grad) = (plain(weight)?, plain(grad)?);
    let n = values(&weight).len();
    let fits = |moment: &Tensor<1>| moment.dims() == [n] && plain(moment).is_some();
    if values(&grad).len() != n || moments.as_ref().is_some_and(|both| !fits(&both.first) || !fits(&both.second)) {
        return None;
    }
    let taken = moments.take().and_then(|Moments { first, second }| own(first).zip(own(second)));
    let (mut first, mut second) = taken.unwrap_or_else(|| (tensor(vec![0.0; n], &[n]), tensor(vec![0.0; n], &[n])));
    let moved = match (first.try_storage_mut::<f32>(), second.try_storage_mut::<f32>()) {
        (Some(first), Some(second)) => adamw_kernel::step(values(&weight), values(&grad), first, second, step),
        // Something else holds them.
        _ => {
            let (mut new_first, mut new_second) = (values(&first).to_vec(), values(&second).to_vec());
            let moved = adamw_kernel::step(values(&weight), values(&grad), &mut new_first, &mut new_second, step);
            (first, second) = (tensor(new_first, &[n]), tensor(new_second, &[n]));
            moved
        }
    };
    let [first, second] = [first, second].map(Tensor::from_primitive::<Flex>);
    Some((Tensor::from_primitive::<Flex>(tensor_like(moved, &weight)), Moments { first, second }))
}

fn plain<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    Operand::of(tensor).filter(|operand| !operand.is_recorded()).map(Operand::into_tensor)
}

/// The only handle there is, where there is only one, on memory that the tensor fills.
fn own(tensor: Tensor<1>) -> Option<FlexTensor> {
    let tensor = contiguous(tensor.try_into_primitive::<Flex>().ok()?)?;
    Some(if tensor.bytes().len() == 4 * values(&tensor).len() {
        tensor
    } else {
        tensor_like(values(&tensor).to_vec(), &tensor)
    })
}

pub(in crate::ops) fn square_sum<const D: usize>(x: &Tensor<D>) -> Option<Tensor<1>> {
    let sum = adamw_kernel::square_sum(values(&plain(x)?));
    Some(Tensor::from_primitive::<Flex>(tensor(vec![sum], &[1])))
}
