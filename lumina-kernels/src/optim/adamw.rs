//! AdamW (arXiv 1711.05101): one update of a parameter, and the norm of gradients for clipping.
//!
//! With gradient `g` and moments `m`, `v`: `m = β₁ m + (1 − β₁) g`, `v = β₂ v + (1 − β₂) g²`, then
//! `w = w (1 − lr · weight_decay) − lr / (1 − β₁ᵗ) · m / (√(v / (1 − β₂ᵗ)) + ε)`. One pass over memory does all of it.

use crate::parallel::*;

use crate::simd::reduce::dot;
use crate::simd::{Simd, simd_dispatch};

/// Hyperparameters and number of an AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment, the mean of gradients.
    pub beta_1: f64,
    /// Decay of the second moment, the mean of squared gradients.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decay of the weights, as a factor of the learning rate.
    pub weight_decay: f64,
    /// Number of this step, from 1 on: the bias correction of the moments depends on it.
    pub step: u64,
}

/// The bias corrections of a step: moments that began at zero are too small in the first steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasCorrection {
    /// Learning rate over `1 − β₁ᵗ`.
    pub step_size: f64,
    /// `1 − β₂ᵗ`, by which the second moment is divided.
    pub second_moment: f64,
}

impl AdamWStep {
    /// The factor of the weight before the update: `1 − learning_rate · weight_decay`.
    pub fn decay_factor(&self) -> f64 {
        1.0 - self.learning_rate * self.weight_decay
    }

    /// The bias corrections of this step.
    pub fn bias_correction(&self) -> BiasCorrection {
        let steps = self.step.min(i32::MAX as u64) as i32;
        BiasCorrection {
            step_size: self.learning_rate / (1.0 - self.beta_1.powi(steps)),
            second_moment: 1.0 - self.beta_2.powi(steps),
        }
    }
}

/// The moments of a parameter, each of its size, which [`update`] writes.
#[derive(Debug)]
pub struct MomentsMut<'a> {
    /// Mean of gradients.
    pub first: &'a mut [f32],
    /// Mean of squared gradients.
    pub second: &'a mut [f32],
}

/// Values of a task. Sums are first taken within a task, so they do not depend on the number of threads.
pub(super) const TASK: usize = 1 << 14;

/// The factors of an update in `f32`.
#[derive(Clone, Copy)]
struct Factors {
    beta_1: f32,
    one_minus_beta_1: f32,
    beta_2: f32,
    one_minus_beta_2: f32,
    second_correction: f32,
    epsilon: f32,
    step_size: f32,
    decay_factor: f32,
}

simd_dispatch!(fn update_task(
    weight: &[f32], grad: &[f32], first: &mut [f32], second: &mut [f32], factors: Factors, updated: &mut [f32]
) = update_task_body);
simd_dispatch!(fn task_square_sum(values: &[f32]) -> f32 = task_square_sum_body);

#[inline(always)]
fn update_task_body<S: Simd>(
    _: S,
    weight: &[f32],
    grad: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    factors: Factors,
    updated: &mut [f32],
) {
    let moments = first.iter_mut().zip(second);
    for (((updated, weight), grad), (first, second)) in updated.iter_mut().zip(weight).zip(grad).zip(moments) {
        *first = *first * factors.beta_1 + grad * factors.one_minus_beta_1;
        *second = *second * factors.beta_2 + grad * grad * factors.one_minus_beta_2;
        let root = (*second / factors.second_correction).sqrt() + factors.epsilon;
        *updated = weight * factors.decay_factor - *first / root * factors.step_size;
    }
}

#[inline(always)]
fn task_square_sum_body<S: Simd>(simd: S, values: &[f32]) -> f32 {
    dot(simd, values, values)
}

/// The weight after a step. The moments are updated in place.
pub fn update(weight: &[f32], grad: &[f32], moments: MomentsMut<'_>, step: &AdamWStep) -> Vec<f32> {
    let BiasCorrection { step_size, second_moment } = step.bias_correction();
    let factors = Factors {
        beta_1: step.beta_1 as f32,
        one_minus_beta_1: (1.0 - step.beta_1) as f32,
        beta_2: step.beta_2 as f32,
        one_minus_beta_2: (1.0 - step.beta_2) as f32,
        second_correction: second_moment as f32,
        epsilon: step.epsilon as f32,
        step_size: step_size as f32,
        decay_factor: step.decay_factor() as f32,
    };
    let mut updated = vec![0.0; weight.len()];
    let moments = moments.first.par_chunks_mut(TASK).zip(moments.second.par_chunks_mut(TASK));
    let inputs = weight.par_chunks(TASK).zip(grad.par_chunks(TASK));
    updated.par_chunks_mut(TASK).zip(inputs).zip(moments).for_each(|((updated, (weight, grad)), (first, second))| {
        update_task(weight, grad, first, second, factors, updated);
    });
    updated
}

/// The sum of the squares of all values.
pub fn square_sum(values: &[f32]) -> f32 {
    let sums: Vec<f32> = values.par_chunks(TASK).map(task_square_sum).collect();
    sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    #[test]
    fn matches_the_definition() {
        for n in [1, 19, 20_000] {
            let (mut weight, grads) = (numbers(n, 1), [numbers(n, 2), numbers(n, 3)]);
            let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
            let mut reference: Vec<[f64; 3]> = weight.iter().map(|&weight| [f64::from(weight), 0.0, 0.0]).collect();
            for (index, grad) in (1..).zip(&grads) {
                let step = AdamWStep {
                    learning_rate: 0.01,
                    beta_1: 0.9,
                    beta_2: 0.95,
                    epsilon: 1e-8,
                    weight_decay: 0.1,
                    step: index,
                };
                let moments = MomentsMut { first: &mut first, second: &mut second };
                weight = update(&weight, grad, moments, &step);
                for ([weight, first, second], &grad) in reference.iter_mut().zip(grad) {
                    let grad = f64::from(grad);
                    *first = 0.9 * *first + 0.1 * grad;
                    *second = 0.95 * *second + 0.05 * grad * grad;
                    let (mean, squares) =
                        (*first / (1.0 - 0.9f64.powi(index as i32)), *second / (1.0 - 0.95f64.powi(index as i32)));
                    *weight -= 0.01 * 0.1 * *weight + 0.01 * mean / (squares.sqrt() + 1e-8);
                }
            }
            for (at, [expected, expected_first, expected_second]) in reference.into_iter().enumerate() {
                assert!((f64::from(weight[at]) - expected).abs() < 1e-6);
                assert!((f64::from(first[at]) - expected_first).abs() < 1e-6);
                assert!((f64::from(second[at]) - expected_second).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn sums_squares() {
        for n in [0, 1, 17, 40_000] {
            let values = numbers(n, 1);
            let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
            assert!((f64::from(square_sum(&values)) - expected).abs() <= 1e-5 * expected);
        }
    }
}
