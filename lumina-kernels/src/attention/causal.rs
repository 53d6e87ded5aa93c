//! Causal attention of whole sequences, and its gradients: prefill without caches, and training.
//!
//! For a query `q` of a head with keys `k` and values `v` of tokens up to its own, `y = Σ softmax(q · kᵀ / √head_dim) ·
//! v`. A task is a sequence and a head of keys and values, with the query heads that share it. Scores exist for a block
//! of `QUERY_BLOCK` queries only, so memory is linear in the length. The forward pass returns the log-sum-exp of each
//! query's scores, from which the backward pass gets the softmax again.
//!
//! The matmuls want a right operand whose rows are whole vectors, so keys and values are packed for it once per task.

use std::ops::Range;

use crate::parallel::*;
use smallvec::SmallVec;

use crate::matmul::f32_gemm::GemmShape;
use crate::matmul::serial_gemm::{Padded, PaddedMut, Strided, Update, gemm, padded_stride};
use crate::memory::zeros;
use crate::simd::exp::exp;
use crate::simd::reduce::{largest, total};
use crate::simd::{LANES, Simd, simd_dispatch};

/// Queries whose scores exist at the same time.
const QUERY_BLOCK: usize = 32;

/// The heads of a token.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values: a divisor of `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Query heads that share a head of keys and values.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The factor of the scores: `1 / √head_dim`.
    pub(crate) fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    /// Distance between heads that are packed as a right operand.
    fn padded(&self) -> usize {
        padded_stride(self.head_dim)
    }
}

/// Inputs of attention, with the tokens of all sequences one after the other.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// Queries `[n, heads, head_dim]`.
    pub q: &'a [f32],
    /// Keys `[n, kv_heads, head_dim]`.
    pub k: &'a [f32],
    /// Values `[n, kv_heads, head_dim]`.
    pub v: &'a [f32],
}

/// The result of [`forward`].
#[derive(Debug, Clone)]
pub struct AttentionOutput {
    /// `[n, heads · head_dim]`.
    pub y: Vec<f32>,
    /// The log-sum-exp of each query's scores: for each sequence and head of keys and values, `[group, len]`.
    pub log_sum_exp: Vec<Vec<f32>>,
}

/// The result of [`backward`].
#[derive(Debug, Clone)]
pub struct AttentionGradients {
    /// Gradient of the queries.
    pub dq: Vec<f32>,
    /// Gradient of the keys.
    pub dk: Vec<f32>,
    /// Gradient of the values.
    pub dv: Vec<f32>,
}

/// One head of the tokens of a sequence.
#[derive(Clone, Copy)]
pub(crate) struct HeadView<'a> {
    /// From the head of the first token on.
    pub(crate) values: &'a [f32],
    /// Distance between tokens.
    pub(crate) stride: usize,
}

/// A head of keys and values: those of `before` cached tokens, then those of the queries' tokens.
#[derive(Clone, Copy)]
pub(crate) struct KvHead<'a> {
    pub(crate) keys: HeadView<'a>,
    pub(crate) values: HeadView<'a>,
    pub(crate) before: usize,
}

impl<'a> HeadView<'a> {
    /// Head `head` of `values` `[n, heads, head_dim]`, from token `start` on.
    fn new(values: &'a [f32], start: usize, head: usize, heads: usize, head_dim: usize) -> Self {
        Self { values: &values[(start * heads + head) * head_dim..], stride: heads * head_dim }
    }

    fn token(&self, token: usize, head_dim: usize) -> &'a [f32] {
        &self.values[token * self.stride..][..head_dim]
    }

    /// The rows from token `first` on, as a left operand.
    fn rows(&self, first: usize) -> Strided<'a> {
        Strided { values: &self.values[first * self.stride..], row_stride: self.stride, column_stride: 1 }
    }

    /// Packs the heads of some tokens as rows, each padded to whole vectors.
    fn pack_rows(&self, tokens: Range<usize>, shape: &AttentionShape, packed: &mut Vec<f32>) {
        let padded = shape.padded();
        packed.clear();
        packed.resize(tokens.len() * padded, 0.0);
        for (packed, token) in packed.chunks_exact_mut(padded).zip(tokens) {
            packed[..shape.head_dim].copy_from_slice(self.token(token, shape.head_dim));
        }
    }

    /// Packs the heads of `len` tokens as columns of `[head_dim, width]`.
    fn pack_columns(&self, len: usize, width: usize, shape: &AttentionShape, packed: &mut Vec<f32>) {
        packed.clear();
        packed.resize(shape.head_dim * width, 0.0);
        // A vector's worth of tokens at a time, so that what is written stays in the cache.
        for first in (0..len).step_by(LANES) {
            let tokens = LANES.min(len - first);
            for (at, row) in packed.chunks_exact_mut(width).enumerate() {
                let values = self.values[first * self.stride + at..].iter().step_by(self.stride);
                row[first..first + tokens].iter_mut().zip(values).for_each(|(to, &value)| *to = value);
            }
        }
    }
}

