//! Layer norm of heads with rotary positions, and its gradients on slices, a token at a time.

use rayon::prelude::*;

use crate::memory::zeros;
use crate::simd::vector::{LANES, Vector, best_instructions, total};

/// Tokens of a task. Sums over tokens are over those of each task first, so they do not depend on the threads.
const TASK_TOKENS: usize = 64;

/// What the heads of a token have in common.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub heads: usize,
    pub head_dim: usize,
    /// Rows of weight and bias, each for `heads / parts` heads.
    pub parts: usize,
    pub epsilon: f32,
}

/// Inputs that are not the activations: weight and bias `[parts, head_dim]`, cosines and sines `[n, head_dim / 2]`.
#[derive(Clone, Copy)]
pub struct Factors<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

best_instructions!(tokens = tokens_body(x: &[f32], factors: Factors<'_>, shape: &Shape, y: &mut [f32]));
best_instructions!(tokens_gradient = tokens_gradient_body(
    x: &[f32], factors: Factors<'_>, shape: &Shape, dy: &[f32], dx: &mut [f32], of_factors: &mut [f32]
));

/// Calls a body with the usual widths as constants, for which loops are unrolled.
macro_rules! of_width {
    ($head_dim:expr, $body:ident::<$v:ty>($($arg:expr),*)) => {
        match $head_dim {
            32 => $body::<$v>($($arg),*, 32),
            64 => $body::<$v>($($arg),*, 64),
            128 => $body::<$v>($($arg),*, 128),
            other => $body::<$v>($($arg),*, other),
        }
    };
}

#[inline(always)]
fn tokens_body<V: Vector>(x: &[f32], factors: Factors<'_>, shape: &Shape, y: &mut [f32]) {
    of_width!(shape.head_dim, tokens_of::<V>(x, factors, shape, y));
}

#[inline(always)]
fn tokens_gradient_body<V: Vector>(
    x: &[f32],
    factors: Factors<'_>,
    shape: &Shape,
    dy: &[f32],
    dx: &mut [f32],
    of_factors: &mut [f32],
) {
    of_width!(shape.head_dim, tokens_gradient_of::<V>(x, factors, shape, dy, dx, of_factors));
}

/// The sum of the values, and that of their products with `others`, in an order that depends on the length alone.
#[inline(always)]
fn sums(values: &[f32], others: &[f32]) -> (f32, f32) {
    let ((values, rest), (others, others_rest)) = (values.as_chunks::<LANES>(), others.as_chunks::<LANES>());
    let (mut plain, mut products) = ([0.0; LANES], [0.0; LANES]);
    for (values, others) in values.iter().zip(others) {
        for lane in 0..LANES {
            plain[lane] += values[lane];
            products[lane] += values[lane] * others[lane];
        }
    }
    for (lane, (value, other)) in rest.iter().zip(others_rest).enumerate() {
        plain[lane] += value;
        products[lane] += value * other;
    }
    (total(plain), total(products))
}

/// The reciprocal of the deviation; `centred` becomes `x` less its mean.
#[inline(always)]
fn centre(x: &[f32], epsilon: f32, centred: &mut [f32]) -> f32 {
    let width = x.len() as f32;
    let mean = sums(x, x).0 / width;
    for (centred, x) in centred.iter_mut().zip(x) {
        *centred = x - mean;
    }
    (sums(centred, centred).1 / width + epsilon).sqrt().recip()
}

#[inline(always)]
fn tokens_of<V: Vector>(x: &[f32], factors: Factors<'_>, shape: &Shape, y: &mut [f32], head_dim: usize) {
    let (half, group) = (head_dim / 2, shape.heads / shape.parts);
    let angles = factors.cos.chunks_exact(half).zip(factors.sin.chunks_exact(half));
    let tokens = x.chunks_exact(shape.heads * head_dim).zip(y.chunks_exact_mut(shape.heads * head_dim));
    for ((x, y), (cos, sin)) in tokens.zip(angles) {
        for (head, (x, y)) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)).enumerate() {
            let part = head / group * head_dim;
            let (weight, bias) = (&factors.weight[part..part + head_dim], &factors.bias[part..part + head_dim]);
            let inverse = centre(x, shape.epsilon, y);
            for ((y, weight), bias) in y.iter_mut().zip(weight).zip(bias) {
                *y = *y * inverse * weight + bias;
            }
            let (first, second) = y.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// `of_factors` is `[parts, 2, head_dim]`: what is added to the gradients of weight and bias.
#[inline(always)]
fn tokens_gradient_of<V: Vector>(
    x: &[f32],
    factors: Factors<'_>,
    shape: &Shape,
    dy: &[f32],
    dx: &mut [f32],
    of_factors: &mut [f32],
    head_dim: usize,
) {
    let (half, group, width) = (head_dim / 2, shape.heads / shape.parts, head_dim as f32);
    let angles = factors.cos.chunks_exact(half).zip(factors.sin.chunks_exact(half));
    let all = shape.heads * head_dim;
    let mut normed = vec![0.0; head_dim];
    let tokens = x.chunks_exact(all).zip(dy.chunks_exact(all)).zip(dx.chunks_exact_mut(all));
    for (((x, dy), dx), (cos, sin)) in tokens.zip(angles) {
        let heads = x.chunks_exact(head_dim).zip(dy.chunks_exact(head_dim)).zip(dx.chunks_exact_mut(head_dim));
        for (head, ((x, dy), dx)) in heads.enumerate() {
            let part = head / group;
            let weight = &factors.weight[part * head_dim..][..head_dim];
            let of_part = &mut of_factors[part * 2 * head_dim..][..2 * head_dim];
            let (of_weight, of_bias) = of_part.split_at_mut(head_dim);
            let normed = &mut normed[..head_dim];
            let inverse = centre(x, shape.epsilon, normed);
            // Turned back, then through weight and bias.
            let (first, second) = dx.split_at_mut(half);
            let (a, b) = dy.split_at(half);
            for pair in 0..half {
                first[pair] = a[pair] * cos[pair] + b[pair] * sin[pair];
                second[pair] = b[pair] * cos[pair] - a[pair] * sin[pair];
            }
            for at in 0..head_dim {
                normed[at] *= inverse;
                of_weight[at] += dx[at] * normed[at];
                of_bias[at] += dx[at];
                dx[at] *= weight[at];
            }
            let (shift, pull) = sums(dx, normed);
            let (shift, pull) = (shift / width, pull / width);
            for (dx, normed) in dx.iter_mut().zip(normed) {
                *dx = (*dx - shift - *normed * pull) * inverse;
            }
        }
    }
}

/// The cosines and sines of the tokens of a task.
fn of_task<'a>(factors: Factors<'a>, shape: &Shape, task: usize, values: usize) -> Factors<'a> {
    let half = shape.head_dim / 2;
    let (from, tokens) = (task * TASK_TOKENS, values / (shape.heads * shape.head_dim));
    let own = from * half..(from + tokens) * half;
    Factors { cos: &factors.cos[own.clone()], sin: &factors.sin[own], ..factors }
}

/// `x` `[n, heads, head_dim]` → the same. `head_dim` is even and above zero.
pub fn forward(x: &[f32], factors: Factors<'_>, shape: &Shape) -> Vec<f32> {
    let mut y = zeros(x.len());
    into(x, factors, shape, &mut y);
    y
}

/// [`forward`] to where there is room.
pub fn into(x: &[f32], factors: Factors<'_>, shape: &Shape, y: &mut [f32]) {
    let size = TASK_TOKENS * shape.heads * shape.head_dim;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).enumerate().for_each(|(task, (y, x))| {
        tokens(x, of_task(factors, shape, task, x.len()), shape, y);
    });
}

