//! Attention of a few queries to cached keys and values, in the type of the cache: what decoding does for each token.
//!
//! `y = Σ softmax(q · kᵀ / √head_dim) · v`, by dot products with keys and weighted sums of values, cast up in
//! registers. [`QUERY_TILE`] queries share each read of the keys. Scales of 8-bit keys multiply scores, and those of
//! values weights.

use half::bf16;
use smallvec::SmallVec;

use super::causal::{AttentionShape, Task, exp_and_sum};
use super::kv_storage::{Element, KvView, KvViews, Segment};
use crate::simd::reduce::largest;
use crate::simd::{F32s, LANES, Simd, simd_dispatch};

/// Queries that share a read of the keys.
const QUERY_TILE: usize = 4;

/// The queries of a pass, of which a task has some tokens.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    /// `[n, heads, head_dim]`.
    pub(super) values: &'a [f32],
    /// Cached tokens before the task's first token.
    pub(super) before: usize,
    /// As in [`CachedRow`](super::cached::CachedRow).
    pub(super) parents: &'a [u32],
    pub(super) shape: &'a AttentionShape,
}

/// Stored types with their kernel.
pub(super) trait Attend: Element {
    /// [`attend_body`] on the best instruction set. `weights` is working memory.
    fn attend(queries: Queries<'_>, kv: KvViews<'_, Self>, task: &mut Task<'_>, weights: &mut Vec<f32>);
}

/// Implements [`Attend`] for a type.
macro_rules! attend {
    ($type:ty, $function:ident) => {
        simd_dispatch!(fn $function(
            queries: Queries<'_>, kv: KvViews<'_, $type>, task: &mut Task<'_>, weights: &mut Vec<f32>
        ) = attend_body);

        impl Attend for $type {
            fn attend(queries: Queries<'_>, kv: KvViews<'_, Self>, task: &mut Task<'_>, weights: &mut Vec<f32>) {
                $function(queries, kv, task, weights);
            }
        }
    };
}

attend!(f32, attend_f32);
attend!(bf16, attend_bf16);
attend!(i8, attend_i8);

/// Attention of the queries of a task, token by token and for each token head by head of the group. The first token
/// attends to `before` tokens and itself.
#[inline(always)]
fn attend_body<S: Simd, T: Element>(
    simd: S,
    Queries { values: q, before, parents, shape }: Queries<'_>,
    KvViews { keys, values }: KvViews<'_, T>,
    task: &mut Task<'_>,
    weights: &mut Vec<f32>,
) {
    let AttentionShape { heads, head_dim, .. } = *shape;
    let (group, len, scale) = (shape.group(), task.results.len(), shape.scale());
    let width = before + len;
    weights.resize(QUERY_TILE * width, 0.0);
    let query = |index: usize| {
        let (token, member) = (index / group, index % group);
        &q[((task.start + token) * heads + task.kv_head * group + member) * head_dim..][..head_dim]
    };
    let count = group * len;
    let mut first = 0;
    while first < count {
        let n = if count - first >= QUERY_TILE { QUERY_TILE } else { 1 };
        let queries: [&[f32]; QUERY_TILE] = std::array::from_fn(|at| query((first + at).min(count - 1)));
        // Keys that a query attends to. The others up to the last get a weight of zero below.
        let seen = |at: usize| before + (first + at) / group + 1;
        let last = seen(n - 1);
        let keys = KvView { len: last, ..keys };
        match (n, head_dim) {
            (QUERY_TILE, _) => scores::<S, T, QUERY_TILE>(simd, queries, keys, scale, weights, width),
            // The size of the published models as a constant: the query then stays in registers.
            (_, 128) => {
                scores::<S, T, 1>(simd, [queries[0]], KvView { head_dim: 128, ..keys }, scale, weights, width);
            }
            _ => scores::<S, T, 1>(simd, [queries[0]], keys, scale, weights, width),
        }
        let mut factors = [0.0; QUERY_TILE];
        for (at, weights) in weights.chunks_exact_mut(width).take(n).enumerate() {
            let (weights, later) = weights.split_at_mut(seen(at));
            let sum = if parents.is_empty() {
                exp_and_sum(weights, largest(weights))
            } else {
                branch_exp_and_sum(weights, before, parents)
            };
            later.fill(0.0);
            factors[at] = sum.recip();
            if T::SCALED {
                scale_weights(weights, values);
            }
        }
        for at in 0..n {
            let (token, member) = ((first + at) / group, (first + at) % group);
            let result = &mut task.results[token][member * head_dim..][..head_dim];
            weighted_sum(simd, &weights[at * width..][..last], values, factors[at], result);
        }
        first += n;
    }
}

/// [`exp_and_sum`] of the scores of the branch that ends with the last one, and zeros in the places of all others. The
/// scores of a branch lie next to each other meanwhile, so that the sum is made in the same order as without others.
fn branch_exp_and_sum(weights: &mut [f32], before: usize, parents: &[u32]) -> f32 {
    // From the last to the first.
    let mut branch: SmallVec<[usize; 128]> = SmallVec::new();
    let mut token = weights.len() - before - 1;
    while token > 0 {
        branch.push(token);
        token = parents[token - 1] as usize;
    }
    let (first, end) = (before + 1, before + 1 + branch.len());
    for (place, token) in (first..).zip(branch.iter().rev()) {
        weights[place] = weights[before + token];
    }
    let scores = &mut weights[..end];
    let sum = exp_and_sum(scores, largest(scores));
    // Backwards, as no score has moved to a later place.
    let mut later = weights.len();
    for (place, token) in (first..end).rev().zip(branch) {
        let weight = weights[place];
        weights[before + token + 1..later].fill(0.0);
        later = before + token;
        weights[later] = weight;
    }
    weights[first..later.max(first)].fill(0.0);
    sum
}

/// Multiplies each token's weight by the scale of its values.
#[inline(always)]
fn scale_weights<T: Element>(mut weights: &mut [f32], values: KvView<'_, T>) {
    for segment in values.segments() {
        let (own, later) = weights.split_at_mut(segment.scales.len().min(weights.len()));
        own.iter_mut().zip(segment.scales).for_each(|(weight, scale)| *weight *= scale);
        weights = later;
    }
}

/// Stores the scaled scores of `N` queries with all keys to `result`, in rows of `width`.
#[inline(always)]
fn scores<S: Simd, T: Element, const N: usize>(
    simd: S,
    queries: [&[f32]; N],
    keys: KvView<'_, T>,
    scale: f32,
    result: &mut [f32],
    width: usize,
) {
    let head_dim = keys.head_dim;
    let (whole, rest) = (head_dim / LANES, head_dim / LANES * LANES..head_dim);
    // Slices of one length, which the inner loop need not check.
    let mut vectors: [&[[f32; LANES]]; N] = [&[]; N];
    for (vectors, query) in vectors.iter_mut().zip(queries) {
        *vectors = &query.as_chunks::<LANES>().0[..whole];
    }
    let mut token = 0;
    for segment in keys.segments() {
        let Segment { values, scales, .. } = segment;
        for (place, key) in values.chunks_exact(head_dim).enumerate() {
            segment.prefetch_next(place, head_dim, 0, head_dim);
            let mut sums = [simd.splat(0.0); N];
            let key_vectors = &key.as_chunks::<LANES>().0[..whole];
            for at in 0..whole {
                let key = load(simd, &key_vectors[at]);
                for i in 0..N {
                    sums[i] = sums[i].multiply_add(simd.load(&vectors[i][at]), key);
                }
            }
            let scale = scales.get(place).map_or(scale, |own| own * scale);
            for (row, (sum, query)) in sums.into_iter().zip(&queries).enumerate() {
                let mut sum = sum.sum();
                if !rest.is_empty() {
                    let pairs = query[rest.clone()].iter().zip(&key[rest.clone()]);
                    sum += pairs.map(|(query, key)| query * key.to_f32()).sum::<f32>();
                }
                result[row * width + token] = sum * scale;
            }
            token += 1;
        }
    }
}

/// Sixteen values, cast up.
#[inline(always)]
fn load<S: Simd, T: Element>(simd: S, values: &[T; LANES]) -> S::F32s {
    let mut floats = [0.0; LANES];
    for (float, value) in floats.iter_mut().zip(values) {
        *float = value.to_f32();
    }
    simd.load(&floats)
}

/// Stores the sum of values by weight, times a factor.
#[inline(always)]
fn weighted_sum<S: Simd, T: Element>(simd: S, weights: &[f32], values: KvView<'_, T>, factor: f32, result: &mut [f32]) {
    let head_dim = result.len();
    let mut start = 0;
    // As many sums at a time as stay in registers while the values are read.
    while S::WIDE_TILES && start + 8 * LANES <= head_dim {
        weighted_sum_part::<S, T, 8>(simd, weights, values, factor, start, result);
        start += 8 * LANES;
    }
    while start + 4 * LANES <= head_dim {
        weighted_sum_part::<S, T, 4>(simd, weights, values, factor, start, result);
        start += 4 * LANES;
    }
    while start + LANES <= head_dim {
        weighted_sum_part::<S, T, 1>(simd, weights, values, factor, start, result);
        start += LANES;
    }
    for (at, result) in result.iter_mut().enumerate().skip(start) {
        let tokens = values.segments().flat_map(|segment| segment.values.chunks_exact(head_dim)).zip(weights);
        *result = tokens.map(|(token, weight)| token[at].to_f32() * weight).sum::<f32>() * factor;
    }
}

/// `N` vectors of the sum, from element `start` on.
#[inline(always)]
fn weighted_sum_part<S: Simd, T: Element, const N: usize>(
    simd: S,
    weights: &[f32],
    values: KvView<'_, T>,
    factor: f32,
    start: usize,
    result: &mut [f32],
) {
    let mut sums = [simd.splat(0.0); N];
    let mut weights = weights;
    for segment in values.segments() {
        for (place, (token, weight)) in segment.values.chunks_exact(result.len()).zip(weights).enumerate() {
            segment.prefetch_next(place, result.len(), start, N * LANES);
            let weight = simd.splat(*weight);
            let token = &token[start..start + N * LANES].as_chunks::<LANES>().0[..N];
            for at in 0..N {
                sums[at] = sums[at].multiply_add(weight, load(simd, &token[at]));
            }
        }
        weights = weights.get(segment.values.len() / result.len()..).unwrap_or_default();
    }
    for (result, sum) in result[start..].as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
        *result = sum.to_array().map(|value| value * factor);
    }
}
