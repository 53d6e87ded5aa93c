//! Keys and values of one layer of one sequence, in blocks that are taken as it grows, and attention to them.

use half::bf16;
use smallvec::SmallVec;

use super::causal::{AttentionShape, HeadView, KvHead, Scratch, Task, attend, tasks};
use super::decode::{Element, KvView};
use crate::Format;
use crate::parallel::*;

/// Tokens of a block.
pub const KV_BLOCK_TOKENS: usize = 64;

/// Queries of a row from which on attention is two matrix products, for which keys and values are copied to matrices.
pub const MIN_GEMM_QUERIES: usize = 8;
/// Multiply-adds from which on threads share the work.
const PARALLEL_WORK: usize = 1 << 15;
/// Values from which on threads share their writing.
const PARALLEL_VALUES: usize = 1 << 16;

/// Keys and values of one layer of one sequence.
///
/// In `f32`, `bf16`, or bytes with a scale for each token and head ([`Format::Q8_0`]): the narrower, the less memory a token
/// reads. Memory is taken in blocks of [`KV_BLOCK_TOKENS`] tokens as the sequence grows, and returned by [`KvStorage::truncate`].
#[derive(Debug)]
pub struct KvStorage {
    shape: KvShape,
    tensors: KvTensors,
}

#[derive(Debug, Clone, Copy)]
struct KvShape {
    kv_heads: usize,
    head_dim: usize,
    /// The most tokens.
    capacity: usize,
}

impl KvShape {
    /// Values of a token.
    fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Tokens of the block at `index`: all but the last one are full.
    fn block_tokens(&self, index: usize) -> usize {
        KV_BLOCK_TOKENS.min(self.capacity.saturating_sub(index * KV_BLOCK_TOKENS))
    }
}

/// Keys and values.
#[derive(Debug)]
enum KvTensors {
    F32([KvTensor<f32>; 2]),
    BF16([KvTensor<bf16>; 2]),
    Q8([KvTensor<i8>; 2]),
}

/// Runs an expression on keys and values of any type.
macro_rules! each_type {
    ($tensors:expr, $both:ident => $result:expr) => {
        match $tensors {
            KvTensors::F32($both) => $result,
            KvTensors::BF16($both) => $result,
            KvTensors::Q8($both) => $result,
        }
    };
}

/// Keys, or values.
#[derive(Debug)]
struct KvTensor<T> {
    blocks: Vec<KvBlock<T>>,
}

/// Keys or values of some tokens.
#[derive(Debug)]
pub(crate) struct KvBlock<T> {
    /// Tokens that there is room for.
    pub(crate) tokens: usize,
    /// `[kv_heads, tokens, head_dim]`.
    pub(crate) values: Vec<T>,
    /// What a token's values are multiplied by, `[kv_heads, tokens]`; empty where the type has no scale.
    pub(crate) scales: Vec<f32>,
}

impl<T: Element> KvBlock<T> {
    fn new(tokens: usize, shape: &KvShape) -> Self {
        let scales = if T::SCALED { vec![0.0; tokens * shape.kv_heads] } else { Vec::new() };
        Self { tokens, values: vec![T::default(); tokens * shape.width()], scales }
    }

    /// Writes tokens `[n, kv_heads, head_dim]` from place `first` on.
    fn write(&mut self, first: usize, values: &[f32], shape: &KvShape) {
        let head_dim = shape.head_dim;
        for (place, token) in (first..).zip(values.chunks_exact(shape.width())) {
            for (head, values) in token.chunks_exact(head_dim).enumerate() {
                let at = head * self.tokens + place;
                let scale = T::quantise(values, &mut self.values[at * head_dim..][..head_dim]);
                if let Some(own) = self.scales.get_mut(at) {
                    *own = scale;
                }
            }
        }
    }
}

impl<T: Element> KvTensor<T> {
    const fn new() -> Self {
        Self { blocks: Vec::new() }
    }

    /// Writes tokens `[n, kv_heads, head_dim]` from `position` on, in blocks that are taken where there are none yet.
    fn append(&mut self, position: usize, values: &[f32], shape: &KvShape) {
        let width = shape.width();
        let n = values.len().checked_div(width).unwrap_or(0);
        if n == 0 {
            return;
        }
        while self.blocks.len() * KV_BLOCK_TOKENS < position + n {
            self.blocks.push(KvBlock::new(shape.block_tokens(self.blocks.len()), shape));
        }
        let first_block = position / KV_BLOCK_TOKENS;
        let write = |(index, block): (usize, &mut KvBlock<T>)| {
            let start = (first_block + index) * KV_BLOCK_TOKENS;
            let (from, to) = (position.max(start), (position + n).min(start + KV_BLOCK_TOKENS));
            block.write(from - start, &values[(from - position) * width..(to - position) * width], shape);
        };
        let blocks = &mut self.blocks[first_block..(position + n).div_ceil(KV_BLOCK_TOKENS)];
        // A step of decoding is not worth another thread.
        if values.len() < PARALLEL_VALUES {
            blocks.iter_mut().enumerate().for_each(write);
        } else {
            blocks.par_iter_mut().enumerate().for_each(write);
        }
    }

