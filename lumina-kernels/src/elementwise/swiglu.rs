//! `silu(gate) · up` and its gradients on slices.

use rayon::prelude::*;

use crate::memory::zeros;
use crate::simd::exp::sigmoid;
use crate::simd::vector::{Vector, best_instructions};

/// Values of a task.
const TASK: usize = 1 << 14;

best_instructions!(gated = gated_body(gate: &[f32], up: &[f32], y: &mut [f32]));
best_instructions!(gradients = gradients_body(
    gate: &[f32], up: &[f32], dy: &[f32], of_gate: &mut [f32], of_up: &mut [f32]
));

#[inline(always)]
fn gated_body<V: Vector>(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate * sigmoid(gate) * up;
    }
}

#[inline(always)]
fn gradients_body<V: Vector>(gate: &[f32], up: &[f32], dy: &[f32], of_gate: &mut [f32], of_up: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(dy);
    for ((((&gate, &up), &dy), of_gate), of_up) in inputs.zip(of_gate).zip(of_up) {
        let s = sigmoid(gate);
        *of_gate = dy * up * s * (1.0 + gate * (1.0 - s));
        *of_up = dy * gate * s;
    }
}

/// As many values as `gate` and `up` have.
pub fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut y = zeros(gate.len());
    into(gate, up, &mut y);
    y
}

/// [`forward`] to where there is room.
pub fn into(gate: &[f32], up: &[f32], y: &mut [f32]) {
    let tasks = y.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK));
    tasks.for_each(|((y, gate), up)| gated(gate, up, y));
}

/// The gradients of gate and up.
pub fn backward(gate: &[f32], up: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut of_gate, mut of_up) = (zeros(gate.len()), zeros(gate.len()));
    let results = of_gate.par_chunks_mut(TASK).zip(of_up.par_chunks_mut(TASK));
    let inputs = gate.par_chunks(TASK).zip(up.par_chunks(TASK)).zip(dy.par_chunks(TASK));
    results.zip(inputs).for_each(|((of_gate, of_up), ((gate, up), dy))| gradients(gate, up, dy, of_gate, of_up));
    (of_gate, of_up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_slopes, numbers};

    #[test]
    fn is_the_gate_and_its_slopes() {
        for n in [1, 15, 17, 1000] {
            let gate: Vec<f32> = numbers(n, 1).iter().map(|value| 6.0 * value).collect();
            let (up, dy) = (numbers(n, 2), numbers(n, 3));
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                inputs[0].iter().zip(&inputs[1]).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
            };
            let (of_gate, of_up) = backward(&gate, &up, &dy);
            assert_close(&forward(&gate, &up), &[&gate, &up], &plain);
            assert_slopes(&[&gate, &up], &[&of_gate, &of_up], &dy, &plain);
        }
    }
}
