//! Muon (Jordan et al. 2024): one update of a matrix.
//!
//! With gradient `g` and the sum of gradients `s`: `s = momentum · s + g`, then
//! `w = w (1 − lr · weight_decay) − lr · 0.2 √(longer side) · O(momentum · s + g)`. `O` makes all singular values of a
//! matrix about 1, by five Newton-Schulz iterations of products.

use crate::matmul::f32_gemm::Operand::{Normal, Transposed};
use crate::matmul::f32_gemm::{GemmShape, gemm};
use crate::parallel::*;

use super::adamw::{TASK, square_sum};

/// Hyperparameters of a step of Muon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the weights, as a factor of the learning rate.
    pub weight_decay: f64,
    /// Decay of the sum of gradients.
    pub momentum: f64,
}

impl MuonStep {
    /// The factor of the weight before the update: `1 − learning_rate · weight_decay`.
    pub fn decay_factor(&self) -> f64 {
        1.0 - self.learning_rate * self.weight_decay
    }

    /// The factor of a matrix of these sides with singular values of about 1. Updates are as large as AdamW's, so that
    /// both share learning rate and weight decay (arXiv 2502.16982 §2.2).
    pub fn step_size(&self, sides: [usize; 2]) -> f64 {
        let longer = sides[0].max(sides[1]);
        self.learning_rate * 0.2 * (longer as f64).sqrt()
    }
}

/// Iterations of [`orthogonalize`].
pub const ITERATIONS: usize = 5;
/// The factors of `X`, `(X · Xᵀ) · X` and `(X · Xᵀ)² · X` in an iteration: small singular values grow fast, and large
/// ones stay near 1.
pub const FACTORS: [f32; 3] = [3.4445, -4.775, 2.0315];
/// A matrix is divided by its norm, or by this where the norm is smaller.
pub const MIN_NORM: f32 = 1e-7;

/// The weight `[rows, columns]` after a step. The sum of gradients is updated in place.
///
/// # Panics
/// If a slice has fewer values than the sides say.
pub fn update(weight: &[f32], gradient: &[f32], sum: &mut [f32], sides: [usize; 2], step: &MuonStep) -> Vec<f32> {
    let momentum = step.momentum as f32;
    let mut ahead = vec![0.0; weight.len()];
    let sums = sum.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK));
    ahead.par_chunks_mut(TASK).zip(sums).for_each(|(ahead, (sum, gradient))| {
        for ((ahead, sum), gradient) in ahead.iter_mut().zip(sum).zip(gradient) {
            *sum = *sum * momentum + gradient;
            *ahead = *sum * momentum + gradient;
        }
    });
    let mut updated = orthogonalize(ahead, sides);
    let (decay_factor, step_size) = (step.decay_factor() as f32, step.step_size(sides) as f32);
    updated.par_chunks_mut(TASK).zip(weight.par_chunks(TASK)).for_each(|(updated, weight)| {
        updated
            .iter_mut()
            .zip(weight)
            .for_each(|(updated, weight)| *updated = weight * decay_factor - *updated * step_size);
    });
    updated
}

/// The matrix `[rows, columns]` with all singular values about 1: `U · Vᵀ` of `U · S · Vᵀ`, roughly.
///
/// # Panics
/// If there are fewer values than the sides say.
pub fn orthogonalize(mut matrix: Vec<f32>, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let [first, third, fifth] = FACTORS;
    let norm = square_sum(&matrix).sqrt().max(MIN_NORM);
    matrix.par_chunks_mut(TASK).for_each(|values| values.iter_mut().for_each(|value| *value /= norm));
    // The products of pairs of rows, or of columns where those are fewer.
    let (side, is_wide) = (rows.min(columns), rows <= columns);
    let square = GemmShape { m: side, n: side, k: side };
    for _ in 0..ITERATIONS {
        let pairs = if is_wide {
            gemm(Normal(&matrix), Transposed(&matrix), GemmShape { k: columns, ..square })
        } else {
            gemm(Transposed(&matrix), Normal(&matrix), GemmShape { k: rows, ..square })
        };
        // first + third · pairs + fifth · pairs², with one product.
        let mut factor: Vec<f32> = pairs.iter().map(|pair| pair * fifth).collect();
        add_to_diagonal(&mut factor, side, third);
        let mut factor = gemm(Normal(&pairs), Normal(&factor), square);
        add_to_diagonal(&mut factor, side, first);
        let shape = GemmShape { m: rows, n: columns, k: side };
        matrix = if is_wide {
            gemm(Normal(&factor), Normal(&matrix), shape)
        } else {
            gemm(Normal(&matrix), Normal(&factor), shape)
        };
    }
    matrix
}

