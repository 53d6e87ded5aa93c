//! A few queries against keys and values as they are stored: what decoding does for each token.

use half::bf16;

use super::causal::{AttentionShape as Shape, Task, exp_and_sum};
use crate::simd::reduce::largest;
use crate::simd::{F32s, LANES, Simd, simd_dispatch};

/// A stored number of a key or value.
pub trait Cell: Copy + Default + Send + Sync + 'static {
    /// Whether the cells of a token's head share a scale.
    const SCALED: bool;
    /// The number, before its scale.
    fn widen(self) -> f32;
    /// Stores a token's head, and gives its scale.
    fn narrow(values: &[f32], to: &mut [Self]) -> f32;
    /// What a task's queries see of keys and values, the first of them `before` tokens and itself, with the best
    /// instructions. Beside the task comes memory to work in.
    const ATTEND: Attend<Self>;
}

/// See [`Cell::ATTEND`].
pub type Attend<T> = fn(&[f32], [Stored<'_, T>; 2], usize, &Shape, (&mut Task<'_>, &mut Vec<f32>));

/// Tokens of one head, `[len, head_dim]`.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a, T> {
    pub cells: &'a [T],
    /// One a token where cells have scales.
    pub scales: &'a [f32],
}

impl<T: Cell> Stored<'_, T> {
    /// All numbers.
    pub fn widen(&self, head_dim: usize, to: &mut Vec<f32>) {
        to.clear();
        to.extend(self.cells.iter().map(|cell| cell.widen()));
        for (token, scale) in to.chunks_exact_mut(head_dim).zip(self.scales) {
            token.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

macro_rules! cell {
    ($type:ty, $best:ident, $body:ident) => {
        simd_dispatch!(fn $best(
            q: &[f32], seen: [Stored<'_, $type>; 2], before: usize, shape: &Shape, to: (&mut Task<'_>, &mut Vec<f32>)
        ) = $body);

        #[inline(always)]
        fn $body<S: Simd>(
            simd: S,
            q: &[f32],
            seen: [Stored<'_, $type>; 2],
            before: usize,
            shape: &Shape,
            to: (&mut Task<'_>, &mut Vec<f32>),
        ) {
            few::<S, $type>(simd, q, seen, before, shape, to);
        }
    };
}
cell!(f32, attend_f32, attend_f32_body);
cell!(bf16, attend_bf16, attend_bf16_body);
cell!(i8, attend_i8, attend_i8_body);

impl Cell for f32 {
    const SCALED: bool = false;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    fn narrow(values: &[f32], to: &mut [Self]) -> f32 {
        to.copy_from_slice(values);
        1.0
    }
    const ATTEND: Attend<Self> = attend_f32;
}

impl Cell for bf16 {
    const SCALED: bool = false;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    fn narrow(values: &[f32], to: &mut [Self]) -> f32 {
        to.iter_mut().zip(values).for_each(|(to, value)| *to = Self::from_f32(*value));
        1.0
    }
    const ATTEND: Attend<Self> = attend_bf16;
}

impl Cell for i8 {
    const SCALED: bool = true;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    /// The largest magnitude becomes 127.
    fn narrow(values: &[f32], to: &mut [Self]) -> f32 {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        to.iter_mut().zip(values).for_each(|(to, value)| *to = (value * factor).round() as Self);
        largest / 127.0
    }
    const ATTEND: Attend<Self> = attend_i8;
}

/// Queries that go over keys and values together.
const TOGETHER: usize = 4;
/// The queries of a task, member by member of the group and token by token, some at a time.
#[inline(always)]
fn few<S: Simd, T: Cell>(
    simd: S,
    q: &[f32],
    [keys, values]: [Stored<'_, T>; 2],
    before: usize,
    shape: &Shape,
    (task, weights): (&mut Task<'_>, &mut Vec<f32>),
) {
    let Shape { heads, head_dim, .. } = *shape;
    let (group, len) = (shape.group(), task.results.len());
    let width = before + len;
    weights.resize(TOGETHER * width, 0.0);
    let query = |index: usize| {
        let (token, member) = (index / group, index % group);
        &q[((task.start + token) * heads + task.kv_head * group + member) * head_dim..][..head_dim]
    };
    let count = group * len;
    let mut first = 0;
    while first < count {
        let n = if count - first >= TOGETHER { TOGETHER } else { 1 };
        let of_query: [&[f32]; TOGETHER] = std::array::from_fn(|at| query((first + at).min(count - 1)));
        // A token of the row sees itself and what is before it; keys beyond are left out below.
        let seen = |at: usize| before + (first + at) / group + 1;
        let last = seen(n - 1);
        match (n, head_dim) {
            (TOGETHER, _) => scores::<S, T, TOGETHER>(simd, of_query, keys, last, shape, weights, width),
            // That of the published models as a constant, for which the query stays in registers.
            (_, 128) => {
                scores::<S, T, 1>(simd, [of_query[0]], keys, last, &Shape { head_dim: 128, ..*shape }, weights, width)
            }
            _ => scores::<S, T, 1>(simd, [of_query[0]], keys, last, shape, weights, width),
        }
        let mut factors = [0.0; TOGETHER];
        for (at, weights) in weights.chunks_exact_mut(width).take(n).enumerate() {
            let (weights, hidden) = weights.split_at_mut(seen(at));
            let sum = exp_and_sum(weights, largest(weights));
            hidden.fill(0.0);
            factors[at] = sum.recip();
            weights.iter_mut().zip(values.scales).for_each(|(weight, scale)| *weight *= scale);
        }
        for at in 0..n {
            let (token, member) = ((first + at) / group, (first + at) % group);
            let to = &mut task.results[token][member * head_dim..][..head_dim];
            weighted::<S, T>(simd, &weights[at * width..][..last], values, factors[at], to);
        }
        first += n;
    }
}

/// The scores of `N` queries with the first `seen` keys, scaled, into rows of `width`.
#[inline(always)]
fn scores<S: Simd, T: Cell, const N: usize>(
    simd: S,
    queries: [&[f32]; N],
    keys: Stored<'_, T>,
    seen: usize,
    shape: &Shape,
    to: &mut [f32],
    width: usize,
) {
    let (head_dim, scale) = (shape.head_dim, shape.scale());
    let (whole, rest) = (head_dim / LANES, head_dim / LANES * LANES..head_dim);
    for (token, key) in keys.cells.chunks_exact(head_dim).take(seen).enumerate() {
        let mut sums = [simd.splat(0.0); N];
        for at in 0..whole {
            let part = at * LANES..(at + 1) * LANES;
            let key = widen::<S, T>(simd, &key[part.clone()]);
            for (sum, query) in sums.iter_mut().zip(&queries) {
                *sum = sum.multiply_add(simd.load(&query[part.clone()]), key);
            }
        }
        let scale = keys.scales.get(token).map_or(scale, |own| own * scale);
        for (row, (sum, query)) in sums.into_iter().zip(&queries).enumerate() {
            let mut sum = sum.sum();
            if !rest.is_empty() {
                let pairs = query[rest.clone()].iter().zip(&key[rest.clone()]);
                sum += pairs.map(|(query, key)| query * key.widen()).sum::<f32>();
            }
            to[row * width + token] = sum * scale;
        }
    }
}

/// The first sixteen cells.
#[inline(always)]
fn widen<S: Simd, T: Cell>(simd: S, cells: &[T]) -> S::F32s {
    let mut wide = [0.0; LANES];
    for (wide, cell) in wide.iter_mut().zip(&cells[..LANES]) {
        *wide = cell.widen();
    }
    simd.load(&wide)
}

/// The sum of values by weight, times a factor.
#[inline(always)]
fn weighted<S: Simd, T: Cell>(simd: S, weights: &[f32], values: Stored<'_, T>, factor: f32, to: &mut [f32]) {
    let head_dim = to.len();
    let mut start = 0;
    // As many sums as stay in registers while the values go by.
    while S::WIDE_TILES && start + 8 * LANES <= head_dim {
        strip::<S, T, 8>(simd, weights, values, factor, start, to);
        start += 8 * LANES;
    }
    while start + 4 * LANES <= head_dim {
        strip::<S, T, 4>(simd, weights, values, factor, start, to);
        start += 4 * LANES;
    }
    while start + LANES <= head_dim {
        strip::<S, T, 1>(simd, weights, values, factor, start, to);
        start += LANES;
    }
    for (at, to) in to.iter_mut().enumerate().skip(start) {
        let tokens = values.cells.chunks_exact(head_dim).zip(weights);
        *to = tokens.map(|(token, weight)| token[at].widen() * weight).sum::<f32>() * factor;
    }
}

#[inline(always)]
fn strip<S: Simd, T: Cell, const N: usize>(
    simd: S,
    weights: &[f32],
    values: Stored<'_, T>,
    factor: f32,
    start: usize,
    to: &mut [f32],
) {
    let mut sums = [simd.splat(0.0); N];
    for (token, weight) in values.cells.chunks_exact(to.len()).zip(weights) {
        let weight = simd.splat(*weight);
        let token = &token[start..start + N * LANES];
        for at in 0..N {
            sums[at] = sums[at].multiply_add(weight, widen::<S, T>(simd, &token[at * LANES..(at + 1) * LANES]));
        }
    }
    for (to, sum) in to[start..].as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
        *to = sum.to_array().map(|value| value * factor);
    }
}
