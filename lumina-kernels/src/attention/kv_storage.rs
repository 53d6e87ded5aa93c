//! Keys and values of a sequence in the program's own memory, and attention to them.

use std::cell::Cell as Kept;
use std::num::NonZero;

use crate::parallel::*;
use half::bf16;
use smallvec::SmallVec;

use super::causal::{AttentionShape as Shape, HeadView as Heads, KvHead as Seen, Scratch, Task, attend, tasks};
use super::decode::{Cell, Stored};
use crate::Format;

/// Queries of a row from which on keys and values are laid out as matrices.
const MANY: usize = 8;
/// Multiply-adds from which on threads share the work.
const PARALLEL: usize = 1 << 15;
/// Values from which on threads share their writing.
const PARALLEL_CELLS: usize = 1 << 16;

/// Keys and values of one layer of one sequence, written once and read where they lie.
///
/// In `f32`, `bf16`, or bytes with a scale for each token and head ([`Format::Q8_0`]): the narrower, the less memory there is to
/// read for each token. Memory is taken as it fills.
#[derive(Debug)]
pub struct KeyValues {
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    cells: Cells,
}

/// Both sides, `[kv_heads, capacity, head_dim]` each.
#[derive(Debug)]
enum Cells {
    F32([Side<f32>; 2]),
    BF16([Side<bf16>; 2]),
    Q8([Side<i8>; 2]),
}

/// Keys, or values.
#[derive(Debug)]
struct Side<T> {
    cells: Vec<T>,
    /// What a token's cells are multiplied by, `[kv_heads, capacity]`; none where cells are numbers themselves.
    scales: Vec<f32>,
}

impl<T: Cell> Side<T> {
    fn new(rows: usize, head_dim: usize) -> Self {
        let scales = if T::SCALED { vec![0.0; rows] } else { Vec::new() };
        Self { cells: vec![T::default(); rows * head_dim], scales }
    }

    /// Writes heads of tokens `[len, kv_heads, head_dim]` from `position` on, where there is room for `capacity` of them.
    fn append(&mut self, capacity: usize, head_dim: usize, position: usize, values: &[f32]) {
        let Some(room) = NonZero::new(capacity * head_dim) else { return };
        let width = self.cells.len() / capacity;
        let write = |head: usize, cells: &mut [T], scales: &mut [f32]| {
            let places = cells.chunks_exact_mut(head_dim).enumerate().skip(position);
            for ((place, cells), token) in places.zip(values.chunks_exact(width)) {
                let scale = T::narrow(&token[head * head_dim..][..head_dim], cells);
                if let Some(own) = scales.get_mut(place) {
                    *own = scale;
                }
            }
        };
        // A step of decoding is not worth another thread.
        let least = if values.len() < PARALLEL_CELLS { usize::MAX } else { 1 };
        let heads = self.cells.par_chunks_mut(room.get()).with_min_len(least).enumerate();
        if T::SCALED {
            let scales = self.scales.par_chunks_mut(capacity).with_min_len(least);
            heads.zip(scales).for_each(|((head, cells), scales)| write(head, cells, scales));
        } else {
            heads.for_each(|(head, cells)| write(head, cells, &mut []));
        }
    }

    /// The first `len` tokens of the head that begins at row `first`.
    fn head(&self, first: usize, len: usize, head_dim: usize) -> Stored<'_, T> {
        Stored {
            cells: &self.cells[first * head_dim..][..len * head_dim],
            scales: self.scales.get(first..first + len).unwrap_or_default(),
        }
    }
}

/// A row's part of a pass: `len` tokens from `position` on, whose keys and values `cache` takes up and has before them.
#[derive(Debug)]
pub struct CachedRow<'a> {
    /// What the row has seen.
    pub cache: &'a mut KeyValues,
    /// Tokens before these.
    pub position: usize,
    /// Tokens in the pass.
    pub len: usize,
}

impl KeyValues {
    /// The types that keys and values can have.
    pub const FORMATS: [Format; 3] = [Format::F32, Format::BF16, Format::Q8_0];

    /// Room for `capacity` tokens; `None` for a type that is not one of [`KeyValues::FORMATS`].
    pub fn new(dtype: Format, kv_heads: usize, capacity: usize, head_dim: usize) -> Option<Self> {
        let rows = kv_heads * capacity;
        let cells = match dtype {
            Format::F32 => Cells::F32([Side::new(rows, head_dim), Side::new(rows, head_dim)]),
            Format::BF16 => Cells::BF16([Side::new(rows, head_dim), Side::new(rows, head_dim)]),
            Format::Q8_0 => Cells::Q8([Side::new(rows, head_dim), Side::new(rows, head_dim)]),
            _ => return None,
        };
        Some(Self { kv_heads, head_dim, capacity, cells })
    }

    /// Bytes of room.
    pub fn bytes(&self) -> usize {
        let rows = self.kv_heads * self.capacity;
        2 * rows
            * match self.cells {
                Cells::F32(_) => 4 * self.head_dim,
                Cells::BF16(_) => 2 * self.head_dim,
                Cells::Q8(_) => self.head_dim + size_of::<f32>(),
            }
    }

    /// Writes keys and values `[len, kv_heads, head_dim]` from `position` on.
    fn append(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        let &mut Self { capacity, head_dim, .. } = self;
        macro_rules! append {
            ($sides:expr) => {
                $sides
                    .iter_mut()
                    .zip([keys, values])
                    .for_each(|(side, new)| side.append(capacity, head_dim, position, new))
            };
        }
        match &mut self.cells {
            Cells::F32(sides) => append!(sides),
            Cells::BF16(sides) => append!(sides),
            Cells::Q8(sides) => append!(sides),
        }
    }