/// Working memory of a thread, reused from task to task.
#[derive(Default)]
pub(crate) struct Scratch {
    k_columns: Vec<f32>,
    v_columns: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
    dy: Vec<f32>,
    weights: Vec<f32>,
    dscores: Vec<f32>,
    /// The results of a block of queries: attended values, or the gradient of the queries.
    block: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Scratch {
    /// Number of values that fit the allocated memory.
    pub(crate) fn values(&self) -> usize {
        let Self { k_columns, v_columns, k, v, q, dy, weights, dscores, block, dk, dv } = self;
        let all = [k_columns, v_columns, k, v, q, dy, weights, dscores, block, dk, dv];
        all.into_iter().map(Vec::capacity).sum()
    }
}

/// A sequence and a head of keys and values, with the memory for the results of each of its tokens.
pub(crate) struct Task<'a> {
    /// The sequence's first token.
    pub(crate) start: usize,
    pub(crate) kv_head: usize,
    pub(crate) results: SmallVec<[&'a mut [f32]; 4]>,
}

/// As many as two sequences with the heads of the published 7B have are stored inline, without allocation.
pub(crate) type Tasks<'a> = SmallVec<[Task<'a>; 64]>;

/// The tasks, each with its parts of `y` `[n, kv_heads, width]`, for sequences of `lens` tokens.
pub(crate) fn tasks<'a>(y: &'a mut [f32], lens: &[usize], kv_heads: usize, width: usize) -> Tasks<'a> {
    let mut parts = y.chunks_exact_mut(width);
    let mut tasks = Tasks::with_capacity(lens.len() * kv_heads);
    let mut start = 0;
    for &len in lens {
        let first = tasks.len();
        tasks.extend((0..kv_heads).map(|kv_head| Task { start, kv_head, results: SmallVec::with_capacity(len) }));
        for _ in 0..len {
            for (task, part) in tasks[first..].iter_mut().zip(&mut parts) {
                task.results.push(part);
            }
        }
        start += len;
    }
    tasks
}

/// A block of queries and the keys that it attends to.
struct Block {
    queries: Range<usize>,
    /// Keys that the last query attends to.
    keys: usize,
    /// Distance between rows of scores.
    width: usize,
}

simd_dispatch!(pub(crate) fn attend(
    q: &[f32], kv: KvHead<'_>, shape: &AttentionShape, task: &mut Task<'_>, scratch: &mut Scratch
) -> Vec<f32> = attend_body);
simd_dispatch!(fn attend_gradient(
    inputs: AttentionInputs<'_>, dy: &[f32], log_sum_exp: &[f32], shape: &AttentionShape,
    task: &mut Task<'_>, scratch: &mut Scratch
) = attend_gradient_body);

/// Stores the scaled scores of a block of queries of a head with its keys to `scores` `[QUERY_BLOCK, width]`.
#[inline(always)]
fn block_scores<S: Simd>(
    simd: S,
    q: HeadView<'_>,
    k_columns: &[f32],
    shape: &AttentionShape,
    Block { queries, keys, width }: &Block,
    scores: &mut [f32],
) {
    let gemm_shape = GemmShape { m: queries.len(), n: *keys, k: shape.head_dim };
    let right = Padded { values: k_columns, stride: *width };
    let result = PaddedMut { values: scores, stride: *width };
    gemm(simd, q.rows(queries.start), right, result, gemm_shape, Update::Overwrite);
    let scale = shape.scale();
    for scores in scores.chunks_exact_mut(*width).take(queries.len()) {
        scores.iter_mut().for_each(|score| *score *= scale);
    }
}

