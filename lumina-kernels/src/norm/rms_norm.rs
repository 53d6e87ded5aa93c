//! RMS norm: `y = x · inverse_rms · weight` with `inverse_rms = 1 / √(mean(x²) + ε)`, over the rows of `x` `[n,
//! width]`.
//!
//! The forward pass returns `inverse_rms` `[n]` for the backward pass, so that the mean is computed once.

use crate::parallel::*;

use crate::memory::zeros;
use crate::simd::reduce::{dot, sum_rows};
use crate::simd::{Simd, simd_dispatch};

/// Rows of a task. Sums over rows are first taken within a task, so they do not depend on the number of threads.
const TASK_ROWS: usize = 64;

simd_dispatch!(fn norm_rows(
    x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverse_rms: &mut [f32]
) = norm_rows_body);
simd_dispatch!(fn add_and_norm_rows(
    x: &mut [f32], y: &[f32], weight: &[f32], epsilon: f32, normed: &mut [f32], inverse_rms: &mut [f32]
) = add_and_norm_rows_body);
simd_dispatch!(fn norm_rows_gradient(
    x: &[f32], weight: &[f32], inverse_rms: &[f32], dy: &[f32], dx: &mut [f32], dweight: &mut [f32]
) = norm_rows_gradient_body);

#[inline(always)]
fn norm_rows_body<S: Simd>(simd: S, x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverse_rms: &mut [f32]) {
    let width = weight.len();
    for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse_rms) {
        *inverse = (dot(simd, x, x) / width as f32 + epsilon).sqrt().recip();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * *inverse * weight;
        }
    }
}

#[inline(always)]
fn add_and_norm_rows_body<S: Simd>(
    simd: S,
    x: &mut [f32],
    y: &[f32],
    weight: &[f32],
    epsilon: f32,
    normed: &mut [f32],
    inverse_rms: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(normed.chunks_exact_mut(width));
    for (((x, y), normed), inverse_rms) in rows.zip(inverse_rms) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        norm_rows_body(simd, x, weight, epsilon, normed, std::slice::from_mut(inverse_rms));
    }
}

#[inline(always)]
fn norm_rows_gradient_body<S: Simd>(
    simd: S,
    x: &[f32],
    weight: &[f32],
    inverse_rms: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(inverse_rms);
    for (((x, dy), dx), &inverse) in rows {
        for (((dx, dy), x), (weight, dweight)) in dx.iter_mut().zip(dy).zip(x).zip(weight.iter().zip(&mut *dweight)) {
            *dx = dy * weight;
            *dweight += dy * (x * inverse);
        }
        let projection = dot(simd, dx, x) * inverse * inverse / width as f32;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = (*dx - x * projection) * inverse;
        }
    }
}

/// The result of [`forward`].
#[derive(Debug, Clone)]
pub struct RmsNormOutput {
    /// `[n, width]`, as `x`.
    pub y: Vec<f32>,
    /// `1 / √(mean(x²) + ε)` of each row, `[n]`.
    pub inverse_rms: Vec<f32>,
}

/// The result of [`backward`].
#[derive(Debug, Clone, PartialEq)]
pub struct RmsNormGradients {
    /// Gradient of `x`, `[n, width]`.
    pub dx: Vec<f32>,
    /// Gradient of the weight, `[width]`.
    pub dweight: Vec<f32>,
}

/// The norm of `x` `[n, width]` with `weight` `[width]`.
pub fn forward(x: &[f32], weight: &[f32], epsilon: f32) -> RmsNormOutput {
    let (mut y, mut inverse_rms) = (zeros(x.len()), vec![0.0; x.len() / weight.len().max(1)]);
    forward_into(x, weight, epsilon, &mut y, &mut inverse_rms);
    RmsNormOutput { y, inverse_rms }
}

/// [`forward`] into existing memory: `y` `[n, width]` and `inverse_rms` `[n]`.
pub fn forward_into(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverse_rms: &mut [f32]) {
    let task = TASK_ROWS * weight.len().max(1);
    let tasks = y.par_chunks_mut(task).zip(x.par_chunks(task));
    tasks
        .zip(inverse_rms.par_chunks_mut(TASK_ROWS))
        .for_each(|((y, x), inverse_rms)| norm_rows(x, weight, epsilon, y, inverse_rms));
}