    /// The first `len` tokens of a head.
    fn head(&self, kv_head: usize, len: usize, head_dim: usize) -> KvView<'_, T> {
        KvView { blocks: &self.blocks, kv_head, len, head_dim }
    }
}

/// How attention of a row is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionPath {
    /// By the number of its tokens: as matrix products from eight on, which rounds otherwise than one at a time.
    #[default]
    ByLength,
    /// As for one token at a time, whatever their number: the results are those of single tokens, to the bit.
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
}

impl KvStorage {
    /// The formats that keys and values can have.
    pub const FORMATS: [Format; 3] = [Format::F32, Format::BF16, Format::Q8_0];

    /// Room for up to `capacity` tokens; `None` for a format that is not one of [`KvStorage::FORMATS`].
    pub fn new(format: Format, kv_heads: usize, capacity: usize, head_dim: usize) -> Option<Self> {
        let tensors = match format {
            Format::F32 => KvTensors::F32([KvTensor::new(), KvTensor::new()]),
            Format::BF16 => KvTensors::BF16([KvTensor::new(), KvTensor::new()]),
            Format::Q8_0 => KvTensors::Q8([KvTensor::new(), KvTensor::new()]),
            _ => return None,
        };
        Some(Self { shape: KvShape { kv_heads, head_dim, capacity }, tensors })
    }

    /// Bytes of the blocks taken so far.
    pub fn bytes(&self) -> usize {
        let blocks = each_type!(&self.tensors, both => both[0].blocks.len());
        (0..blocks).map(|index| self.token_bytes() * self.shape.block_tokens(index)).sum()
    }

    /// Bytes that `tokens` tokens take, in whole blocks.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        let blocks = tokens.min(self.shape.capacity).div_ceil(KV_BLOCK_TOKENS);
        (0..blocks).map(|index| self.token_bytes() * self.shape.block_tokens(index)).sum()
    }

    /// Bytes of keys and values of a token.
    fn token_bytes(&self) -> usize {
        let KvShape { kv_heads, head_dim, .. } = self.shape;
        2 * kv_heads
            * match self.tensors {
                KvTensors::F32(_) => 4 * head_dim,
                KvTensors::BF16(_) => 2 * head_dim,
                KvTensors::Q8(_) => head_dim + size_of::<f32>(),
            }
    }

    /// Returns the blocks that the first `len` tokens do not need.
    pub fn truncate(&mut self, len: usize) {
        let blocks = len.div_ceil(KV_BLOCK_TOKENS);
        each_type!(&mut self.tensors, both => both.iter_mut().for_each(|tensor| tensor.blocks.truncate(blocks)));
    }

    /// Writes keys and values `[len, kv_heads, head_dim]` from `position` on.
    fn append(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        each_type!(&mut self.tensors, both => {
            let [own_keys, own_values] = both;
            own_keys.append(position, keys, &shape);
            own_values.append(position, values, &shape);
        });
    }

    /// Attention of a task's queries to a head of the row's first tokens, those of the pass included.
    fn attend(&self, queries: &Queries<'_>, task: &mut Task<'_>, memory: &mut Memory) {
        each_type!(&self.tensors, both => self.attend_to(both, queries, task, memory));
    }

    fn attend_to<T: Element>(
        &self,
        both: &[KvTensor<T>; 2],
        queries: &Queries<'_>,
        task: &mut Task<'_>,
        memory: &mut Memory,
    ) {
        let &Queries { q, before, shape, path } = queries;
        let head_dim = self.shape.head_dim;
        let len = before + task.results.len();
        let [keys, values] = both.each_ref().map(|tensor| tensor.head(task.kv_head, len, head_dim));
        if task.results.len() < MIN_GEMM_QUERIES || path == AttentionPath::AsDecoding {
            T::ATTEND(q, [keys, values], before, shape, (task, &mut memory.weights));
            return;
        }
        keys.dequantise(&mut memory.keys);
        values.dequantise(&mut memory.values);
        let [keys, values] = [&memory.keys, &memory.values].map(|values| HeadView { values, stride: head_dim });
        attend(q, KvHead { keys, values, before }, shape, task, &mut memory.scratch);
    }
}

