//! Causal attention of whole rows and its gradients on slices, a row and a head at a time.
//!
//! Scores exist for a block of queries of one head only. All products have their right side in rows that are whole
//! vectors, so keys and values are laid out for it, once for all queries of their heads.

use rayon::prelude::*;
use smallvec::SmallVec;

use crate::matmul::serial_gemm::{Left, product, step_of};
use crate::memory::zeros;
use crate::simd::exp::exp;
use crate::simd::vector::{LANES, Vector, best_instructions, largest, total};

/// Queries whose scores exist at the same time.
const BLOCK: usize = 32;

/// The heads of each token.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Shape {
    /// Query heads for one head of keys and values.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    pub fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    /// From a head to the next where they are the right side of a product.
    fn padded(&self) -> usize {
        step_of(self.head_dim)
    }
}

/// A row's part of `[n, heads, head_dim]`, from one head on.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    pub values: &'a [f32],
    /// From a token to the next.
    pub stride: usize,
}

/// What queries attend to: keys and values of a head, `before` tokens and then those of the queries.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub keys: Heads<'a>,
    pub values: Heads<'a>,
    pub before: usize,
}

impl<'a> Heads<'a> {
    fn of(values: &'a [f32], start: usize, head: usize, heads: usize, head_dim: usize) -> Self {
        Self { values: &values[(start * heads + head) * head_dim..], stride: heads * head_dim }
    }

    fn token(&self, token: usize, head_dim: usize) -> &'a [f32] {
        &self.values[token * self.stride..][..head_dim]
    }

    /// Some tokens' heads, one after the other, each filled up to whole vectors.
    fn gather(&self, tokens: std::ops::Range<usize>, shape: &Shape, to: &mut Vec<f32>) {
        let padded = shape.padded();
        to.clear();
        to.resize(tokens.len() * padded, 0.0);
        for (to, token) in to.chunks_exact_mut(padded).zip(tokens) {
            to[..shape.head_dim].copy_from_slice(self.token(token, shape.head_dim));
        }
    }

    /// The heads of `len` tokens as columns of `[head_dim, width]`.
    fn transpose(&self, len: usize, width: usize, shape: &Shape, to: &mut Vec<f32>) {
        to.clear();
        to.resize(shape.head_dim * width, 0.0);
        // A vector's worth of tokens at a time, so that what is written lies together.
        for first in (0..len).step_by(LANES) {
            let tokens = LANES.min(len - first);
            for (at, to) in to.chunks_exact_mut(width).enumerate() {
                let values = self.values[first * self.stride + at..].iter().step_by(self.stride);
                to[first..first + tokens].iter_mut().zip(values).for_each(|(to, &value)| *to = value);
            }
        }
    }
}

/// Memory of a task, used again for the next.
#[derive(Default)]
pub struct Scratch {
    k_columns: Vec<f32>,
    v_columns: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
    d_out: Vec<f32>,
    weights: Vec<f32>,
    d_scores: Vec<f32>,
    of_q: Vec<f32>,
    of_k: Vec<f32>,
    of_v: Vec<f32>,
}

impl Scratch {
    /// How many values there is room for.
    pub fn values(&self) -> usize {
        let Self { k_columns, v_columns, k, v, q, d_out, weights, d_scores, of_q, of_k, of_v } = self;
        let all = [k_columns, v_columns, k, v, q, d_out, weights, d_scores, of_q, of_k, of_v];
        all.into_iter().map(Vec::capacity).sum()
    }
}

/// A row and a head of keys and values, with where the results for each of its tokens go.
pub struct Task<'a> {
    /// The row's first token.
    pub start: usize,
    pub kv_head: usize,
    pub results: SmallVec<[&'a mut [f32]; 4]>,
}

/// Without allocating, those of two rows with the heads of the published 7B.
pub type Tasks<'a> = SmallVec<[Task<'a>; 64]>;

/// The parts of `y` `[n, kv_heads, width]` that each row and head of keys and values fill.
pub fn tasks<'a>(y: &'a mut [f32], lens: &[usize], kv_heads: usize, width: usize) -> Tasks<'a> {
    let mut pieces = y.chunks_exact_mut(width);
    let mut tasks = Tasks::with_capacity(lens.len() * kv_heads);
    let mut start = 0;
    for &len in lens {
        let first = tasks.len();
        tasks.extend((0..kv_heads).map(|kv_head| Task { start, kv_head, results: SmallVec::with_capacity(len) }));
        for _ in 0..len {
            for (task, piece) in tasks[first..].iter_mut().zip(&mut pieces) {
                task.results.push(piece);
            }
        }
        start += len;
    }
    tasks
}

