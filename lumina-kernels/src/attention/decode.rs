//! A few queries against keys and values as they are stored: what decoding does for each token.

use half::bf16;

use super::causal::{AttentionShape, Task, exp_and_sum};
use super::kv_storage::KvBlock;
use crate::simd::reduce::largest;
use crate::simd::{F32s, LANES, Simd, simd_dispatch};

/// The type of stored keys and values.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// Whether the values of a token's head share a scale.
    const SCALED: bool;
    /// The number, before its scale.
    fn to_f32(self) -> f32;
    /// Stores a token's head, and returns its scale.
    fn quantise(values: &[f32], to: &mut [Self]) -> f32;
    /// Attention of a task's queries to keys and values, the first query to `before` tokens and itself, with the best
    /// instructions. The last argument has the task, and memory to work in.
    const ATTEND: Attend<Self>;
}

/// See [`Element::ATTEND`].
pub(crate) type Attend<T> = fn(&[f32], [KvView<'_, T>; 2], usize, &AttentionShape, (&mut Task<'_>, &mut Vec<f32>));

/// The first tokens of one head of keys or values, in blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KvView<'a, T> {
    pub(crate) blocks: &'a [KvBlock<T>],
    pub(crate) kv_head: usize,
    /// Tokens.
    pub(crate) len: usize,
    pub(crate) head_dim: usize,
}

/// Tokens of one head that lie one after the other.
struct Segment<'a, T> {
    /// `[n, head_dim]`.
    values: &'a [T],
    /// `[n]`; empty where the type has no scale.
    scales: &'a [f32],
}

impl<'a, T: Element> KvView<'a, T> {
    /// The tokens block by block, in their order.
    #[inline(always)]
    fn segments(self) -> impl Iterator<Item = Segment<'a, T>> {
        let Self { blocks, kv_head, len, head_dim } = self;
        let mut left = len;
        blocks.iter().map_while(move |block| {
            let n = left.min(block.tokens);
            left -= n;
            let first = kv_head * block.tokens;
            (n > 0).then(|| Segment {
                values: &block.values[first * head_dim..][..n * head_dim],
                scales: block.scales.get(first..first + n).unwrap_or_default(),
            })
        })
    }

    /// All values in `f32`, `[len, head_dim]`.
    pub(crate) fn dequantise(&self, to: &mut Vec<f32>) {
        to.clear();
        for Segment { values, scales } in self.segments() {
            let start = to.len();
            to.extend(values.iter().map(|value| value.to_f32()));
            for (token, scale) in to[start..].chunks_exact_mut(self.head_dim).zip(scales) {
                token.iter_mut().for_each(|value| *value *= scale);
            }
        }
    }
}

