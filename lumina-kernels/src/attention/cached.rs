//! Attention of the new tokens of sequences to their cached keys and values.
//!
//! A few tokens read the cache in its own type, as decoding does. From [`MIN_GEMM_QUERIES`] tokens on keys and values
//! are dequantised once, and attention is two matmuls.

use smallvec::SmallVec;

use super::causal::{AttentionInputs, AttentionShape, HeadView, KvHead, Scratch, Task, attend, tasks};
use super::decode::{Attend, Queries};
use super::kv_storage::{AnyKvViews, KvStorage, KvViews};
use crate::parallel::*;

/// From this many tokens of a row on, attention is two matmuls with dequantised keys and values.
pub const MIN_GEMM_QUERIES: usize = 8;

/// From this many multiply-adds on, threads share the work.
const MIN_PARALLEL_WORK: usize = 1 << 15;

/// How attention of a row is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionPath {
    /// By the number of its tokens: as matmuls from [`MIN_GEMM_QUERIES`] on, which round differently than single
    /// tokens.
    #[default]
    ByLength,
    /// As for single tokens, whatever their number: the results are those of single tokens, to the bit.
    AsDecoding,
}

/// A row's part of a pass: `len` tokens from `position` on, whose keys and values are appended to `cache`.
#[derive(Debug)]
pub struct CachedRow<'a> {
    /// Keys and values of the tokens before these.
    pub cache: &'a mut KvStorage,
    /// Tokens before these.
    pub position: usize,
    /// Tokens in the pass.
    pub len: usize,
    /// How attention is computed.
    pub path: AttentionPath,
    /// The parent of each token but the first among those of the pass, `[len - 1]`, where drafts branch: a token then
    /// attends to its ancestors in the pass, to itself, and to all tokens before `position`. Empty where each token
    /// follows the one before it. The result of a token is that of its branch decoded alone, to the bit.
    pub parents: &'a [u32],
}

/// Working memory of a thread, reused from task to task.
#[derive(Default)]
struct Memory {
    weights: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scratch: Scratch,
}

impl Memory {
    /// Number of values that fit the allocated memory.
    fn values(&self) -> usize {
        let own = [&self.weights, &self.keys, &self.values].map(Vec::capacity);
        own.iter().sum::<usize>() + self.scratch.values()
    }

    /// Attention of a task's queries to a head of keys and values.
    fn attend<T: Attend>(
        &mut self,
        queries: Queries<'_>,
        kv: KvViews<'_, T>,
        path: AttentionPath,
        task: &mut Task<'_>,
    ) {
        if task.results.len() < MIN_GEMM_QUERIES || path == AttentionPath::AsDecoding || !queries.parents.is_empty() {
            T::attend(queries, kv, task, &mut self.weights);
            return;
        }
        let Queries { values: q, before, shape, .. } = queries;
        kv.keys.dequantise(&mut self.keys);
        kv.values.dequantise(&mut self.values);
        let [keys, values] = [&self.keys, &self.values].map(|values| HeadView { values, stride: shape.head_dim });
        attend(q, KvHead { keys, values, before }, shape, task, &mut self.scratch);
    }
}

/// What a thread keeps at most: 16 MB, the keys and values of a head for several thousand tokens.
const MAX_KEPT_VALUES: usize = 4 << 20;

thread_local! {
    static MEMORY: std::cell::Cell<Memory> = std::cell::Cell::default();
}