/// Attention of one sequence with one head of keys and values. Stores results `[len][group · head_dim]`; returns the
/// log-sum-exp of the scores of each query, `[group, len]`.
#[inline(always)]
fn attend_body<S: Simd>(
    simd: S,
    q: &[f32],
    kv: KvHead<'_>,
    shape: &AttentionShape,
    task: &mut Task<'_>,
    scratch: &mut Scratch,
) -> Vec<f32> {
    let AttentionShape { heads, head_dim, .. } = *shape;
    let (len, before) = (task.results.len(), kv.before);
    let (width, padded) = (padded_stride(before + len), shape.padded());
    kv.keys.pack_columns(before + len, width, shape, &mut scratch.k_columns);
    kv.values.pack_rows(0..before + len, shape, &mut scratch.v);
    scratch.weights.resize(QUERY_BLOCK * width, 0.0);
    scratch.block.resize(QUERY_BLOCK * padded, 0.0);
    let mut log_sum_exp = Vec::with_capacity(shape.group() * len);
    for member in 0..shape.group() {
        let q = HeadView::new(q, task.start, task.kv_head * shape.group() + member, heads, head_dim);
        for first in (0..len).step_by(QUERY_BLOCK) {
            let end = (first + QUERY_BLOCK).min(len);
            let block = Block { queries: first..end, keys: before + end, width };
            block_scores(simd, q, &scratch.k_columns, shape, &block, &mut scratch.weights);
            let mut factors = [0.0; QUERY_BLOCK];
            for (query, weights) in (first..end).zip(scratch.weights.chunks_exact_mut(width)) {
                let (scores, later) = weights.split_at_mut(before + query + 1);
                let max = largest(scores);
                let sum = exp_and_sum(scores, max);
                later.fill(0.0);
                factors[query - first] = sum.recip();
                log_sum_exp.push(sum.ln() + max);
            }
            let weights = Strided { values: &scratch.weights, row_stride: width, column_stride: 1 };
            let values = Padded { values: &scratch.v, stride: padded };
            let result = PaddedMut { values: &mut scratch.block, stride: padded };
            let gemm_shape = GemmShape { m: end - first, n: head_dim, k: before + end };
            gemm(simd, weights, values, result, gemm_shape, Update::Overwrite);
            let attended = scratch.block.chunks_exact(padded).zip(factors);
            for (result, (attended, factor)) in task.results[first..end].iter_mut().zip(attended) {
                for (result, value) in result[member * head_dim..][..head_dim].iter_mut().zip(attended) {
                    *result = value * factor;
                }
            }
        }
    }
    log_sum_exp
}

