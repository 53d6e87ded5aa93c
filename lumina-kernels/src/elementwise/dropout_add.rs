//! Additions to the residual stream, and their gradients on slices.

use rayon::prelude::*;

use crate::memory::zeros;
use crate::simd::vector::{Vector, best_instructions};

/// Values of a task.
const TASK: usize = 1 << 14;

best_instructions!(sums = sums_body(x: &[f32], y: &[f32], factors: &[u8], scale: f32, result: &mut [f32]));
best_instructions!(scaled = scaled_body(y: &[f32], factors: &[u8], scale: f32, result: &mut [f32]));

#[inline(always)]
fn sums_body<V: Vector>(x: &[f32], y: &[f32], kept: &[u8], scale: f32, result: &mut [f32]) {
    for (((result, x), y), &kept) in result.iter_mut().zip(x).zip(y).zip(kept) {
        *result = x + if kept != 0 { y * scale } else { 0.0 };
    }
}

#[inline(always)]
fn scaled_body<V: Vector>(y: &[f32], kept: &[u8], scale: f32, result: &mut [f32]) {
    for ((result, y), &kept) in result.iter_mut().zip(y).zip(kept) {
        *result = if kept != 0 { y * scale } else { 0.0 };
    }
}

/// `x + y · scale` where `kept` is not zero, elsewhere `x`.
pub fn forward(x: &[f32], y: &[f32], kept: &[u8], scale: f32) -> Vec<f32> {
    let mut result = zeros(x.len());
    let tasks = result.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
    let tasks = tasks.zip(y.par_chunks(TASK)).zip(kept.par_chunks(TASK));
    tasks.for_each(|(((result, x), y), kept)| sums(x, y, kept, scale, result));
    result
}

/// The gradient of `y`; that of `x` is `dy` itself.
pub fn backward(dy: &[f32], kept: &[u8], scale: f32) -> Vec<f32> {
    let mut result = vec![0.0; dy.len()];
    let tasks = result.par_chunks_mut(TASK).zip(dy.par_chunks(TASK)).zip(kept.par_chunks(TASK));
    tasks.for_each(|((result, dy), kept)| scaled(dy, kept, scale, result));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_slopes, numbers};

    #[test]
    fn adds_what_is_kept() {
        for n in [1, 33, 20_000] {
            let (x, y, dy) = (numbers(n, 1), numbers(n, 2), numbers(n, 3));
            let kept: Vec<u8> = numbers(n, 4).iter().map(|&value| u8::from(value > -0.5)).collect();
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let values = inputs[0].iter().zip(&inputs[1]).zip(&kept);
                values.map(|((x, y), &kept)| x + y * f64::from(kept) * 1.25).collect()
            };
            assert_close(&forward(&x, &y, &kept, 1.25), &[&x, &y], &plain);
            assert_slopes(&[&x, &y], &[&dy, &backward(&dy, &kept, 1.25)], &dy, &plain);
        }
    }
}