best_instructions!(pub attend = attend_body(
    q: &[f32], seen: Seen<'_>, shape: &Shape, task: &mut Task<'_>, scratch: &mut Scratch
) -> Vec<f32>);
best_instructions!(attend_back = attend_back_body(
    inputs: [&[f32]; 4], sums: &[f32], shape: &Shape, task: (usize, usize, &mut [&mut [f32]]), scratch: &mut Scratch
));

/// The scores of queries `first..end` of a head with the first `seen` keys, scaled, into `to` `[BLOCK, width]`.
#[inline(always)]
fn scores<V: Vector>(
    q: Heads<'_>,
    k_columns: &[f32],
    shape: &Shape,
    (first, end): (usize, usize),
    (seen, width): (usize, usize),
    to: &mut [f32],
) {
    let rows = Left { values: &q.values[first * q.stride..], row: q.stride, column: 1 };
    product::<V>(rows, (k_columns, width), (to, width), [end - first, seen, shape.head_dim], false);
    let scale = shape.scale();
    for to in to.chunks_exact_mut(width).take(end - first) {
        to.iter_mut().for_each(|score| *score *= scale);
    }
}

/// Attention of one row with one head of keys and values: results `[len][group · head_dim]`, and the log-sum-exp of the
/// scores of each query, `[group, len]`.
#[inline(always)]
fn attend_body<V: Vector>(
    q: &[f32],
    seen: Seen<'_>,
    shape: &Shape,
    task: &mut Task<'_>,
    scratch: &mut Scratch,
) -> Vec<f32> {
    let Shape { heads, head_dim, .. } = *shape;
    let (len, before) = (task.results.len(), seen.before);
    let (width, padded) = (step_of(before + len), shape.padded());
    seen.keys.transpose(before + len, width, shape, &mut scratch.k_columns);
    seen.values.gather(0..before + len, shape, &mut scratch.v);
    scratch.weights.resize(BLOCK * width, 0.0);
    scratch.of_q.resize(BLOCK * padded, 0.0);
    let mut sums = Vec::with_capacity(shape.group() * len);
    for member in 0..shape.group() {
        let q = Heads::of(q, task.start, task.kv_head * shape.group() + member, heads, head_dim);
        for first in (0..len).step_by(BLOCK) {
            let end = (first + BLOCK).min(len);
            scores::<V>(q, &scratch.k_columns, shape, (first, end), (before + end, width), &mut scratch.weights);
            let mut factors = [0.0; BLOCK];
            for (query, weights) in (first..end).zip(scratch.weights.chunks_exact_mut(width)) {
                let (seen, hidden) = weights.split_at_mut(before + query + 1);
                let max = largest(seen);
                let sum = exp_and_sum(seen, max);
                hidden.fill(0.0);
                factors[query - first] = sum.recip();
                sums.push(sum.ln() + max);
            }
            let rows = Left { values: &scratch.weights, row: width, column: 1 };
            let size = [end - first, head_dim, before + end];
            product::<V>(rows, (&scratch.v, padded), (&mut scratch.of_q, padded), size, false);
            let attended = scratch.of_q.chunks_exact(padded).zip(factors);
            for (result, (attended, factor)) in task.results[first..end].iter_mut().zip(attended) {
                for (result, value) in result[member * head_dim..][..head_dim].iter_mut().zip(attended) {
                    *result = value * factor;
                }
            }
        }
    }
    sums
}

/// Puts `e^(x − max)` in place of each score, and adds them up.
#[inline(always)]
pub fn exp_and_sum(scores: &mut [f32], max: f32) -> f32 {
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *score = exp(*score - max);
            *lane += *score;
        }
    }
    let mut sum = total(lanes);
    for score in rest {
        *score = exp(*score - max);
        sum += *score;
    }
    sum
}