/// Inputs of [`add_forward_into`].
#[derive(Debug, Clone, Copy)]
pub struct AddRmsNorm<'a> {
    /// What is added, `[n, width]`.
    pub y: &'a [f32],
    /// The weight of the norm, `[width]`.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Adds `y` to `x` `[n, width]`, and stores the norm of the sum to `normed`. The results are those of an addition and
/// [`forward_into`]. It works row by row, so the norm reads the sum from the cache.
pub fn add_forward_into(x: &mut [f32], inputs: AddRmsNorm<'_>, normed: &mut [f32], inverse_rms: &mut [f32]) {
    let AddRmsNorm { y, weight, epsilon } = inputs;
    let task = TASK_ROWS * weight.len().max(1);
    let tasks = x.par_chunks_mut(task).zip(y.par_chunks(task)).zip(normed.par_chunks_mut(task));
    tasks
        .zip(inverse_rms.par_chunks_mut(TASK_ROWS))
        .for_each(|(((x, y), normed), inverse_rms)| add_and_norm_rows(x, y, weight, epsilon, normed, inverse_rms));
}

/// The gradients of `x` and the weight, from `dy` `[n, width]` and the `inverse_rms` of the forward pass.
pub fn backward(x: &[f32], weight: &[f32], inverse_rms: &[f32], dy: &[f32]) -> RmsNormGradients {
    let width = weight.len().max(1);
    let mut dx = zeros(x.len());
    let tasks = dx.par_chunks_mut(TASK_ROWS * width).zip(x.par_chunks(TASK_ROWS * width));
    let tasks = tasks.zip(dy.par_chunks(TASK_ROWS * width)).zip(inverse_rms.par_chunks(TASK_ROWS));
    let parts: Vec<Vec<f32>> = tasks
        .map(|(((dx, x), dy), inverse_rms)| {
            let mut dweight = vec![0.0; weight.len()];
            norm_rows_gradient(x, weight, inverse_rms, dy, dx, &mut dweight);
            dweight
        })
        .collect();
    RmsNormGradients { dx, dweight: sum_rows(parts, weight.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_gradients, numbers};

    #[test]
    fn matches_the_definition_and_its_numerical_gradients() {
        for (rows, width) in [(1, 1), (3, 5), (2, 16), (130, 37), (1, 192)] {
            let (x, weight, dy) = (numbers(rows * width, 1), numbers(width, 2), numbers(rows * width, 3));
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let rows = inputs[0].chunks_exact(width).flat_map(|x| {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64;
                    x.iter().zip(&inputs[1]).map(move |(x, weight)| x / (mean + 1e-5).sqrt() * weight)
                });
                rows.collect()
            };
            let RmsNormOutput { y, inverse_rms } = forward(&x, &weight, 1e-5);
            let RmsNormGradients { dx, dweight } = backward(&x, &weight, &inverse_rms, &dy);
            assert_close(&y, &[&x, &weight], &plain);
            assert_gradients(&[&x, &weight], &[&dx, &dweight], &dy, &plain);
        }
    }

    #[test]
    fn zero_rows_have_zero_gradients() {
        assert!(forward(&[], &[1.0, 2.0], 1e-5).y.is_empty());
        let gradients = backward(&[], &[1.0, 2.0], &[], &[]);
        assert_eq!(gradients, RmsNormGradients { dx: vec![], dweight: vec![0.0; 2] });
    }

    #[test]
    fn the_norm_of_a_sum_is_that_of_the_addition() {
        for (n, width) in [(1, 5), (3, 16), (130, 33)] {
            let (x, y, weight) = (numbers(n * width, 1), numbers(n * width, 2), numbers(width, 3));
            let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            let expected = forward(&sum, &weight, 1e-5).y;
            let (mut fused, mut normed, mut inverse_rms) = (x, vec![f32::NAN; n * width], vec![0.0; n]);
            let inputs = AddRmsNorm { y: &y, weight: &weight, epsilon: 1e-5 };
            add_forward_into(&mut fused, inputs, &mut normed, &mut inverse_rms);
            assert_eq!((fused, normed), (sum, expected));
        }
    }
}
