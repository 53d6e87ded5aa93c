//! Layer norm of each head followed by RoPE, over `x` `[n, heads, head_dim]`.
//!
//! For each head, `z = (x − mean) / √(variance + ε) · weight + bias`. Then RoPE rotates each pair
//! `(z[i], z[i + head_dim / 2])` by the angle of its token and `i`. One pass over the memory does both.

use crate::parallel::*;

use crate::memory::zeros;
use crate::simd::reduce::{sum_rows, total};
use crate::simd::{LANES, Simd, simd_dispatch};

/// Tokens of a task. Sums over tokens are first taken within a task, so they do not depend on the number of threads.
const TASK_TOKENS: usize = 64;

/// Sizes of the norm.
#[derive(Debug, Clone, Copy)]
pub struct HeadNormShape {
    /// Heads of a token.
    pub heads: usize,
    /// Elements of a head: even and above zero.
    pub head_dim: usize,
    /// Rows of weight and bias, each shared by `heads / weight_rows` consecutive heads.
    pub weight_rows: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Parameters of the norm, and angles of the rotation.
#[derive(Debug, Clone, Copy)]
pub struct HeadNormParams<'a> {
    /// `[weight_rows, head_dim]`.
    pub weight: &'a [f32],
    /// `[weight_rows, head_dim]`.
    pub bias: &'a [f32],
    /// Cosines of the angles, `[n, head_dim / 2]`.
    pub cos: &'a [f32],
    /// Sines of the angles, `[n, head_dim / 2]`.
    pub sin: &'a [f32],
}

/// The result of [`backward`].
#[derive(Debug, Clone)]
pub struct HeadNormGradients {
    /// Gradient of `x`, `[n, heads, head_dim]`.
    pub dx: Vec<f32>,
    /// Gradient of the weight, `[weight_rows, head_dim]`.
    pub dweight: Vec<f32>,
    /// Gradient of the bias, `[weight_rows, head_dim]`.
    pub dbias: Vec<f32>,
}

simd_dispatch!(fn norm_tokens(
    x: &[f32], params: HeadNormParams<'_>, shape: &HeadNormShape, y: &mut [f32]
) = norm_tokens_body);
simd_dispatch!(fn norm_tokens_gradient(
    x: &[f32], params: HeadNormParams<'_>, shape: &HeadNormShape, dy: &[f32], dx: &mut [f32], dparams: &mut [f32]
) = norm_tokens_gradient_body);

/// Calls a body with the usual head sizes as constants, for which the compiler unrolls the loops.
macro_rules! with_constant_head_dim {
    ($head_dim:expr, $body:ident($($arg:expr),*)) => {
        match $head_dim {
            32 => $body($($arg),*, 32),
            64 => $body($($arg),*, 64),
            128 => $body($($arg),*, 128),
            other => $body($($arg),*, other),
        }
    };
}

#[inline(always)]
fn norm_tokens_body<S: Simd>(_: S, x: &[f32], params: HeadNormParams<'_>, shape: &HeadNormShape, y: &mut [f32]) {
    with_constant_head_dim!(shape.head_dim, norm_heads(x, params, shape, y));
}

#[inline(always)]
fn norm_tokens_gradient_body<S: Simd>(
    _: S,
    x: &[f32],
    params: HeadNormParams<'_>,
    shape: &HeadNormShape,
    dy: &[f32],
    dx: &mut [f32],
    dparams: &mut [f32],
) {
    with_constant_head_dim!(shape.head_dim, norm_heads_gradient(x, params, shape, dy, dx, dparams));
}

/// The sum of `values`, and their dot product with `others`, in an order that depends on the length alone.
#[inline(always)]
fn sum_and_dot(values: &[f32], others: &[f32]) -> (f32, f32) {
    let ((values, rest), (others, others_rest)) = (values.as_chunks::<LANES>(), others.as_chunks::<LANES>());
    let (mut sums, mut dots) = ([0.0; LANES], [0.0; LANES]);
    for (values, others) in values.iter().zip(others) {
        for lane in 0..LANES {
            sums[lane] += values[lane];
            dots[lane] += values[lane] * others[lane];
        }
    }
    for (lane, (value, other)) in rest.iter().zip(others_rest).enumerate() {
        sums[lane] += value;
        dots[lane] += value * other;
    }
    (total(sums), total(dots))
}