/// Adds to the diagonal of a matrix `[side, side]`.
fn add_to_diagonal(matrix: &mut [f32], side: usize, value: f32) {
    matrix.iter_mut().step_by(side + 1).for_each(|entry| *entry += value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    /// `A · B` of `[m, k]` and `[k, n]`.
    fn product(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
        (0..m * n).map(|at| (0..k).map(|i| a[at / n * k + i] * b[i * n + at % n]).sum()).collect()
    }

    fn transpose(values: &[f64], columns: usize) -> Vec<f64> {
        let rows = values.len() / columns;
        (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
    }

    /// As it is written: `X = aX + b(XXᵀ)X + c(XXᵀ)²X`.
    fn reference(matrix: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
        let norm = matrix.iter().map(|value| value * value).sum::<f64>().sqrt();
        let mut x: Vec<f64> = matrix.iter().map(|value| value / norm).collect();
        for _ in 0..5 {
            let pairs = product(&x, &transpose(&x, columns), [rows, columns, rows]);
            let third = product(&pairs, &x, [rows, rows, columns]);
            let fifth = product(&pairs, &third, [rows, rows, columns]);
            for ((x, third), fifth) in x.iter_mut().zip(third).zip(fifth) {
                *x = 3.4445 * *x - 4.775 * third + 2.0315 * fifth;
            }
        }
        x
    }

    #[test]
    fn matches_the_definition_in_two_steps() {
        for sides in [[1, 1], [3, 3], [2, 7], [40, 9], [24, 70]] {
            let [rows, columns] = sides;
            let n = rows * columns;
            let step = MuonStep { learning_rate: 0.02, weight_decay: 0.1, momentum: 0.95 };
            let mut weight = numbers(n, 1);
            let mut sum = vec![0.0; n];
            let mut expected: Vec<f64> = weight.iter().map(|&weight| f64::from(weight)).collect();
            let mut expected_sum = vec![0.0; n];
            for seed in [2, 3] {
                let gradient = numbers(n, seed);
                weight = update(&weight, &gradient, &mut sum, sides, &step);
                let gradient: Vec<f64> = gradient.iter().map(|&gradient| f64::from(gradient)).collect();
                for (sum, gradient) in expected_sum.iter_mut().zip(&gradient) {
                    *sum = 0.95 * *sum + gradient;
                }
                let ahead: Vec<f64> =
                    expected_sum.iter().zip(&gradient).map(|(sum, gradient)| 0.95 * sum + gradient).collect();
                let step = 0.02 * 0.2 * (rows.max(columns) as f64).sqrt();
                for (expected, by) in expected.iter_mut().zip(reference(&ahead, sides)) {
                    *expected = *expected * (1.0 - 0.02 * 0.1) - step * by;
                }
            }
            for (found, expected) in weight.iter().zip(&expected).chain(sum.iter().zip(&expected_sum)) {
                assert!((f64::from(*found) - expected).abs() < 2e-5, "{sides:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn singular_values_become_about_one() {
        // Of a matrix with orthogonal rows of lengths 3 and 1, with zeros between their values.
        let mut matrix = vec![0.0; 2 * 300];
        (0..150).for_each(|at| (matrix[2 * at], matrix[300 + 2 * at + 1]) = (3.0, 1.0));
        let result = orthogonalize(matrix, [2, 300]);
        for row in result.chunks_exact(300) {
            let length = square_sum(row).sqrt();
            assert!((0.6..1.3).contains(&length), "{length}");
        }
        assert_eq!(orthogonalize(vec![0.0; 6], [2, 3]), [0.0; 6]);
    }
}
