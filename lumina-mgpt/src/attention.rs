//! Attention: projections, QK-norm, rotary positions, and each row's own keys and values.

use burn::module::Module;
use burn::tensor::{Bool, DType, Tensor, TensorData, activation};
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
        let mut attended: Vec<Tensor<2>> = Vec::with_capacity(spans.len());
        for span in spans {
            let own = |x: &Tensor<3>| x.clone().narrow(0, span.start, span.len).swap_dims(0, 1);
            let (q, k, v) = (own(&q), own(&k), own(&v));
            let (k, v) = match span.cache.as_deref_mut() {
                Some(cache) => cache.append(span.position, k, v),
                None => (k, v),
            };
            attended.push(self.attend(q, k, v, span.position));
        }
        let attended = match attended.len() {
            1 => attended.swap_remove(0),
            _ => Tensor::cat(attended, 0),
        };
        self.o_proj.forward(attended)
    }

    /// `q` `[heads, len, head_dim]` from `position` on, `k` and `v` `[kv_heads, seen, head_dim]` from 0 on;
    /// the result is `[len, heads · head_dim]`.
    fn attend(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, position: usize) -> Tensor<2> {
        let (len, seen) = (q.dims()[1], k.dims()[1]);
        let (dtype, device) = (q.dtype(), q.device());
        let group = self.heads / self.kv_heads;
        // The heads that share keys and values become rows of one product.
        let q = q.reshape([self.kv_heads, group * len, self.head_dim]);
        let scores = q.matmul(k.swap_dims(1, 2)) * (self.head_dim as f64).powf(-0.5);
        let mut scores = scores.cast(DType::F32).reshape([self.kv_heads, group, len, seen]);
        if len > 1 {
            let hidden: Vec<bool> =
                (0..len).flat_map(|query| (0..seen).map(move |key| key > position + query)).collect();
            let mask = Tensor::<4, Bool>::from_data(TensorData::new(hidden, [1, 1, len, seen]), &device);
            scores = scores.mask_fill(mask.expand([self.kv_heads, group, len, seen]), f32::NEG_INFINITY);
        }
        let weights = activation::softmax(scores, 3).cast(dtype).reshape([self.kv_heads, group * len, seen]);
        let attended = weights.matmul(v).reshape([self.heads, len, self.head_dim]);
        attended.swap_dims(0, 1).reshape([len, self.heads * self.head_dim])
    }
}