/// Stores `x − mean` to `centred`; returns `1 / √(variance + ε)`.
#[inline(always)]
fn centre(x: &[f32], epsilon: f32, centred: &mut [f32]) -> f32 {
    let width = x.len() as f32;
    let mean = sum_and_dot(x, x).0 / width;
    for (centred, x) in centred.iter_mut().zip(x) {
        *centred = x - mean;
    }
    (sum_and_dot(centred, centred).1 / width + epsilon).sqrt().recip()
}

#[inline(always)]
fn norm_heads(x: &[f32], params: HeadNormParams<'_>, shape: &HeadNormShape, y: &mut [f32], head_dim: usize) {
    let (half, group) = (head_dim / 2, shape.heads / shape.weight_rows);
    let angles = params.cos.chunks_exact(half).zip(params.sin.chunks_exact(half));
    let tokens = x.chunks_exact(shape.heads * head_dim).zip(y.chunks_exact_mut(shape.heads * head_dim));
    for ((x, y), (cos, sin)) in tokens.zip(angles) {
        for (head, (x, y)) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)).enumerate() {
            let row = head / group * head_dim;
            let (weight, bias) = (&params.weight[row..row + head_dim], &params.bias[row..row + head_dim]);
            let inverse_deviation = centre(x, shape.epsilon, y);
            for ((y, weight), bias) in y.iter_mut().zip(weight).zip(bias) {
                *y = *y * inverse_deviation * weight + bias;
            }
            let (first, second) = y.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// Stores the gradient of `x`, and adds those of weight and bias to `dparams` `[weight_rows, 2, head_dim]`.
#[inline(always)]
fn norm_heads_gradient(
    x: &[f32],
    params: HeadNormParams<'_>,
    shape: &HeadNormShape,
    dy: &[f32],
    dx: &mut [f32],
    dparams: &mut [f32],
    head_dim: usize,
) {
    let (half, group, width) = (head_dim / 2, shape.heads / shape.weight_rows, head_dim as f32);
    let angles = params.cos.chunks_exact(half).zip(params.sin.chunks_exact(half));
    let token_size = shape.heads * head_dim;
    let mut normed = vec![0.0; head_dim];
    let tokens = x.chunks_exact(token_size).zip(dy.chunks_exact(token_size)).zip(dx.chunks_exact_mut(token_size));
    for (((x, dy), dx), (cos, sin)) in tokens.zip(angles) {
        let heads = x.chunks_exact(head_dim).zip(dy.chunks_exact(head_dim)).zip(dx.chunks_exact_mut(head_dim));
        for (head, ((x, dy), dx)) in heads.enumerate() {
            let row = head / group;
            let weight = &params.weight[row * head_dim..][..head_dim];
            let (dweight, dbias) = dparams[row * 2 * head_dim..][..2 * head_dim].split_at_mut(head_dim);
            let normed = &mut normed[..head_dim];
            let inverse_deviation = centre(x, shape.epsilon, normed);
            // Backward through the rotation: by the opposite angle.
            let (first, second) = dx.split_at_mut(half);
            let (a, b) = dy.split_at(half);
            for pair in 0..half {
                first[pair] = a[pair] * cos[pair] + b[pair] * sin[pair];
                second[pair] = b[pair] * cos[pair] - a[pair] * sin[pair];
            }
            // Backward through weight and bias.
            for at in 0..head_dim {
                normed[at] *= inverse_deviation;
                dweight[at] += dx[at] * normed[at];
                dbias[at] += dx[at];
                dx[at] *= weight[at];
            }
            // Backward through the norm: remove the components along the mean and along the normed values.
            let (sum, dot) = sum_and_dot(dx, normed);
            let (mean, projection) = (sum / width, dot / width);
            for (dx, normed) in dx.iter_mut().zip(normed) {
                *dx = (*dx - mean - *normed * projection) * inverse_deviation;
            }
        }
    }
}

/// The parameters with the angles of the tokens of a task, which has `values` values of `x`.
fn task_params<'a>(
    params: HeadNormParams<'a>,
    shape: &HeadNormShape,
    task: usize,
    values: usize,
) -> HeadNormParams<'a> {
    let half = shape.head_dim / 2;
    let (first, tokens) = (task * TASK_TOKENS, values / (shape.heads * shape.head_dim));
    let range = first * half..(first + tokens) * half;
    HeadNormParams { cos: &params.cos[range.clone()], sin: &params.sin[range], ..params }
}