/// The queries of a pass, and how a row's are to be computed.
#[derive(Clone, Copy)]
struct Queries<'a> {
    /// `[n, heads, head_dim]`, of all rows.
    q: &'a [f32],
    /// Tokens of the row before the pass.
    before: usize,
    shape: &'a AttentionShape,
    path: AttentionPath,
}

/// Memory of a thread, used again for the next task.
#[derive(Default)]
struct Memory {
    weights: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scratch: Scratch,
}

impl Memory {
    /// How many values there is room for.
    fn values(&self) -> usize {
        let own = [&self.weights, &self.keys, &self.values].map(Vec::capacity);
        own.iter().sum::<usize>() + self.scratch.values()
    }
}

/// Values that a thread keeps room for: 16 MB, the keys and values of a head after several thousand tokens.
const MAX_KEPT_VALUES: usize = 4 << 20;

thread_local! {
    static MEMORY: std::cell::Cell<Memory> = std::cell::Cell::default();
}

/// Attention of the rows of a pass, each to its cache and to itself: `q` `[n, heads, head_dim]`, `k` and `v`
/// `[n, kv_heads, head_dim]`, with the rows' tokens one after the other. The result `y` is `[n, heads · head_dim]`.
///
/// A row's result does not depend on the others. A few rows of a few tokens, which is what decoding runs, allocate
/// nothing but a block of the cache now and then.
///
/// # Panics
/// If a row does not fit its cache, or the rows are not as many tokens as there are.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], rows: &mut [CachedRow<'_>], y: &mut [f32]) {
    let Some(first) = rows.first() else { return };
    let KvShape { kv_heads, head_dim, .. } = first.cache.shape;
    let n: usize = rows.iter().map(|row| row.len).sum();
    let shape = AttentionShape { heads: q.len() / (n * head_dim).max(1), kv_heads, head_dim };
    let width = shape.kv_heads * shape.head_dim;
    let mut start = 0;
    let mut work = 0;
    for row in rows.iter_mut() {
        assert!(row.position + row.len <= row.cache.shape.capacity, "the caller has checked that rows fit");
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
        let queries = Queries { q, before: row.position, shape: &shape, path: row.path };
        row.cache.attend(&queries, task, &mut memory);
        if memory.values() <= MAX_KEPT_VALUES {
            MEMORY.set(memory);
        }
    };
    if work < PARALLEL_WORK || current_num_threads() == 1 {
        tasks.iter_mut().enumerate().for_each(run);
    } else {
        tasks.par_iter_mut().enumerate().for_each(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    /// A row of `n` tokens, its keys and values rounded as `dtype` does.
    fn rounded(values: &[f32], head_dim: usize, dtype: Format) -> Vec<f32> {
        let each = values.chunks_exact(head_dim).flat_map(|head| match dtype {
            Format::BF16 => head.iter().map(|value| bf16::from_f32(*value).to_f32()).collect::<Vec<_>>(),
            Format::Q8_0 => {
                let mut cells = vec![0i8; head_dim];
                let scale = i8::quantise(head, &mut cells);
                cells.iter().map(|cell| f32::from(*cell) * scale).collect()
            }
            _ => head.to_vec(),
        });
        each.collect()
    }

    fn attended(q: &[f32], k: &[f32], v: &[f32], rows: &mut [CachedRow<'_>]) -> Vec<f32> {
        let mut y = vec![f32::NAN; q.len()];
        attention(q, k, v, rows, &mut y);
        y
    }

    /// Attention in `f64` of all tokens of a row.
    fn plain(q: &[f32], k: &[f32], v: &[f32], shape: &AttentionShape) -> Vec<f64> {
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
    fn is_attention_to_what_was_kept() {
        // Runs of tokens: one at a time, a few, many, and more at the end.
        let passes: [&[usize]; 4] = [&[1, 1, 1, 1], &[3, 1, 7, 2], &[40, 1, 20], &[9, 8, 1, 33]];
        for (heads, kv_heads, head_dim) in [(4, 4, 16), (6, 2, 33), (8, 1, 128), (5, 5, 32)] {
            let shape = AttentionShape { heads, kv_heads, head_dim };
            for (lens, dtype) in passes.into_iter().flat_map(|lens| KvStorage::FORMATS.map(|dtype| (lens, dtype))) {
                let n: usize = lens.iter().sum();
                let q: Vec<f32> = numbers(n * heads * head_dim, 1).iter().map(|value| 2.0 * value).collect();
                let (k, v) = (numbers(n * kv_heads * head_dim, 2), numbers(n * kv_heads * head_dim, 3));
                let [kept_k, kept_v] = [&k, &v].map(|values| rounded(values, head_dim, dtype));
                let expected = plain(&q, &kept_k, &kept_v, &shape);
                let mut cache = KvStorage::new(dtype, kv_heads, n, head_dim).unwrap();
                let mut found = Vec::new();
                let mut position = 0;
                for &len in lens {
                    let of = |values: &[f32], heads: usize| {
                        values[position * heads * head_dim..(position + len) * heads * head_dim].to_vec()
                    };
                    let rows = &mut [CachedRow { cache: &mut cache, position, len, path: AttentionPath::ByLength }];
                    found.extend(attended(&of(&q, heads), &of(&k, kv_heads), &of(&v, kv_heads), rows));
                    position += len;
                }
                for (found, expected) in found.iter().zip(expected) {
                    assert!((f64::from(*found) - expected).abs() < 2e-5, "{dtype} {lens:?}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn rows_do_not_see_each_other() {
        let (heads, kv_heads, head_dim) = (4, 2, 24);
        for dtype in KvStorage::FORMATS {
            let lens = [1, 12, 3];
            let n: usize = lens.iter().sum();
            let (q, k, v) = (
                numbers(n * heads * head_dim, 1),
                numbers(n * kv_heads * head_dim, 2),
                numbers(n * kv_heads * head_dim, 3),
            );
            let caches = || lens.map(|_| KvStorage::new(dtype, kv_heads, 16, head_dim).unwrap());
            let mut together = caches();
            let mut rows: Vec<CachedRow<'_>> = together
                .iter_mut()
                .zip(lens)
                .map(|(cache, len)| CachedRow { cache, position: 0, len, path: AttentionPath::ByLength })
                .collect();
            let all = attended(&q, &k, &v, &mut rows);
            let mut start = 0;
            for (mut cache, len) in caches().into_iter().zip(lens) {
                let own = |values: &[f32], heads: usize| {
                    values[start * heads * head_dim..(start + len) * heads * head_dim].to_vec()
                };
                let mut rows = [CachedRow { cache: &mut cache, position: 0, len, path: AttentionPath::ByLength }];
                let alone = attended(&own(&q, heads), &own(&k, kv_heads), &own(&v, kv_heads), &mut rows);
                assert_eq!(alone, own(&all, heads), "{dtype}");
                start += len;
            }
        }
    }

    /// Several tokens at a time are what they are one at a time, to the bit, where it is asked for.
    #[test]
    fn as_decoding_is_one_token_at_a_time() {
        let (heads, kv_heads, head_dim, n) = (6, 2, 40, 90);
        let (q, k, v) = (
            numbers(n * heads * head_dim, 1),
            numbers(n * kv_heads * head_dim, 2),
            numbers(n * kv_heads * head_dim, 3),
        );
        for dtype in KvStorage::FORMATS {
            let run = |lens: &[usize]| {
                let mut cache = KvStorage::new(dtype, kv_heads, n, head_dim).unwrap();
                let (mut position, mut all) = (0, Vec::new());
                for &len in lens {
                    let of = |values: &[f32], heads: usize| {
                        values[position * heads * head_dim..(position + len) * heads * head_dim].to_vec()
                    };
                    let rows = &mut [CachedRow { cache: &mut cache, position, len, path: AttentionPath::AsDecoding }];
                    all.extend(attended(&of(&q, heads), &of(&k, kv_heads), &of(&v, kv_heads), rows));
                    position += len;
                }
                all
            };
            let expected = run(&[1; 90]);
            assert_eq!(run(&[90]), expected, "{dtype}");
            assert_eq!(run(&[17, 9, 1, 40, 23]), expected, "{dtype}");
        }
    }

    #[test]
    fn takes_the_room_that_it_says() {
        let bytes = |dtype| KvStorage::new(dtype, 2, 10, 32).map(|cache| cache.bytes_of(10));
        assert_eq!(KvStorage::FORMATS.map(bytes), [Some(5120), Some(2560), Some(1440)]);
        assert_eq!(bytes(Format::Q4_0), None);
    }

    #[test]
    fn blocks_are_taken_as_it_grows_and_returned() {
        for dtype in KvStorage::FORMATS {
            let mut cache = KvStorage::new(dtype, 2, 150, 8).unwrap();
            let token = cache.bytes_of(1) / KV_BLOCK_TOKENS;
            let mut position = 0;
            for (len, tokens) in [(1, 64), (63, 64), (1, 128), (64, 150), (21, 150)] {
                let (k, v) = (numbers(len * 16, 1), numbers(len * 16, 2));
                cache.append(position, &k, &v);
                position += len;
                assert_eq!(cache.bytes(), tokens * token, "{dtype} after {position}");
                assert_eq!(cache.bytes_of(position), cache.bytes());
            }
            cache.truncate(64);
            assert_eq!(cache.bytes(), 64 * token);
            cache.truncate(0);
            assert_eq!(cache.bytes(), 0);
        }
    }
}