    /// What a task's queries see of a head, from `before` tokens and themselves.
    fn attend(&self, q: &[f32], before: usize, shape: &Shape, task: &mut Task<'_>, memory: &mut Memory) {
        match &self.cells {
            Cells::F32([k, v]) => self.attend_to(k, v, q, before, shape, task, memory),
            Cells::BF16([k, v]) => self.attend_to(k, v, q, before, shape, task, memory),
            Cells::Q8([k, v]) => self.attend_to(k, v, q, before, shape, task, memory),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "`attend` with the sides told apart by type")]
    fn attend_to<T: Cell>(
        &self,
        keys: &Side<T>,
        values: &Side<T>,
        q: &[f32],
        before: usize,
        shape: &Shape,
        task: &mut Task<'_>,
        memory: &mut Memory,
    ) {
        let seen = before + task.results.len();
        let first = task.kv_head * self.capacity;
        let [keys, values] = [keys, values].map(|side| side.head(first, seen, self.head_dim));
        if task.results.len() < MANY {
            T::ATTEND(q, [keys, values], before, shape, (task, &mut memory.weights));
            return;
        }
        keys.widen(self.head_dim, &mut memory.keys);
        values.widen(self.head_dim, &mut memory.values);
        let [keys, values] = [&memory.keys, &memory.values].map(|values| Heads { values, stride: self.head_dim });
        attend(q, Seen { keys, values, before }, shape, task, &mut memory.scratch);
    }
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
const KEPT: usize = 4 << 20;

thread_local! {
    static MEMORY: Kept<Memory> = Kept::default();
}

/// Attention of rows of a pass, each to what its cache has and to itself: `q` `[n, heads, head_dim]`, `k` and `v`
/// `[n, kv_heads, head_dim]`, with the rows' tokens one after the other. The result `y` is `[n, heads · head_dim]`.
///
/// A row's result does not depend on the others. A few rows of a few tokens, which is what decoding runs, allocate
/// nothing once it has begun.
///
/// # Panics
/// If a row does not fit its cache, or the rows are not as many tokens as there are.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], rows: &mut [CachedRow<'_>], y: &mut [f32]) {
    let Some(first) = rows.first() else { return };
    let &KeyValues { kv_heads, head_dim, .. } = &*first.cache;
    let n: usize = rows.iter().map(|row| row.len).sum();
    let shape = Shape { heads: q.len() / (n * head_dim).max(1), kv_heads, head_dim };
    let width = shape.kv_heads * shape.head_dim;
    let mut start = 0;
    let mut work = 0;
    for row in rows.iter_mut() {
        assert!(row.position + row.len <= row.cache.capacity, "the caller has seen to it that rows fit");
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
        row.cache.attend(q, row.position, &shape, task, &mut memory);
        if memory.values() <= KEPT {
            MEMORY.set(memory);
        }
    };
    if work < PARALLEL || current_num_threads() == 1 {
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
                let scale = i8::narrow(head, &mut cells);
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
    fn plain(q: &[f32], k: &[f32], v: &[f32], shape: &Shape) -> Vec<f64> {
        let &Shape { heads, kv_heads, head_dim } = shape;
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
            let shape = Shape { heads, kv_heads, head_dim };
            for (lens, dtype) in passes.into_iter().flat_map(|lens| KeyValues::FORMATS.map(|dtype| (lens, dtype))) {
                let n: usize = lens.iter().sum();
                let q: Vec<f32> = numbers(n * heads * head_dim, 1).iter().map(|value| 2.0 * value).collect();
                let (k, v) = (numbers(n * kv_heads * head_dim, 2), numbers(n * kv_heads * head_dim, 3));
                let [kept_k, kept_v] = [&k, &v].map(|values| rounded(values, head_dim, dtype));
                let expected = plain(&q, &kept_k, &kept_v, &shape);
                let mut cache = KeyValues::new(dtype, kv_heads, n, head_dim).unwrap();
                let mut found = Vec::new();
                let mut position = 0;
                for &len in lens {
                    let of = |values: &[f32], heads: usize| {
                        values[position * heads * head_dim..(position + len) * heads * head_dim].to_vec()
                    };
                    let rows = &mut [CachedRow { cache: &mut cache, position, len }];
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
        for dtype in KeyValues::FORMATS {
            let lens = [1, 12, 3];
            let n: usize = lens.iter().sum();
            let (q, k, v) = (
                numbers(n * heads * head_dim, 1),
                numbers(n * kv_heads * head_dim, 2),
                numbers(n * kv_heads * head_dim, 3),
            );
            let caches = || lens.map(|_| KeyValues::new(dtype, kv_heads, 16, head_dim).unwrap());
            let mut together = caches();
            let mut rows: Vec<CachedRow<'_>> =
                together.iter_mut().zip(lens).map(|(cache, len)| CachedRow { cache, position: 0, len }).collect();
            let all = attended(&q, &k, &v, &mut rows);
            let mut start = 0;
            for (mut cache, len) in caches().into_iter().zip(lens) {
                let own = |values: &[f32], heads: usize| {
                    values[start * heads * head_dim..(start + len) * heads * head_dim].to_vec()
                };
                let mut rows = [CachedRow { cache: &mut cache, position: 0, len }];
                let alone = attended(&own(&q, heads), &own(&k, kv_heads), &own(&v, kv_heads), &mut rows);
                assert_eq!(alone, own(&all, heads), "{dtype}");
                start += len;
            }
        }
    }

    #[test]
    fn takes_the_room_that_it_says() {
        let bytes = |dtype| KeyValues::new(dtype, 2, 10, 32).map(|cache| cache.bytes());
        assert_eq!(KeyValues::FORMATS.map(bytes), [Some(5120), Some(2560), Some(1440)]);
        assert_eq!(bytes(Format::Q4_0), None);
    }
}