/// The normed and rotated heads of `x` `[n, heads, head_dim]`, as `x`.
pub fn forward(x: &[f32], params: HeadNormParams<'_>, shape: &HeadNormShape) -> Vec<f32> {
    let mut y = zeros(x.len());
    forward_into(x, params, shape, &mut y);
    y
}

/// [`forward`] into existing memory `y`, of the size of `x`.
pub fn forward_into(x: &[f32], params: HeadNormParams<'_>, shape: &HeadNormShape, y: &mut [f32]) {
    let size = TASK_TOKENS * shape.heads * shape.head_dim;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).enumerate().for_each(|(task, (y, x))| {
        norm_tokens(x, task_params(params, shape, task, x.len()), shape, y);
    });
}

/// The gradients of `x`, weight and bias, from `dy`, of the size of `x`.
pub fn backward(x: &[f32], params: HeadNormParams<'_>, shape: &HeadNormShape, dy: &[f32]) -> HeadNormGradients {
    let mut dx = zeros(x.len());
    let size = TASK_TOKENS * shape.heads * shape.head_dim;
    let tasks = dx.par_chunks_mut(size).zip(x.par_chunks(size)).zip(dy.par_chunks(size)).enumerate();
    let parts: Vec<Vec<f32>> = tasks
        .map(|(task, ((dx, x), dy))| {
            let mut dparams = vec![0.0; 2 * params.weight.len()];
            norm_tokens_gradient(x, task_params(params, shape, task, x.len()), shape, dy, dx, &mut dparams);
            dparams
        })
        .collect();
    let dparams = sum_rows(parts, 2 * params.weight.len());
    let rows = dparams.chunks_exact(shape.head_dim).enumerate();
    let (dweight, dbias): (Vec<_>, Vec<_>) = rows.partition(|(index, _)| index % 2 == 0);
    let joined = |rows: Vec<(usize, &[f32])>| rows.into_iter().flat_map(|(_, row)| row).copied().collect();
    HeadNormGradients { dx, dweight: joined(dweight), dbias: joined(dbias) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_gradients, numbers};

    #[test]
    fn matches_the_definition_and_its_numerical_gradients() {
        for (n, heads, weight_rows, head_dim) in
            [(1, 1, 1, 2), (3, 4, 2, 6), (2, 6, 1, 32), (130, 2, 2, 10), (2, 3, 3, 64)]
        {
            let shape = HeadNormShape { heads, head_dim, weight_rows, epsilon: 1e-5 };
            let half = head_dim / 2;
            let angles = numbers(n * half, 5);
            let cos: Vec<f32> = angles.iter().map(|angle| (4.0 * angle).cos()).collect();
            let sin: Vec<f32> = angles.iter().map(|angle| (4.0 * angle).sin()).collect();
            let (x, dy) = (numbers(n * heads * head_dim, 1), numbers(n * heads * head_dim, 4));
            let (weight, bias) = (numbers(weight_rows * head_dim, 2), numbers(weight_rows * head_dim, 3));
            let reference = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let heads = inputs[0].chunks_exact(head_dim).enumerate().flat_map(|(index, x)| {
                    let (token, row) = (index / heads, index % heads / (heads / weight_rows));
                    let mean = x.iter().sum::<f64>() / head_dim as f64;
                    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / head_dim as f64;
                    let normed = |at: usize| {
                        let normed = (x[at] - mean) / (variance + 1e-5).sqrt();
                        normed * inputs[1][row * head_dim + at] + inputs[2][row * head_dim + at]
                    };
                    let rotated = |at: usize| {
                        let (cos, sin) = (cos[token * half + at % half], sin[token * half + at % half]);
                        let (cos, sin) = (f64::from(cos), f64::from(sin));
                        if at < half {
                            normed(at) * cos - normed(at + half) * sin
                        } else {
                            normed(at) * cos + normed(at - half) * sin
                        }
                    };
                    (0..head_dim).map(rotated).collect::<Vec<_>>()
                });
                heads.collect()
            };
            let params = HeadNormParams { weight: &weight, bias: &bias, cos: &cos, sin: &sin };
            let y = forward(&x, params, &shape);
            let HeadNormGradients { dx, dweight, dbias } = backward(&x, params, &shape, &dy);
            assert_close(&y, &[&x, &weight, &bias], &reference);
            assert_gradients(&[&x, &weight, &bias], &[&dx, &dweight, &dbias], &dy, &reference);
        }
    }
}
