//! One step of AdamW on one parameter.

use burn::tensor::Tensor;
pub use lumina_kernels::optim::adamw::AdamWStep;

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
/// Mirrors `torch.optim.AdamW`. On the CPU moments that nothing else holds are written in place.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: Option<Moments>,
    step: &AdamWStep,
) -> (Tensor<D>, Moments) {
    #[cfg(feature = "flex")]
    let mut moments = moments;
    #[cfg(feature = "flex")]
    if let Some(moved) = super::host::adamw(&weight, &grad, &mut moments, step) {
        return moved;
    }
    let (rate, correction) = step.corrections();
    let shape = weight.shape();
    let grad: Tensor<1> = grad.flatten(0, D - 1);
    let squared = grad.clone().square() * (1.0 - step.beta_2);
    let fresh = grad * (1.0 - step.beta_1);
    let (first, second) = match moments {
        Some(Moments { first, second }) => (first * step.beta_1 + fresh, second * step.beta_2 + squared),
        None => (fresh, squared),
    };
    let root = (second.clone() / correction).sqrt() + step.epsilon;
    let change = first.clone() / root * rate;
    (weight * step.shrink() - change.reshape(shape), Moments { first, second })
}

/// The sum of the squares of all values, `[1]`.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if let Some(sum) = super::host::square_sum(&x) {
        return sum;
    }
    x.square().sum()
}
