//! AdamW, and norms of gradients, on slices.

use rayon::prelude::*;

use crate::simd::vector::{Vector, best_instructions, dot};

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
    pub fn shrink(&self) -> f64 {
        1.0 - self.lr * self.weight_decay
    }

    /// What makes up for the young means: for the mean of gradients, with the learning rate, and for that of squares.
    pub fn corrections(&self) -> (f64, f64) {
        let steps = self.step.min(i32::MAX as u64) as i32;
        (self.lr / (1.0 - self.beta_1.powi(steps)), 1.0 - self.beta_2.powi(steps))
    }
}

/// Values of a task. Sums are over those of each task first, so they do not depend on the threads.
const TASK: usize = 1 << 14;

/// [`AdamWStep`] in the type of the values.
#[derive(Clone, Copy)]
struct Numbers {
    beta_1: f32,
    fresh_1: f32,
    beta_2: f32,
    fresh_2: f32,
    correction: f32,
    epsilon: f32,
    rate: f32,
    shrink: f32,
}

best_instructions!(moved = moved_body(
    weight: &[f32], grad: &[f32], first: &mut [f32], second: &mut [f32], numbers: Numbers, result: &mut [f32]
));
best_instructions!(squares = squares_body(values: &[f32]) -> f32);

#[inline(always)]
fn moved_body<V: Vector>(
    weight: &[f32],
    grad: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    numbers: Numbers,
    result: &mut [f32],
) {
    let state = first.iter_mut().zip(second);
    for (((result, weight), grad), (first, second)) in result.iter_mut().zip(weight).zip(grad).zip(state) {
        *first = *first * numbers.beta_1 + grad * numbers.fresh_1;
        *second = *second * numbers.beta_2 + grad * grad * numbers.fresh_2;
        let root = (*second / numbers.correction).sqrt() + numbers.epsilon;
        *result = weight * numbers.shrink - *first / root * numbers.rate;
    }
}

#[inline(always)]
fn squares_body<V: Vector>(values: &[f32]) -> f32 {
    dot::<V>(values, values)
}

/// The weight after a step; the moments take up the gradient.
pub fn step(weight: &[f32], grad: &[f32], first: &mut [f32], second: &mut [f32], step: &AdamWStep) -> Vec<f32> {
    let (rate, correction) = step.corrections();
    let numbers = Numbers {
        beta_1: step.beta_1 as f32,
        fresh_1: (1.0 - step.beta_1) as f32,
        beta_2: step.beta_2 as f32,
        fresh_2: (1.0 - step.beta_2) as f32,
        correction: correction as f32,
        epsilon: step.epsilon as f32,
        rate: rate as f32,
        shrink: step.shrink() as f32,
    };
    let mut result = vec![0.0; weight.len()];
    let state = first.par_chunks_mut(TASK).zip(second.par_chunks_mut(TASK));
    let inputs = weight.par_chunks(TASK).zip(grad.par_chunks(TASK));
    result.par_chunks_mut(TASK).zip(inputs).zip(state).for_each(|((result, (weight, grad)), (first, second))| {
        moved(weight, grad, first, second, numbers, result);
    });
    result
}

/// The sum of all squares.
pub fn square_sum(values: &[f32]) -> f32 {
    let sums: Vec<f32> = values.par_chunks(TASK).map(squares).collect();
    sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    #[test]
    fn moves_as_defined() {
        for n in [1, 19, 20_000] {
            let (mut weight, grads) = (numbers(n, 1), [numbers(n, 2), numbers(n, 3)]);
            let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
            let mut plain: Vec<[f64; 3]> = weight.iter().map(|&weight| [f64::from(weight), 0.0, 0.0]).collect();
            for (index, grad) in (1..).zip(&grads) {
                let options =
                    AdamWStep { lr: 0.01, beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, weight_decay: 0.1, step: index };
                weight = step(&weight, grad, &mut first, &mut second, &options);
                for ([weight, first, second], &grad) in plain.iter_mut().zip(grad) {
                    let grad = f64::from(grad);
                    *first = 0.9 * *first + 0.1 * grad;
                    *second = 0.95 * *second + 0.05 * grad * grad;
                    let (mean, squares) =
                        (*first / (1.0 - 0.9f64.powi(index as i32)), *second / (1.0 - 0.95f64.powi(index as i32)));
                    *weight -= 0.01 * 0.1 * *weight + 0.01 * mean / (squares.sqrt() + 1e-8);
                }
            }
            for (at, [plain, plain_first, plain_second]) in plain.into_iter().enumerate() {
                assert!((f64::from(weight[at]) - plain).abs() < 1e-6);
                assert!((f64::from(first[at]) - plain_first).abs() < 1e-6);
                assert!((f64::from(second[at]) - plain_second).abs() < 1e-6);
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
