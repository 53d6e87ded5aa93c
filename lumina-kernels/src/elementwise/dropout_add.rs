//! Addition to the residual stream with dropout: `x + mask · scale · y`.
//!
//! The mask is given, `[n]` bytes, so that a layer which runs twice drops the same values.

use crate::parallel::*;

use crate::memory::zeros;
use crate::simd::{Simd, simd_dispatch};

/// Values of a task.
const TASK: usize = 1 << 14;

simd_dispatch!(fn add(x: &[f32], y: &[f32], mask: &[u8], scale: f32, result: &mut [f32]) = add_body);
simd_dispatch!(fn masked(y: &[f32], mask: &[u8], scale: f32, result: &mut [f32]) = masked_body);

#[inline(always)]
fn add_body<S: Simd>(_: S, x: &[f32], y: &[f32], mask: &[u8], scale: f32, result: &mut [f32]) {
    for (((result, x), y), &mask) in result.iter_mut().zip(x).zip(y).zip(mask) {
        *result = x + if mask != 0 { y * scale } else { 0.0 };
    }
}

#[inline(always)]
fn masked_body<S: Simd>(_: S, y: &[f32], mask: &[u8], scale: f32, result: &mut [f32]) {
    for ((result, y), &mask) in result.iter_mut().zip(y).zip(mask) {
        *result = if mask != 0 { y * scale } else { 0.0 };
    }
}

/// `x + y · scale` where `mask` is not zero, and `x` where it is zero.
pub fn forward(x: &[f32], y: &[f32], mask: &[u8], scale: f32) -> Vec<f32> {
    let mut result = zeros(x.len());
    let tasks = result.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
    let tasks = tasks.zip(y.par_chunks(TASK)).zip(mask.par_chunks(TASK));
    tasks.for_each(|(((result, x), y), mask)| add(x, y, mask, scale, result));
    result
}

/// The gradient of `y`; the gradient of `x` is `dy` itself.
pub fn backward(dy: &[f32], mask: &[u8], scale: f32) -> Vec<f32> {
    let mut result = vec![0.0; dy.len()];
    let tasks = result.par_chunks_mut(TASK).zip(dy.par_chunks(TASK)).zip(mask.par_chunks(TASK));
    tasks.for_each(|((result, dy), mask)| masked(dy, mask, scale, result));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_gradients, numbers};

    #[test]
    fn matches_the_definition_and_its_numerical_gradients() {
        for n in [1, 33, 20_000] {
            let (x, y, dy) = (numbers(n, 1), numbers(n, 2), numbers(n, 3));
            let mask: Vec<u8> = numbers(n, 4).iter().map(|&value| u8::from(value > -0.5)).collect();
            let reference = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let values = inputs[0].iter().zip(&inputs[1]).zip(&mask);
                values.map(|((x, y), &mask)| x + y * f64::from(mask) * 1.25).collect()
            };
            assert_close(&forward(&x, &y, &mask, 1.25), &[&x, &y], &reference);
            assert_gradients(&[&x, &y], &[&dy, &backward(&dy, &mask, 1.25)], &dy, &reference);
        }
    }
}