/// Replaces each score by `e^(score − max)`, and returns their sum.
#[inline(always)]
pub(crate) fn exp_and_sum(scores: &mut [f32], max: f32) -> f32 {
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

/// The gradients of one sequence with one head of keys and values. The results of the task are, for each token, `dq`
/// `[group · head_dim]`, then for each token `dk` `[head_dim]`, then for each token `dv` `[head_dim]`.
#[inline(always)]
fn attend_gradient_body<S: Simd>(
    simd: S,
    AttentionInputs { q, k, v }: AttentionInputs<'_>,
    dy: &[f32],
    log_sum_exp: &[f32],
    shape: &AttentionShape,
    task: &mut Task<'_>,
    scratch: &mut Scratch,
) {
    let AttentionShape { heads, kv_heads, head_dim } = *shape;
    let (group, scale, len) = (shape.group(), shape.scale(), task.results.len() / 3);
    let (width, padded) = (padded_stride(len), shape.padded());
    let (dq, rest) = task.results.split_at_mut(len);
    let (dk, dv) = rest.split_at_mut(len);
    let (k, v) = (
        HeadView::new(k, task.start, task.kv_head, kv_heads, head_dim),
        HeadView::new(v, task.start, task.kv_head, kv_heads, head_dim),
    );
    k.pack_columns(len, width, shape, &mut scratch.k_columns);
    v.pack_columns(len, width, shape, &mut scratch.v_columns);
    k.pack_rows(0..len, shape, &mut scratch.k);
    scratch.weights.resize(QUERY_BLOCK * width, 0.0);
    scratch.dscores.resize(QUERY_BLOCK * width, 0.0);
    scratch.block.resize(QUERY_BLOCK * padded, 0.0);
    for sums in [&mut scratch.dk, &mut scratch.dv] {
        sums.clear();
        sums.resize(len * padded, 0.0);
    }
    for (member, log_sum_exp) in log_sum_exp.chunks_exact(len).enumerate() {
        let head = task.kv_head * group + member;
        let (q, dy) =
            (HeadView::new(q, task.start, head, heads, head_dim), HeadView::new(dy, task.start, head, heads, head_dim));
        for first in (0..len).step_by(QUERY_BLOCK) {
            let end = (first + QUERY_BLOCK).min(len);
            let block = Block { queries: first..end, keys: end, width };
            block_scores(simd, q, &scratch.k_columns, shape, &block, &mut scratch.weights);
            // dweights = dy · vᵀ
            let right = Padded { values: &scratch.v_columns, stride: width };
            let result = PaddedMut { values: &mut scratch.dscores, stride: width };
            let gemm_shape = GemmShape { m: end - first, n: end, k: head_dim };
            gemm(simd, dy.rows(first), right, result, gemm_shape, Update::Overwrite);
            let rows = scratch.weights.chunks_exact_mut(width).zip(scratch.dscores.chunks_exact_mut(width));
            for (query, (weights, dscores)) in (first..end).zip(rows) {
                softmax_gradient(weights, dscores, query + 1, log_sum_exp[query], scale);
            }
            q.pack_rows(first..end, shape, &mut scratch.q);
            dy.pack_rows(first..end, shape, &mut scratch.dy);
            // dq = dscores · k
            let dscores = Strided { values: &scratch.dscores, row_stride: width, column_stride: 1 };
            let right = Padded { values: &scratch.k, stride: padded };
            let result = PaddedMut { values: &mut scratch.block, stride: padded };
            let gemm_shape = GemmShape { m: end - first, n: head_dim, k: end };
            gemm(simd, dscores, right, result, gemm_shape, Update::Overwrite);
            for (result, dq) in dq[first..end].iter_mut().zip(scratch.block.chunks_exact(padded)) {
                result[member * head_dim..][..head_dim].copy_from_slice(&dq[..head_dim]);
            }
            // dk += dscoresᵀ · q, dv += weightsᵀ · dy
            let gemm_shape = GemmShape { m: end, n: head_dim, k: end - first };
            let transposed = Strided { values: &scratch.dscores, row_stride: 1, column_stride: width };
            let right = Padded { values: &scratch.q, stride: padded };
            let result = PaddedMut { values: &mut scratch.dk, stride: padded };
            gemm(simd, transposed, right, result, gemm_shape, Update::Add);
            let transposed = Strided { values: &scratch.weights, row_stride: 1, column_stride: width };
            let right = Padded { values: &scratch.dy, stride: padded };
            let result = PaddedMut { values: &mut scratch.dv, stride: padded };
            gemm(simd, transposed, right, result, gemm_shape, Update::Add);
        }
    }
    for (results, sums) in [(dk, &scratch.dk), (dv, &scratch.dv)] {
        for (result, sum) in results.iter_mut().zip(sums.chunks_exact(padded)) {
            result.copy_from_slice(&sum[..head_dim]);
        }
    }
}

/// Replaces the scores of a query in `weights` by their softmax, and the gradients of the weights in `dscores` by those
/// of the scores. Both become zero after the first `keys`.
#[inline(always)]
fn softmax_gradient(weights: &mut [f32], dscores: &mut [f32], keys: usize, log_sum_exp: f32, scale: f32) {
    let (weights, later) = weights.split_at_mut(keys);
    later.fill(0.0);
    let (dscores, later) = dscores.split_at_mut(keys);
    later.fill(0.0);
    let mut lanes = [0.0; LANES];
    let mut mean = 0.0;
    {
        let ((weights, weights_rest), (dscores, dscores_rest)) =
            (weights.as_chunks_mut::<LANES>(), dscores.as_chunks::<LANES>());
        for (weights, dscores) in weights.iter_mut().zip(dscores) {
            for lane in 0..LANES {
                weights[lane] = exp(weights[lane] - log_sum_exp);
                lanes[lane] += weights[lane] * dscores[lane];
            }
        }
        for (weight, dscore) in weights_rest.iter_mut().zip(dscores_rest) {
            *weight = exp(*weight - log_sum_exp);
            mean += *weight * dscore;
        }
    }
    mean += total(lanes);
    for (dscore, weight) in dscores.iter_mut().zip(weights) {
        *dscore = *weight * (*dscore - mean) * scale;
    }
}

/// Attention of sequences of `lens` tokens, whose sum is n.
pub fn forward(inputs: AttentionInputs<'_>, lens: &[usize], shape: &AttentionShape) -> AttentionOutput {
    let mut y = zeros(inputs.q.len());
    let log_sum_exp = forward_into(inputs, lens, shape, &mut y);
    AttentionOutput { y, log_sum_exp }
}

/// [`forward`] into existing memory `y` `[n, heads · head_dim]`; returns [`AttentionOutput::log_sum_exp`].
pub fn forward_into(
    AttentionInputs { q, k, v }: AttentionInputs<'_>,
    lens: &[usize],
    shape: &AttentionShape,
    y: &mut [f32],
) -> Vec<Vec<f32>> {
    let mut tasks = tasks(y, lens, shape.kv_heads, shape.group() * shape.head_dim);
    let attend = |scratch: &mut Scratch, task: &mut Task<'_>| {
        let view = |values| HeadView::new(values, task.start, task.kv_head, shape.kv_heads, shape.head_dim);
        attend(q, KvHead { keys: view(k), values: view(v), before: 0 }, shape, task, scratch)
    };
    tasks.par_iter_mut().map_init(Scratch::default, attend).collect()
}

