//! Attention: projections, QK-norm, rotary positions, and each row's own keys and values.

use burn::module::Module;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};
use lumina_core::Loader;
use lumina_core::ops::Linear;

use crate::config::Architecture;
use crate::kv_cache::LayerCache;
use crate::norm::HeadNorm;
use crate::rope::Rotation;

/// Grouped-query attention. Mirrors `modeling_chameleon.py::ChameleonAttention`.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: HeadNorm,
    k_norm: HeadNorm,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// A row of the batch in one layer: which tokens of the pass are its own, and what came before them.
pub(crate) struct Span<'a> {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) position: usize,
    pub(crate) cache: Option<&'a mut LayerCache>,
}

impl Attention {
    pub(crate) fn new(loader: &Loader<'_>, architecture: &Architecture) -> Self {
        let &Architecture { hidden, heads, kv_heads, head_dim, attention_bias: bias, qk_norm_parts, .. } = architecture;
        let parts_of = |heads: usize| if heads.is_multiple_of(qk_norm_parts) { qk_norm_parts } else { heads };
        Self {
            q_proj: loader.pp("q_proj").linear(hidden, heads * head_dim, bias),
            k_proj: loader.pp("k_proj").linear(hidden, kv_heads * head_dim, bias),
            v_proj: loader.pp("v_proj").linear(hidden, kv_heads * head_dim, bias),
            o_proj: loader.pp("o_proj").linear(heads * head_dim, hidden, bias),
            q_norm: HeadNorm::new(&loader.pp("q_norm"), heads, parts_of(heads), head_dim),
            k_norm: HeadNorm::new(&loader.pp("k_norm"), kv_heads, parts_of(kv_heads), head_dim),
            heads,
            kv_heads,
            head_dim,
        }
    }

    /// `x` `[n, hidden]` holds the tokens of all rows, one row after the other; a row attends to itself alone.
    pub(crate) fn forward(&self, x: Tensor<2>, rotation: &Rotation, spans: &mut [Span<'_>]) -> Tensor<2> {
        let [n, _] = x.dims();
        let split = |x: Tensor<2>, heads| x.reshape([n, heads, self.head_dim]);
        let q = rotation.apply(self.q_norm.forward(split(self.q_proj.forward(x.clone()), self.heads)));
        let k = rotation.apply(self.k_norm.forward(split(self.k_proj.forward(x.clone()), self.kv_heads)));
        let v = split(self.v_proj.forward(x), self.kv_heads);
        let attended = match Together::of(spans, self.heads) {
            Some(together) => {
                let [q, k, v] = [q, k, v].map(|x| together.pad(x));
                together.cut(self.attend(q, k, v, 0))
            }
            None => {
                let rows = spans.iter_mut().map(|span| {
                    let own = |x: &Tensor<3>| x.clone().narrow(0, span.start, span.len).swap_dims(0, 1);
                    let (q, k, v) = (own(&q), own(&k), own(&v));
                    let (k, v) = match span.cache.as_deref_mut() {
                        Some(cache) => cache.append(span.position, k, v),
                        None => (k, v),
                    };
                    self.attend(q.unsqueeze(), k.unsqueeze(), v.unsqueeze(), span.position)
                });
                let mut rows: Vec<Tensor<2>> = rows.collect();
                if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 0) }
            }
        };
        self.o_proj.forward(attended)
    }

    /// `q` `[rows, heads, len, head_dim]` from `position` on, `k` and `v` `[rows, kv_heads, seen, head_dim]` from 0 on;
    /// the result is `[rows · len, heads · head_dim]`.
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, position: usize) -> Tensor<2> {
        let ([rows, _, len, _], seen) = (q.dims(), k.dims()[2]);
        let (dtype, device) = (q.dtype(), q.device());
        let group = self.heads / self.kv_heads;
        // The heads that share keys and values become rows of one product.
        let q = q.reshape([rows, self.kv_heads, group * len, self.head_dim]);
        let scores = q.matmul(k.swap_dims(2, 3)) * (self.head_dim as f64).powf(-0.5);
        let mut scores = scores.cast(DType::F32).reshape([rows * self.kv_heads, group, len, seen]);
        if len > 1 {
            let hidden: Vec<bool> =
                (0..len).flat_map(|query| (0..seen).map(move |key| key > position + query)).collect();
            let mask = Tensor::<4, Bool>::from_data(TensorData::new(hidden, [1, 1, len, seen]), &device);
            scores = scores.mask_fill(mask.expand([rows * self.kv_heads, group, len, seen]), f32::NEG_INFINITY);
        }
        let weights = activation::softmax(scores, 3).cast(dtype).reshape([rows, self.kv_heads, group * len, seen]);
        let attended = weights.matmul(v).reshape([rows, self.heads, len, self.head_dim]);
        attended.swap_dims(1, 2).reshape([rows * len, self.heads * self.head_dim])
    }
}

/// Rows that attend side by side, as those of a training batch: short, from their beginnings, and without caches. In one
/// product they cost a fraction of what they cost one by one, above all on the way back, where a part cut out of a
/// tensor has a gradient as large as the whole.
struct Together {
    lens: Vec<usize>,
    longest: usize,
}

/// Scores of one product, at most: 256 MB.
const MOST_SCORES: usize = 1 << 26;

impl Together {
    /// The rows of these spans, unless they are to go one by one.
    fn of(spans: &[Span<'_>], heads: usize) -> Option<Self> {
        let longest = spans.iter().map(|span| span.len).max()?;
        let fits = spans.len() * heads * longest * longest <= MOST_SCORES;
        let whole = spans.iter().all(|span| span.cache.is_none() && span.position == 0);
        (spans.len() > 1 && fits && whole).then(|| Self { lens: spans.iter().map(|span| span.len).collect(), longest })
    }

    fn is_even(&self) -> bool {
        self.lens.iter().all(|&len| len == self.longest)
    }

    /// `[n, heads, head_dim]` → `[rows, heads, longest, head_dim]`. What fills the ends of shorter rows is nowhere
    /// looked at, as it comes after everything else.
    fn pad(&self, x: Tensor<3>) -> Tensor<4> {
        let [_, heads, head_dim] = x.dims();
        let x = if self.is_even() {
            x
        } else {
            let mut start = 0;
            let places: Vec<i32> = self
                .lens
                .iter()
                .flat_map(|&len| {
                    start += len;
                    (0..self.longest).map(move |place| (start - len + place.min(len - 1)) as i32)
                })
                .collect();
            let places = Tensor::<1, Int>::from_data(places.as_slice(), &x.device());
            x.select(0, places)
        };
        x.reshape([self.lens.len(), self.longest, heads, head_dim]).swap_dims(1, 2)
    }

    /// `[rows · longest, width]` → `[n, width]`.
    fn cut(&self, x: Tensor<2>) -> Tensor<2> {
        if self.is_even() {
            return x;
        }
        let places: Vec<i32> = (0..)
            .zip(&self.lens)
            .flat_map(|(row, &len)| (row * self.longest..row * self.longest + len).map(|place| place as i32))
            .collect();
        let places = Tensor::<1, Int>::from_data(places.as_slice(), &x.device());
        x.select(0, places)
    }
}