/// The gradients of one row's queries, keys and values that belong to one head of keys and values. Of `inputs` (queries,
/// keys, values, gradient of the result) those of a task are at (start, head). A token's results are, one after the
/// other: of the queries `[group · head_dim]`, of the keys and of the values, `[head_dim]` each.
#[inline(always)]
fn attend_back_body<V: Vector>(
    [q, k, v, d_out]: [&[f32]; 4],
    sums: &[f32],
    shape: &Shape,
    (start, kv_head, results): (usize, usize, &mut [&mut [f32]]),
    scratch: &mut Scratch,
) {
    let Shape { heads, kv_heads, head_dim } = *shape;
    let (group, scale, len) = (shape.group(), shape.scale(), results.len() / 3);
    let (width, padded) = (step_of(len), shape.padded());
    let (of_q, rest) = results.split_at_mut(len);
    let (of_k, of_v) = rest.split_at_mut(len);
    let own = |values| Heads::of(values, start, kv_head, kv_heads, head_dim);
    own(k).transpose(len, width, shape, &mut scratch.k_columns);
    own(v).transpose(len, width, shape, &mut scratch.v_columns);
    own(k).gather(0..len, shape, &mut scratch.k);
    scratch.weights.resize(BLOCK * width, 0.0);
    scratch.d_scores.resize(BLOCK * width, 0.0);
    scratch.of_q.resize(BLOCK * padded, 0.0);
    for sums in [&mut scratch.of_k, &mut scratch.of_v] {
        sums.clear();
        sums.resize(len * padded, 0.0);
    }
    for (member, sums) in sums.chunks_exact(len).enumerate() {
        let of_head = |values| Heads::of(values, start, kv_head * group + member, heads, head_dim);
        let (q, d_out) = (of_head(q), of_head(d_out));
        for first in (0..len).step_by(BLOCK) {
            let end = (first + BLOCK).min(len);
            scores::<V>(q, &scratch.k_columns, shape, (first, end), (end, width), &mut scratch.weights);
            let rows = Left { values: &d_out.values[first * d_out.stride..], row: d_out.stride, column: 1 };
            let size = [end - first, end, head_dim];
            product::<V>(rows, (&scratch.v_columns, width), (&mut scratch.d_scores, width), size, false);
            let rows = scratch.weights.chunks_exact_mut(width).zip(scratch.d_scores.chunks_exact_mut(width));
            for (query, (weights, d_scores)) in (first..end).zip(rows) {
                weights_and_gradients(weights, d_scores, query + 1, sums[query], scale);
            }
            q.gather(first..end, shape, &mut scratch.q);
            d_out.gather(first..end, shape, &mut scratch.d_out);
            let rows = Left { values: &scratch.d_scores, row: width, column: 1 };
            let size = [end - first, head_dim, end];
            product::<V>(rows, (&scratch.k, padded), (&mut scratch.of_q, padded), size, false);
            for (result, of_q) in of_q[first..end].iter_mut().zip(scratch.of_q.chunks_exact(padded)) {
                result[member * head_dim..][..head_dim].copy_from_slice(&of_q[..head_dim]);
            }
            let size = [end, head_dim, end - first];
            let columns = Left { values: &scratch.d_scores, row: 1, column: width };
            product::<V>(columns, (&scratch.q, padded), (&mut scratch.of_k, padded), size, true);
            let columns = Left { values: &scratch.weights, row: 1, column: width };
            product::<V>(columns, (&scratch.d_out, padded), (&mut scratch.of_v, padded), size, true);
        }
    }
    for (results, sums) in [(of_k, &scratch.of_k), (of_v, &scratch.of_v)] {
        for (result, sum) in results.iter_mut().zip(sums.chunks_exact(padded)) {
            result.copy_from_slice(&sum[..head_dim]);
        }
    }
}

/// Scores of a query become weights, and gradients of weights those of scores; both zero after the first `seen`.
#[inline(always)]
fn weights_and_gradients(weights: &mut [f32], d_scores: &mut [f32], seen: usize, sum: f32, scale: f32) {
    let (weights, hidden) = weights.split_at_mut(seen);
    hidden.fill(0.0);
    let (d_scores, hidden) = d_scores.split_at_mut(seen);
    hidden.fill(0.0);
    let mut lanes = [0.0; LANES];
    let mut mean = 0.0;
    {
        let ((weights, weights_rest), (d_scores, d_rest)) =
            (weights.as_chunks_mut::<LANES>(), d_scores.as_chunks::<LANES>());
        for (weights, d_scores) in weights.iter_mut().zip(d_scores) {
            for lane in 0..LANES {
                weights[lane] = exp(weights[lane] - sum);
                lanes[lane] += weights[lane] * d_scores[lane];
            }
        }
        for (weight, d_score) in weights_rest.iter_mut().zip(d_rest) {
            *weight = exp(*weight - sum);
            mean += *weight * d_score;
        }
    }
    mean += total(lanes);
    for (d_score, weight) in d_scores.iter_mut().zip(weights) {
        *d_score = *weight * (*d_score - mean) * scale;
    }
}

/// `q` `[n, heads, head_dim]`, `k` and `v` `[n, kv_heads, head_dim]`, n being the sum of `lens`: the result
/// `[n, heads · head_dim]`, and the log-sum-exp of each query's scores, by row, head of keys, head of queries, token.
pub fn forward(q: &[f32], k: &[f32], v: &[f32], lens: &[usize], shape: &Shape) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut y = zeros(q.len());
    let sums = into(q, k, v, lens, shape, &mut y);
    (y, sums)
}