macro_rules! attend {
    ($type:ty, $best:ident, $body:ident) => {
        simd_dispatch!(fn $best(
            q: &[f32],
            seen: [KvView<'_, $type>; 2],
            before: usize,
            shape: &AttentionShape,
            to: (&mut Task<'_>, &mut Vec<f32>)
        ) = $body);

        #[inline(always)]
        fn $body<S: Simd>(
            simd: S,
            q: &[f32],
            seen: [KvView<'_, $type>; 2],
            before: usize,
            shape: &AttentionShape,
            to: (&mut Task<'_>, &mut Vec<f32>),
        ) {
            gemv::<S, $type>(simd, q, seen, before, shape, to);
        }
    };
}
attend!(f32, attend_f32, attend_f32_body);
attend!(bf16, attend_bf16, attend_bf16_body);
attend!(i8, attend_i8, attend_i8_body);

impl Element for f32 {
    const SCALED: bool = false;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    fn quantise(values: &[f32], to: &mut [Self]) -> f32 {
        to.copy_from_slice(values);
        1.0
    }
    const ATTEND: Attend<Self> = attend_f32;
}

impl Element for bf16 {
    const SCALED: bool = false;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    fn quantise(values: &[f32], to: &mut [Self]) -> f32 {
        to.iter_mut().zip(values).for_each(|(to, value)| *to = Self::from_f32(*value));
        1.0
    }
    const ATTEND: Attend<Self> = attend_bf16;
}

impl Element for i8 {
    const SCALED: bool = true;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    /// The largest magnitude becomes 127.
    fn quantise(values: &[f32], to: &mut [Self]) -> f32 {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        to.iter_mut().zip(values).for_each(|(to, value)| *to = (value * factor).round() as Self);
        largest / 127.0
    }
    const ATTEND: Attend<Self> = attend_i8;
}

/// Queries for which keys and values are read once.
const QUERY_TILE: usize = 4;
/// The queries of a task, member by member of the group and token by token, some at a time.
#[inline(always)]
fn gemv<S: Simd, T: Element>(
    simd: S,
    q: &[f32],
    [keys, values]: [KvView<'_, T>; 2],
    before: usize,
    shape: &AttentionShape,
    (task, weights): (&mut Task<'_>, &mut Vec<f32>),
) {
    let AttentionShape { heads, head_dim, .. } = *shape;
    let (group, len) = (shape.group(), task.results.len());
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
        let of_query: [&[f32]; QUERY_TILE] = std::array::from_fn(|at| query((first + at).min(count - 1)));
        // A token of the row sees itself and what is before it; keys beyond are left out below.
        let seen = |at: usize| before + (first + at) / group + 1;
        let last = seen(n - 1);
        match (n, head_dim) {
            (QUERY_TILE, _) => scores::<S, T, QUERY_TILE>(simd, of_query, keys, last, shape, weights, width),
            // That of the published models as a constant, for which the query stays in registers.
            (_, 128) => scores::<S, T, 1>(
                simd,
                [of_query[0]],
                keys,
                last,
                &AttentionShape { head_dim: 128, ..*shape },
                weights,
                width,
            ),
            _ => scores::<S, T, 1>(simd, [of_query[0]], keys, last, shape, weights, width),
        }
        let mut factors = [0.0; QUERY_TILE];
        for (at, weights) in weights.chunks_exact_mut(width).take(n).enumerate() {
            let (weights, hidden) = weights.split_at_mut(seen(at));
            let sum = exp_and_sum(weights, largest(weights));
            hidden.fill(0.0);
            factors[at] = sum.recip();
            if T::SCALED {
                let scales = values.segments().flat_map(|segment| segment.scales);
                weights.iter_mut().zip(scales).for_each(|(weight, scale)| *weight *= scale);
            }
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
fn scores<S: Simd, T: Element, const N: usize>(
    simd: S,
    queries: [&[f32]; N],
    keys: KvView<'_, T>,
    seen: usize,
    shape: &AttentionShape,
    to: &mut [f32],
    width: usize,
) {
    let (head_dim, scale) = (shape.head_dim, shape.scale());
    let (whole, rest) = (head_dim / LANES, head_dim / LANES * LANES..head_dim);
    let mut token = 0;
    for Segment { values, scales } in (KvView { len: seen, ..keys }).segments() {
        for (place, key) in values.chunks_exact(head_dim).enumerate() {
            let mut sums = [simd.splat(0.0); N];
            for at in 0..whole {
                let part = at * LANES..(at + 1) * LANES;
                let key = load::<S, T>(simd, &key[part.clone()]);
                for (sum, query) in sums.iter_mut().zip(&queries) {
                    *sum = sum.multiply_add(simd.load(&query[part.clone()]), key);
                }
            }
            let scale = scales.get(place).map_or(scale, |own| own * scale);
            for (row, (sum, query)) in sums.into_iter().zip(&queries).enumerate() {
                let mut sum = sum.sum();
                if !rest.is_empty() {
                    let pairs = query[rest.clone()].iter().zip(&key[rest.clone()]);
                    sum += pairs.map(|(query, key)| query * key.to_f32()).sum::<f32>();
                }
                to[row * width + token] = sum * scale;
            }
            token += 1;
        }
    }
}

/// The first sixteen values.
#[inline(always)]
fn load<S: Simd, T: Element>(simd: S, values: &[T]) -> S::F32s {
    let mut wide = [0.0; LANES];
    for (wide, value) in wide.iter_mut().zip(&values[..LANES]) {
        *wide = value.to_f32();
    }
    simd.load(&wide)
}

/// The sum of values by weight, times a factor.
#[inline(always)]
fn weighted<S: Simd, T: Element>(simd: S, weights: &[f32], values: KvView<'_, T>, factor: f32, to: &mut [f32]) {
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
        let tokens = values.segments().flat_map(|segment| segment.values.chunks_exact(head_dim)).zip(weights);
        *to = tokens.map(|(token, weight)| token[at].to_f32() * weight).sum::<f32>() * factor;
    }
}

#[inline(always)]
fn strip<S: Simd, T: Element, const N: usize>(
    simd: S,
    weights: &[f32],
    values: KvView<'_, T>,
    factor: f32,
    start: usize,
    to: &mut [f32],
) {
    let mut sums = [simd.splat(0.0); N];
    let mut weights = weights;
    for segment in values.segments() {
        for (token, weight) in segment.values.chunks_exact(to.len()).zip(weights) {
            let weight = simd.splat(*weight);
            let token = &token[start..start + N * LANES];
            for at in 0..N {
                sums[at] = sums[at].multiply_add(weight, load::<S, T>(simd, &token[at * LANES..(at + 1) * LANES]));
            }
        }
        weights = weights.get(segment.values.len() / to.len()..).unwrap_or_default();
    }
    for (to, sum) in to[start..].as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
        *to = sum.to_array().map(|value| value * factor);
    }
}
