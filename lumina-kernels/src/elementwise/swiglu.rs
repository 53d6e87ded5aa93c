//! The gate of an MLP, SwiGLU (arXiv 2002.05202): `silu(gate) · up` with `silu(g) = g · sigmoid(g)`.

use crate::parallel::*;

use crate::memory::zeros;
use crate::simd::exp::sigmoid;
use crate::simd::{Simd, simd_dispatch};

/// Values of a task.
const TASK: usize = 1 << 14;

/// The result of [`backward`].
#[derive(Debug, Clone)]
pub struct SwigluGradients {
    /// Gradient of `gate`.
    pub dgate: Vec<f32>,
    /// Gradient of `up`.
    pub dup: Vec<f32>,
}

simd_dispatch!(fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) = swiglu_body);
simd_dispatch!(fn swiglu_gradient(
    gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]
) = swiglu_gradient_body);

#[inline(always)]
fn swiglu_body<S: Simd>(_: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate * sigmoid(gate) * up;
    }
}

#[inline(always)]
fn swiglu_gradient_body<S: Simd>(_: S, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(dy);
    for ((((&gate, &up), &dy), dgate), dup) in inputs.zip(dgate).zip(dup) {
        let s = sigmoid(gate);
        *dgate = dy * up * s * (1.0 + gate * (1.0 - s));
        *dup = dy * gate * s;
    }
}

/// `silu(gate) · up`, element by element.
pub fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut y = zeros(gate.len());
    forward_into(gate, up, &mut y);
    y
}

/// [`forward`] into existing memory `y`, of the size of `gate`.
pub fn forward_into(gate: &[f32], up: &[f32], y: &mut [f32]) {
    let tasks = y.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK));
    tasks.for_each(|((y, gate), up)| swiglu(gate, up, y));
}

/// The gradients of `gate` and `up`, from `dy`.
pub fn backward(gate: &[f32], up: &[f32], dy: &[f32]) -> SwigluGradients {
    let (mut dgate, mut dup) = (zeros(gate.len()), zeros(gate.len()));
    let results = dgate.par_chunks_mut(TASK).zip(dup.par_chunks_mut(TASK));
    let inputs = gate.par_chunks(TASK).zip(up.par_chunks(TASK)).zip(dy.par_chunks(TASK));
    results.zip(inputs).for_each(|((dgate, dup), ((gate, up), dy))| swiglu_gradient(gate, up, dy, dgate, dup));
    SwigluGradients { dgate, dup }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_gradients, numbers};

    #[test]
    fn matches_the_definition_and_its_numerical_gradients() {
        for n in [1, 15, 17, 1000] {
            let gate: Vec<f32> = numbers(n, 1).iter().map(|value| 6.0 * value).collect();
            let (up, dy) = (numbers(n, 2), numbers(n, 3));
            let reference = |inputs: &[Vec<f64>]| -> Vec<f64> {
                inputs[0].iter().zip(&inputs[1]).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
            };
            let SwigluGradients { dgate, dup } = backward(&gate, &up, &dy);
            assert_close(&forward(&gate, &up), &[&gate, &up], &reference);
            assert_gradients(&[&gate, &up], &[&dgate, &dup], &dy, &reference);
        }
    }
}