/// The gradients of `x`, weight and bias.
pub fn backward(x: &[f32], factors: Factors<'_>, shape: &Shape, dy: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut dx = zeros(x.len());
    let size = TASK_TOKENS * shape.heads * shape.head_dim;
    let tasks = dx.par_chunks_mut(size).zip(x.par_chunks(size)).zip(dy.par_chunks(size)).enumerate();
    let parts: Vec<Vec<f32>> = tasks
        .map(|(task, ((dx, x), dy))| {
            let mut of_factors = vec![0.0; 2 * factors.weight.len()];
            tokens_gradient(x, of_task(factors, shape, task, x.len()), shape, dy, dx, &mut of_factors);
            of_factors
        })
        .collect();
    let of_factors = crate::simd::vector::sum_of(parts, 2 * factors.weight.len());
    let rows = of_factors.chunks_exact(shape.head_dim).enumerate();
    let (of_weight, of_bias): (Vec<_>, Vec<_>) = rows.partition(|(index, _)| index % 2 == 0);
    let joined = |rows: Vec<(usize, &[f32])>| rows.into_iter().flat_map(|(_, row)| row).copied().collect();
    (dx, joined(of_weight), joined(of_bias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_slopes, numbers};

    #[test]
    fn is_the_norm_turned_and_its_slopes() {
        for (n, heads, parts, head_dim) in [(1, 1, 1, 2), (3, 4, 2, 6), (2, 6, 1, 32), (130, 2, 2, 10), (2, 3, 3, 64)] {
            let shape = Shape { heads, head_dim, parts, epsilon: 1e-5 };
            let half = head_dim / 2;
            let angles = numbers(n * half, 5);
            let cos: Vec<f32> = angles.iter().map(|angle| (4.0 * angle).cos()).collect();
            let sin: Vec<f32> = angles.iter().map(|angle| (4.0 * angle).sin()).collect();
            let (x, dy) = (numbers(n * heads * head_dim, 1), numbers(n * heads * head_dim, 4));
            let (weight, bias) = (numbers(parts * head_dim, 2), numbers(parts * head_dim, 3));
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let heads = inputs[0].chunks_exact(head_dim).enumerate().flat_map(|(index, x)| {
                    let (token, part) = (index / heads, index % heads / (heads / parts));
                    let mean = x.iter().sum::<f64>() / head_dim as f64;
                    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / head_dim as f64;
                    let normed = |at: usize| {
                        let normed = (x[at] - mean) / (variance + 1e-5).sqrt();
                        normed * inputs[1][part * head_dim + at] + inputs[2][part * head_dim + at]
                    };
                    let turned = |at: usize| {
                        let (cos, sin) = (cos[token * half + at % half], sin[token * half + at % half]);
                        let (cos, sin) = (f64::from(cos), f64::from(sin));
                        if at < half {
                            normed(at) * cos - normed(at + half) * sin
                        } else {
                            normed(at) * cos + normed(at - half) * sin
                        }
                    };
                    (0..head_dim).map(turned).collect::<Vec<_>>()
                });
                heads.collect()
            };
            let factors = Factors { weight: &weight, bias: &bias, cos: &cos, sin: &sin };
            let y = forward(&x, factors, &shape);
            let (dx, of_weight, of_bias) = backward(&x, factors, &shape, &dy);
            assert_close(&y, &[&x, &weight, &bias], &plain);
            assert_slopes(&[&x, &weight, &bias], &[&dx, &of_weight, &of_bias], &dy, &plain);
        }
    }
}
