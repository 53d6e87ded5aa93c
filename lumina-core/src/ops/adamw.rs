//! One step of AdamW on one parameter.

use burn::tensor::Tensor;

/// The numbers of a step of AdamW (arXiv 1711.05101).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of squared gradients.
    pub beta_2: f64,
    /// Added to the root of the mean of squares.
    pub epsilon: f64,
    /// Share of the learning rate by which weights shrink.
    pub weight_decay: f64,
    /// Number of this step, from 1 on: the means are young in the first steps, and made up for it.
    pub step: u64,
}

impl AdamWStep {
    /// What a weight is multiplied by.
    pub(super) fn shrink(&self) -> f64 {
        1.0 - self.lr * self.weight_decay
    }

    /// What makes up for the young means: for the mean of gradients, with the learning rate, and for that of squares.
    pub(super) fn corrections(&self) -> (f64, f64) {
        let steps = self.step.min(i32::MAX as u64) as i32;
        (self.lr / (1.0 - self.beta_1.powi(steps)), 1.0 - self.beta_2.powi(steps))
    }
}

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
    if let Some(moved) = super::flex::adamw(&weight, &grad, &mut moments, step) {
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
    if let Some(sum) = super::flex::square_sum(&x) {
        return sum;
    }
    x.square().sum()
}