/// The gradients of the inputs, from `dy` `[n, heads · head_dim]` and the `log_sum_exp` of the forward pass.
pub fn backward(
    inputs: AttentionInputs<'_>,
    log_sum_exp: &[Vec<f32>],
    lens: &[usize],
    shape: &AttentionShape,
    dy: &[f32],
) -> AttentionGradients {
    let [mut dq, mut dk, mut dv] = [inputs.q, inputs.k, inputs.v].map(|input| zeros(input.len()));
    let &AttentionShape { kv_heads, head_dim, .. } = shape;
    let kv_tasks = tasks(&mut dk, lens, kv_heads, head_dim).into_iter().zip(tasks(&mut dv, lens, kv_heads, head_dim));
    let tasks: Vec<Task<'_>> = tasks(&mut dq, lens, kv_heads, shape.group() * head_dim)
        .into_iter()
        .zip(kv_tasks)
        .map(|(mut task, (dk, dv))| {
            task.results.extend(dk.results.into_iter().chain(dv.results));
            task
        })
        .collect();
    tasks.into_par_iter().zip(log_sum_exp).for_each_init(Scratch::default, |scratch, (mut task, log_sum_exp)| {
        attend_gradient(inputs, dy, log_sum_exp, shape, &mut task, scratch);
    });
    AttentionGradients { dq, dk, dv }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::{assert_close, assert_gradients, numbers};

    #[test]
    fn matches_the_definition_and_its_numerical_gradients() {
        let cases: [(&[usize], usize, usize, usize); 6] = [
            (&[1], 1, 1, 2),
            (&[5, 1, 3], 4, 2, 6),
            (&[33, 7], 2, 2, 16),
            (&[64], 1, 1, 33),
            (&[2, 40, 1], 6, 1, 32),
            (&[70], 2, 1, 17),
        ];
        for (lens, heads, kv_heads, head_dim) in cases {
            let shape = AttentionShape { heads, kv_heads, head_dim };
            let n: usize = lens.iter().sum();
            let q: Vec<f32> = numbers(n * heads * head_dim, 1).iter().map(|value| 3.0 * value).collect();
            let (k, v) = (numbers(n * kv_heads * head_dim, 2), numbers(n * kv_heads * head_dim, 3));
            let dy = numbers(q.len(), 4);
            let reference = |inputs: &[Vec<f64>]| -> Vec<f64> {
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
            let inputs = AttentionInputs { q: &q, k: &k, v: &v };
            let AttentionOutput { y, log_sum_exp } = forward(inputs, lens, &shape);
            let AttentionGradients { dq, dk, dv } = backward(inputs, &log_sum_exp, lens, &shape, &dy);
            assert_close(&y, &[&q, &k, &v], &reference);
            assert_gradients(&[&q, &k, &v], &[&dq, &dk, &dv], &dy, &reference);
        }
    }

    #[test]
    fn a_sequence_does_not_depend_on_the_others() {
        let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 8 };
        let values = |heads: usize, seed| numbers(50 * heads * 8, seed);
        let (q, k, v) = (values(2, 1), values(1, 2), values(1, 3));
        let batch = forward(AttentionInputs { q: &q, k: &k, v: &v }, &[11, 39], &shape).y;
        let second = AttentionInputs { q: &q[11 * 16..], k: &k[11 * 8..], v: &v[11 * 8..] };
        let alone = forward(second, &[39], &shape).y;
        assert_eq!(batch[11 * 16..], alone);
    }
}
