//! RMS norm and its gradients on slices, a row at a time.

use rayon::prelude::*;

use crate::memory::zeros;
use crate::simd::vector::{Vector, best_instructions, dot};

/// Rows of a task. Sums over rows are over the rows of each task first, so they do not depend on the threads.
const TASK_ROWS: usize = 64;

best_instructions!(rows = rows_body(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverses: &mut [f32]));
best_instructions!(sum_rows = sum_rows_body(
    x: &mut [f32], y: &[f32], weight: &[f32], epsilon: f32, normed: &mut [f32], inverses: &mut [f32]
));
best_instructions!(rows_gradient = rows_gradient_body(
    x: &[f32], weight: &[f32], inverses: &[f32], dy: &[f32], dx: &mut [f32], of_weight: &mut [f32]
));

#[inline(always)]
fn rows_body<V: Vector>(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverses: &mut [f32]) {
    let width = weight.len();
    for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverses) {
        *inverse = (dot::<V>(x, x) / width as f32 + epsilon).sqrt().recip();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * *inverse * weight;
        }
    }
}

#[inline(always)]
fn sum_rows_body<V: Vector>(
    x: &mut [f32],
    y: &[f32],
    weight: &[f32],
    epsilon: f32,
    normed: &mut [f32],
    inverses: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(normed.chunks_exact_mut(width));
    for (((x, y), normed), inverse) in rows.zip(inverses) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        rows_body::<V>(x, weight, epsilon, normed, std::slice::from_mut(inverse));
    }
}

#[inline(always)]
fn rows_gradient_body<V: Vector>(
    x: &[f32],
    weight: &[f32],
    inverses: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    of_weight: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(inverses);
    for (((x, dy), dx), &inverse) in rows {
        for (((dx, dy), x), (weight, of_weight)) in dx.iter_mut().zip(dy).zip(x).zip(weight.iter().zip(&mut *of_weight))
        {
            *dx = dy * weight;
            *of_weight += dy * (x * inverse);
        }
        let pull = dot::<V>(dx, x) * inverse * inverse / width as f32;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = (*dx - x * pull) * inverse;
        }
    }
}

/// `x` `[n, width]`: the result, and the reciprocal root of each row's mean square, `[n]`.
pub fn forward(x: &[f32], weight: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let (mut y, mut inverses) = (zeros(x.len()), vec![0.0; x.len() / weight.len().max(1)]);
    into(x, weight, epsilon, &mut y, &mut inverses);
    (y, inverses)
}

/// [`forward`] to where there is room.
pub fn into(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverses: &mut [f32]) {
    let task = TASK_ROWS * weight.len().max(1);
    let tasks = y.par_chunks_mut(task).zip(x.par_chunks(task));
    tasks.zip(inverses.par_chunks_mut(TASK_ROWS)).for_each(|((y, x), inverses)| rows(x, weight, epsilon, y, inverses));
}

/// What [`add_into`] adds, and the norm of the sum.
#[derive(Debug, Clone, Copy)]
pub struct AddNorm<'a> {
    /// What is added, `[n, width]`.
    pub y: &'a [f32],
    /// The weight of the norm, `[width]`.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Adds to `x` `[n, width]` and writes the norm of the sum to `normed`, a row at a time: what was added is still in the cache.
/// The results are those of an addition and [`into`].
pub fn add_into(x: &mut [f32], inputs: AddNorm<'_>, normed: &mut [f32], inverses: &mut [f32]) {
    let AddNorm { y, weight, epsilon } = inputs;
    let task = TASK_ROWS * weight.len().max(1);
    let tasks = x.par_chunks_mut(task).zip(y.par_chunks(task)).zip(normed.par_chunks_mut(task));
    tasks
        .zip(inverses.par_chunks_mut(TASK_ROWS))
        .for_each(|(((x, y), normed), inverses)| sum_rows(x, y, weight, epsilon, normed, inverses));
}

/// The gradients of `x` and of the weight.
pub fn backward(x: &[f32], weight: &[f32], inverses: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len().max(1);
    let mut dx = zeros(x.len());
    let tasks = dx.par_chunks_mut(TASK_ROWS * width).zip(x.par_chunks(TASK_ROWS * width));
    let tasks = tasks.zip(dy.par_chunks(TASK_ROWS * width)).zip(inverses.par_chunks(TASK_ROWS));
    let parts: Vec<Vec<f32>> = tasks
        .map(|(((dx, x), dy), inverses)| {
            let mut of_weight = vec![0.0; weight.len()];
            rows_gradient(x, weight, inverses, dy, dx, &mut of_weight);
            of_weight
        })
        .collect();
    (dx, crate::simd::vector::sum_of(parts, weight.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_slopes, numbers};

    #[test]
    fn is_the_norm_and_its_slopes() {
        for (rows, width) in [(1, 1), (3, 5), (2, 16), (130, 37), (1, 192)] {
            let (x, weight, dy) = (numbers(rows * width, 1), numbers(width, 2), numbers(rows * width, 3));
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let rows = inputs[0].chunks_exact(width).flat_map(|x| {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64;
                    x.iter().zip(&inputs[1]).map(move |(x, weight)| x / (mean + 1e-5).sqrt() * weight)
                });
                rows.collect()
            };
            let (y, inverses) = forward(&x, &weight, 1e-5);
            let (dx, of_weight) = backward(&x, &weight, &inverses, &dy);
            assert_close(&y, &[&x, &weight], &plain);
            assert_slopes(&[&x, &weight], &[&dx, &of_weight], &dy, &plain);
        }
    }

    #[test]
    fn no_rows_are_no_rows() {
        assert!(forward(&[], &[1.0, 2.0], 1e-5).0.is_empty());
        assert_eq!(backward(&[], &[1.0, 2.0], &[], &[]), (vec![], vec![0.0; 2]));
    }

    #[test]
    fn the_norm_of_a_sum_is_that_of_the_addition() {
        for (n, width) in [(1, 5), (3, 16), (130, 33)] {
            let (x, y, weight) = (numbers(n * width, 1), numbers(n * width, 2), numbers(width, 3));
            let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            let (expected, _) = forward(&sum, &weight, 1e-5);
            let (mut fused, mut normed, mut inverses) = (x, vec![f32::NAN; n * width], vec![0.0; n]);
            add_into(&mut fused, AddNorm { y: &y, weight: &weight, epsilon: 1e-5 }, &mut normed, &mut inverses);
            assert_eq!((fused, normed), (sum, expected));
        }
    }
}
