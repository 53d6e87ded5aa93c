//! Attention: projections, QK-norm, rotary positions, and each row's own keys and values.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lumina_nn::Loader;
use lumina_nn::ops::{CachedRow, Hidden, Linear, attention, cached_attention, causal_attention};
use smallvec::SmallVec;

use crate::config::Architecture;
use crate::kv_cache::{LayerCache, append};
use crate::norm::HeadNorm;
use crate::transformer::{PLACES, Pass};

/// Grouped-query attention. Mirrors `modeling_chameleon.py::ChameleonAttention`.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: HeadNorm,
    k_norm: HeadNorm,
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
            head_dim,
        }
    }

    /// `x` `[n, hidden]` holds the tokens of all rows, one row after the other; a row attends to itself alone.
    pub(crate) fn forward(&self, x: &Hidden, pass: &Pass, spans: &mut [Span<'_>]) -> Hidden {
        let [q, k, v] = Linear::forward_all([&self.q_proj, &self.k_proj, &self.v_proj], x);
        let q = self.q_norm.forward(&q, &pass.rotation);
        let k = self.k_norm.forward(&k, &pass.rotation);
        let attended = if spans.iter().all(|span| span.cache.is_none() && span.position == 0) {
            let lens: SmallVec<[usize; PLACES]> = spans.iter().map(|span| span.len).collect();
            causal_attention(q, k, v, self.head_dim, &lens)
        } else if let Some(mut rows) = in_memory(spans) {
            cached_attention(q, k, v, &mut rows)
        } else {
            self.on_device([q, k, v], spans, &pass.device)
        };
        self.o_proj.forward(&attended)
    }

    /// Attention to keys and values on a device.
    fn on_device(&self, qkv: [Hidden; 3], spans: &mut [Span<'_>], device: &Device) -> Hidden {
        let split = |x: Hidden| {
            let [n, width] = x.dims();
            x.into_tensor(device).reshape([n, width / self.head_dim, self.head_dim])
        };
        let [q, k, v] = qkv.map(split);
        let rows = spans.iter_mut().map(|span| {
            let own = |x: &Tensor<3>| x.clone().narrow(0, span.start, span.len).swap_dims(0, 1);
            let (q, k, v) = (own(&q), own(&k), own(&v));
            let (k, v) = match span.cache.as_deref_mut() {
                Some(LayerCache::Tensors(own)) => append(own, span.position, k, v),
                _ => (k, v),
            };
            attention(q.unsqueeze(), k.unsqueeze(), v.unsqueeze(), span.position)
        });
        let mut rows: Vec<Tensor<2>> = rows.collect();
        if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 0) }.into()
    }
}

/// The rows of a pass, where all of them have keys and values in the program's own memory.
fn in_memory<'a>(spans: &'a mut [Span<'_>]) -> Option<SmallVec<[CachedRow<'a>; PLACES]>> {
    let rows = spans.iter_mut().map(|span| match span.cache.as_deref_mut() {
        Some(LayerCache::Host(cache)) => Some(CachedRow { cache, position: span.position, len: span.len, path: Default::default() }),
        _ => None,
    });
    rows.collect()
}
