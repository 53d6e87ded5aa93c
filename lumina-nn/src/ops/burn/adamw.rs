//! One step of AdamW on one parameter.

use burn::tensor::Tensor;
use lumina_kernels::optim::adamw as kernel;
pub use lumina_kernels::optim::adamw::AdamWStep;

use super::kernel::{Constant, InPlace};

/// Means of gradients and of their squares, flattened, `[values]` each.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Mean of gradients.
    pub first: Tensor<1>,
    /// Mean of squared gradients.
    pub second: Tensor<1>,
}

/// The weight and the moments after a step, none of them recording gradients. Without moments they begin at zero.
///
/// Mirrors `torch.optim.AdamW`. On the CPU, moments that nothing else holds are written in place.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: Option<Moments>,
    step: &AdamWStep,
) -> (Tensor<D>, Moments) {
    match (Constant::unrecorded(&weight), Constant::unrecorded(&grad)) {
        (Some(values), Some(grads)) if fits(&values, &grads, moments.as_ref()) => {
            let moments = moments.map_or([None, None], |both| [Some(both.first), Some(both.second)]);
            let [mut first, mut second] = moments.map(|moment| InPlace::or_zeros(moment, &values));
            let moments = kernel::MomentsMut { first: first.values_mut(), second: second.values_mut() };
            let updated = kernel::update(values.values(), grads.values(), moments, step);
            let updated = Tensor::from_data(burn::tensor::TensorData::new(updated, weight.shape()), &weight.device());
            (updated, Moments { first: first.into_tensor(), second: second.into_tensor() })
        }
        _ => composed(weight, grad, moments, step),
    }
}

/// Whether all tensors have as many values.
fn fits(values: &Constant, grads: &Constant, moments: Option<&Moments>) -> bool {
    let n = values.values().len();
    let fits = |moment: &Tensor<1>| InPlace::is_possible(moment, n);
    grads.values().len() == n && moments.is_none_or(|both| fits(&both.first) && fits(&both.second))
}

fn composed<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: Option<Moments>,
    step: &AdamWStep,
) -> (Tensor<D>, Moments) {
    let kernel::BiasCorrection { step_size, second_moment } = step.bias_correction();
    let shape = weight.shape();
    let grad: Tensor<1> = grad.flatten(0, D - 1);
    let squared = grad.clone().square() * (1.0 - step.beta_2);
    let scaled = grad * (1.0 - step.beta_1);
    let (first, second) = match moments {
        Some(Moments { first, second }) => (first * step.beta_1 + scaled, second * step.beta_2 + squared),
        None => (scaled, squared),
    };
    let root = (second.clone() / second_moment).sqrt() + step.epsilon;
    let change = first.clone() / root * step_size;
    (weight * step.decay_factor() - change.reshape(shape), Moments { first, second })
}

/// The sum of the squares of all values, `[1]`.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    match Constant::unrecorded(&x) {
        Some(values) => Tensor::from_data([kernel::square_sum(values.values())], &x.device()),
        None => x.square().sum(),
    }
}