/// Attention of the rows of a pass, each to its cache and to itself, with the rows' tokens one after the other: `y`
/// `[n, heads · head_dim]`.
///
/// A row's result does not depend on the others. A few rows of a few tokens, as in decoding, allocate nothing after the
/// first steps but a block of the cache now and then.
///
/// # Panics
/// If a row does not fit its cache, or the rows do not have n tokens.
pub fn forward_into(inputs: AttentionInputs<'_>, rows: &mut [CachedRow<'_>], y: &mut [f32]) {
    let AttentionInputs { q, k, v } = inputs;
    let Some(first) = rows.first() else { return };
    let (kv_heads, head_dim) = (first.cache.kv_heads(), first.cache.head_dim());
    let n: usize = rows.iter().map(|row| row.len).sum();
    let shape = AttentionShape { heads: q.len() / (n * head_dim).max(1), kv_heads, head_dim };
    let width = shape.kv_heads * shape.head_dim;
    let mut start = 0;
    let mut work = 0;
    for row in rows.iter_mut() {
        assert!(row.position + row.len <= row.cache.capacity(), "the caller has checked that rows fit");
        let mut parents = row.parents.iter().enumerate();
        let is_tree = row.parents.is_empty() || row.parents.len() + 1 == row.len;
        assert!(is_tree && parents.all(|(index, &parent)| parent as usize <= index), "a parent is before its tokens");
        let own = start * width..(start + row.len) * width;
        row.cache.append(row.position, &k[own.clone()], &v[own]);
        start += row.len;
        work += row.len * (row.position + row.len) * 2 * shape.heads * shape.head_dim;
    }
    let lens: SmallVec<[usize; 8]> = rows.iter().map(|row| row.len).collect();
    let mut tasks = tasks(y, &lens, shape.kv_heads, shape.group() * shape.head_dim);
    let rows = &*rows;
    let run = |(at, task): (usize, &mut Task<'_>)| {
        let row = &rows[at / shape.kv_heads];
        let mut memory = MEMORY.take();
        let queries = Queries { values: q, before: row.position, parents: row.parents, shape: &shape };
        match row.cache.head(task.kv_head, row.position + row.len) {
            AnyKvViews::F32(kv) => memory.attend(queries, kv, row.path, task),
            AnyKvViews::BF16(kv) => memory.attend(queries, kv, row.path, task),
            AnyKvViews::Q8(kv) => memory.attend(queries, kv, row.path, task),
        }
        if memory.values() <= MAX_KEPT_VALUES {
            MEMORY.set(memory);
        }
    };
    if work < MIN_PARALLEL_WORK || current_num_threads() == 1 {
        tasks.iter_mut().enumerate().for_each(run);
    } else {
        tasks.par_iter_mut().enumerate().for_each(run);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::kv_storage::Element;
    use super::*;
    use crate::Format;
    use crate::numerical_gradients::numbers;

    /// Keys or values, rounded as a format rounds them.
    fn rounded(values: &[f32], head_dim: usize, format: Format) -> Vec<f32> {
        let each = values.chunks_exact(head_dim).flat_map(|head| match format {
            Format::BF16 => head.iter().map(|value| bf16::from_f32(*value).to_f32()).collect::<Vec<_>>(),
            Format::Q8_0 => {
                let mut quants = vec![0i8; head_dim];
                let scale = i8::quantise(head, &mut quants);
                quants.iter().map(|quant| f32::from(*quant) * scale).collect()
            }
            _ => head.to_vec(),
        });
        each.collect()
    }

    fn attended(q: &[f32], k: &[f32], v: &[f32], rows: &mut [CachedRow<'_>]) -> Vec<f32> {
        let mut y = vec![f32::NAN; q.len()];
        forward_into(AttentionInputs { q, k, v }, rows, &mut y);
        y
    }

    /// Attention in `f64` of all tokens of a row.
    fn reference(q: &[f32], k: &[f32], v: &[f32], shape: &AttentionShape) -> Vec<f64> {
        let &AttentionShape { heads, kv_heads, head_dim } = shape;
        let n = q.len() / (heads * head_dim);
        let mut y = vec![0.0; q.len()];
        for (query, head) in (0..n).flat_map(|query| (0..heads).map(move |head| (query, head))) {
            let own = (query * heads + head) * head_dim;
            let of_key = |key: usize| (key * kv_heads + head / (heads / kv_heads)) * head_dim;
            let weights: Vec<f64> = (0..=query)
                .map(|key| {
                    let pairs = (0..head_dim).map(|at| f64::from(q[own + at]) * f64::from(k[of_key(key) + at]));
                    (pairs.sum::<f64>() / (head_dim as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            for at in 0..head_dim {
                let values = weights.iter().enumerate().map(|(key, weight)| weight * f64::from(v[of_key(key) + at]));
                y[own + at] = values.sum::<f64>() / sum;
            }
        }
        y
    }

    #[test]
    fn matches_the_definition_with_rounded_keys_and_values() {
        // Runs of tokens: one at a time, a few, many, and more at the end.
        let passes: [&[usize]; 4] = [&[1, 1, 1, 1], &[3, 1, 7, 2], &[40, 1, 20], &[9, 8, 1, 33]];
        for (heads, kv_heads, head_dim) in [(4, 4, 16), (6, 2, 33), (8, 1, 128), (5, 5, 32)] {
            let shape = AttentionShape { heads, kv_heads, head_dim };
            for (lens, format) in passes.into_iter().flat_map(|lens| KvStorage::FORMATS.map(|format| (lens, format))) {
                let n: usize = lens.iter().sum();
                let q: Vec<f32> = numbers(n * heads * head_dim, 1).iter().map(|value| 2.0 * value).collect();
                let (k, v) = (numbers(n * kv_heads * head_dim, 2), numbers(n * kv_heads * head_dim, 3));
                let [rounded_k, rounded_v] = [&k, &v].map(|values| rounded(values, head_dim, format));
                let expected = reference(&q, &rounded_k, &rounded_v, &shape);
                let mut cache = KvStorage::new(format, kv_heads, n, head_dim).unwrap();
                let mut found = Vec::new();
                let mut position = 0;
                for &len in lens {
                    let of = |values: &[f32], heads: usize| {
                        values[position * heads * head_dim..(position + len) * heads * head_dim].to_vec()
                    };
                    let rows = &mut [CachedRow {
                        cache: &mut cache,
                        position,
                        len,
                        path: AttentionPath::ByLength,
                        parents: &[],
                    }];
                    found.extend(attended(&of(&q, heads), &of(&k, kv_heads), &of(&v, kv_heads), rows));
                    position += len;
                }
                for (found, expected) in found.iter().zip(expected) {
                    assert!((f64::from(*found) - expected).abs() < 2e-5, "{format} {lens:?}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let (heads, kv_heads, head_dim) = (4, 2, 24);
        for format in KvStorage::FORMATS {
            let lens = [1, 12, 3];
            let n: usize = lens.iter().sum();
            let (q, k, v) = (
                numbers(n * heads * head_dim, 1),
                numbers(n * kv_heads * head_dim, 2),
                numbers(n * kv_heads * head_dim, 3),
            );
            let caches = || lens.map(|_| KvStorage::new(format, kv_heads, 16, head_dim).unwrap());
            let mut batch = caches();
            let mut rows: Vec<CachedRow<'_>> = batch
                .iter_mut()
                .zip(lens)
                .map(|(cache, len)| CachedRow { cache, position: 0, len, path: AttentionPath::ByLength, parents: &[] })
                .collect();
            let all = attended(&q, &k, &v, &mut rows);
            let mut start = 0;
            for (mut cache, len) in caches().into_iter().zip(lens) {
                let own = |values: &[f32], heads: usize| {
                    values[start * heads * head_dim..(start + len) * heads * head_dim].to_vec()
                };
                let mut rows =
                    [CachedRow { cache: &mut cache, position: 0, len, path: AttentionPath::ByLength, parents: &[] }];
                let alone = attended(&own(&q, heads), &own(&k, kv_heads), &own(&v, kv_heads), &mut rows);
                assert_eq!(alone, own(&all, heads), "{format}");
                start += len;
            }
        }
    }

    #[test]
    fn as_decoding_equals_single_tokens_to_the_bit() {
        let (heads, kv_heads, head_dim, n) = (6, 2, 40, 90);
        let (q, k, v) = (
            numbers(n * heads * head_dim, 1),
            numbers(n * kv_heads * head_dim, 2),
            numbers(n * kv_heads * head_dim, 3),
        );
        for format in KvStorage::FORMATS {
            let run = |lens: &[usize]| {
                let mut cache = KvStorage::new(format, kv_heads, n, head_dim).unwrap();
                let (mut position, mut all) = (0, Vec::new());
                for &len in lens {
                    let of = |values: &[f32], heads: usize| {
                        values[position * heads * head_dim..(position + len) * heads * head_dim].to_vec()
                    };
                    let rows = &mut [CachedRow {
                        cache: &mut cache,
                        position,
                        len,
                        path: AttentionPath::AsDecoding,
                        parents: &[],
                    }];
                    all.extend(attended(&of(&q, heads), &of(&k, kv_heads), &of(&v, kv_heads), rows));
                    position += len;
                }
                all
            };
            let expected = run(&[1; 90]);
            assert_eq!(run(&[90]), expected, "{format}");
            assert_eq!(run(&[17, 9, 1, 40, 23]), expected, "{format}");
        }
    }

    /// Drafts that branch, and the rest of each branch that is kept: whatever the tree, a token's result is that of its
    /// branch one token at a time.
    #[test]
    fn branches_equal_single_tokens_to_the_bit() {
        let (heads, kv_heads, head_dim) = (6, 2, 40);
        // Before: within a block, over the end of one, and more than one.
        for (format, before) in KvStorage::FORMATS.into_iter().flat_map(|format| [5, 120, 261].map(|n| (format, n))) {
            // Token 0 is certain; parents of tokens 1 to 9. Branches: 0 1 2 3 6, 0 4 5 9, 0 1 7 8.
            let parents = [0, 1, 2, 0, 4, 3, 1, 7, 5];
            let n = before + parents.len() + 1;
            let values = |heads: usize, seed| numbers(n * heads * head_dim, seed);
            let (q, k, v) = (values(heads, 1), values(kv_heads, 2), values(kv_heads, 3));
            let of = |values: &[f32], heads: usize, tokens: &[usize]| -> Vec<f32> {
                let width = heads * head_dim;
                tokens.iter().flat_map(|token| values[token * width..(token + 1) * width].to_vec()).collect()
            };
            let prefix: Vec<usize> = (0..before).collect();
            let run = |cache: &mut KvStorage, position: usize, tokens: &[usize], parents: &[u32]| {
                let (len, path) = (tokens.len(), AttentionPath::AsDecoding);
                let rows = &mut [CachedRow { cache, position, len, path, parents }];
                attended(&of(&q, heads, tokens), &of(&k, kv_heads, tokens), &of(&v, kv_heads, tokens), rows)
            };
            let filled = || {
                let mut cache = KvStorage::new(format, kv_heads, n, head_dim).unwrap();
                run(&mut cache, 0, &prefix, &[]);
                cache
            };
            let mut tree = filled();
            let all: Vec<usize> = (before..n).collect();
            let found = run(&mut tree, before, &all, &parents);
            let width = heads * head_dim;
            for branch in [&[0, 1, 2, 3, 6][..], &[0, 4, 5, 9], &[0, 1, 7, 8]] {
                let mut alone = filled();
                for (place, node) in branch.iter().enumerate() {
                    let expected = run(&mut alone, before + place, &[before + node], &[]);
                    assert_eq!(found[node * width..(node + 1) * width], expected, "{format} {before} {branch:?}");
                }
            }
            // The second branch is kept: what comes after it is as if there had been no other.
            tree.keep(before, &[0, 4, 5, 9]);
            let mut alone = filled();
            for (place, node) in [0, 4, 5, 9].into_iter().enumerate() {
                run(&mut alone, before + place, &[before + node], &[]);
            }
            let next = [before + 2];
            assert_eq!(run(&mut tree, before + 4, &next, &[]), run(&mut alone, before + 4, &next, &[]), "{format}");
        }
    }
}