/// [`forward`] to where there is room; the log-sum-exp of scores.
pub fn into(q: &[f32], k: &[f32], v: &[f32], lens: &[usize], shape: &Shape, y: &mut [f32]) -> Vec<Vec<f32>> {
    let mut tasks = tasks(y, lens, shape.kv_heads, shape.group() * shape.head_dim);
    let attend = |scratch: &mut Scratch, task: &mut Task<'_>| {
        let own = |values| Heads::of(values, task.start, task.kv_head, shape.kv_heads, shape.head_dim);
        attend(q, Seen { keys: own(k), values: own(v), before: 0 }, shape, task, scratch)
    };
    tasks.par_iter_mut().map_init(Scratch::default, attend).collect()
}

/// The gradients of `q`, `k` and `v`.
pub fn backward(
    inputs: [&[f32]; 3],
    sums: &[Vec<f32>],
    lens: &[usize],
    shape: &Shape,
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let [q, k, v] = inputs;
    let (mut of_q, mut of_k, mut of_v) = (zeros(q.len()), zeros(k.len()), zeros(v.len()));
    let &Shape { kv_heads, head_dim, .. } = shape;
    let both = tasks(&mut of_k, lens, kv_heads, head_dim).into_iter().zip(tasks(&mut of_v, lens, kv_heads, head_dim));
    let all: Vec<Task<'_>> = tasks(&mut of_q, lens, kv_heads, shape.group() * head_dim)
        .into_iter()
        .zip(both)
        .map(|(mut task, (of_k, of_v))| {
            task.results.extend(of_k.results.into_iter().chain(of_v.results));
            task
        })
        .collect();
    all.into_par_iter().zip(sums).for_each_init(Scratch::default, |scratch, (mut task, sums)| {
        attend_back([q, k, v, dy], sums, shape, (task.start, task.kv_head, &mut task.results), scratch);
    });
    (of_q, of_k, of_v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_slopes, numbers};

    #[test]
    fn is_attention_and_its_slopes() {
        let cases: [(&[usize], usize, usize, usize); 6] = [
            (&[1], 1, 1, 2),
            (&[5, 1, 3], 4, 2, 6),
            (&[33, 7], 2, 2, 16),
            (&[64], 1, 1, 33),
            (&[2, 40, 1], 6, 1, 32),
            (&[70], 2, 1, 17),
        ];
        for (lens, heads, kv_heads, head_dim) in cases {
            let shape = Shape { heads, kv_heads, head_dim };
            let n: usize = lens.iter().sum();
            let q: Vec<f32> = numbers(n * heads * head_dim, 1).iter().map(|value| 3.0 * value).collect();
            let (k, v) = (numbers(n * kv_heads * head_dim, 2), numbers(n * kv_heads * head_dim, 3));
            let dy = numbers(q.len(), 4);
            let plain = |inputs: &[Vec<f64>]| -> Vec<f64> {
                let mut y = vec![0.0; n * heads * head_dim];
                let mut start = 0;
                for &len in lens {
                    for (query, head) in (0..len).flat_map(|query| (0..heads).map(move |head| (query, head))) {
                        let kv_head = head / (heads / kv_heads);
                        let own = ((start + query) * heads + head) * head_dim;
                        let of_key = |key: usize| ((start + key) * kv_heads + kv_head) * head_dim;
                        let weights: Vec<f64> = (0..=query)
                            .map(|key| {
                                let pairs = (0..head_dim).map(|at| inputs[0][own + at] * inputs[1][of_key(key) + at]);
                                (pairs.sum::<f64>() / (head_dim as f64).sqrt()).exp()
                            })
                            .collect();
                        let sum: f64 = weights.iter().sum();
                        for at in 0..head_dim {
                            let values = weights.iter().enumerate();
                            let values = values.map(|(key, weight)| weight * inputs[2][of_key(key) + at]);
                            y[own + at] = values.sum::<f64>() / sum;
                        }
                    }
                    start += len;
                }
                y
            };
            let (y, sums) = forward(&q, &k, &v, lens, &shape);
            let (of_q, of_k, of_v) = backward([&q, &k, &v], &sums, lens, &shape, &dy);
            assert_close(&y, &[&q, &k, &v], &plain);
            assert_slopes(&[&q, &k, &v], &[&of_q, &of_k, &of_v], &dy, &plain);
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let shape = Shape { heads: 2, kv_heads: 1, head_dim: 8 };
        let values = |heads: usize, seed| numbers(50 * heads * 8, seed);
        let (q, k, v) = (values(2, 1), values(1, 2), values(1, 3));
        let together = forward(&q, &k, &v, &[11, 39], &shape).0;
        let alone = forward(&q[11 * 16..], &k[11 * 8..], &v[11 * 8..], &[39], &shape).0;
        assert_eq!(together[11 * 16..], alone);
    }
}
