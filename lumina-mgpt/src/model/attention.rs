//! Attention: projections, QK-norm, rotary positions, and each row's own keys and values.

use burn::module::Module;
use burn::tensor::Tensor;
use lumina_nn::ops::{CachedRow, Hidden, Linear, attention, cached_attention, causal_attention};
#[cfg(feature = "cube")]
use lumina_nn::ops::{GpuPass, norm_attention};
use lumina_nn::{Compute, Loader};
use smallvec::SmallVec;

use super::config::Architecture;
use super::kv_cache::LayerCache;
#[cfg(feature = "cube")]
use super::norm::EPSILON;
use super::norm::HeadNorm;
use super::rope::Rotation;
use super::row::{MAX_INLINE_ROWS, Row};

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

/// The rows of a pass in one layer; their tokens lie one after the other.
pub(crate) enum PassRows<'p, 'a> {
    /// Whole sequences without caches: the number of tokens of each.
    Whole(&'p [usize]),
    /// Rows that all have a cache.
    Cached { rows: &'p mut [Row<'a>], layer: usize, compute: &'p Compute },
    /// Rows that all have a cache on a GPU; `layer` counts those there.
    #[cfg(feature = "cube")]
    Gpu { pass: &'p GpuPass, layer: usize },
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
    pub(crate) fn forward(&self, x: &Hidden, rotation: &Rotation, rows: PassRows<'_, '_>) -> Hidden {
        let [q, k, v] = Linear::forward_all([&self.q_proj, &self.k_proj, &self.v_proj], x);
        let normed = || (self.q_norm.forward(&q, rotation), self.k_norm.forward(&k, rotation));
        let attended = match rows {
            PassRows::Whole(lens) => {
                let (q, k) = normed();
                causal_attention(q, k, v, self.head_dim, lens)
            }
            PassRows::Cached { rows, layer, compute } => {
                let (q, k) = normed();
                if rows.iter().all(|row| row.has_host_cache(layer)) {
                    cached_attention(q, k, v, &mut host_rows(rows, layer))
                } else {
                    self.on_device([q, k, v], rows, layer, compute)
                }
            }
            #[cfg(feature = "cube")]
            PassRows::Gpu { pass, layer } => {
                let norms = [self.q_norm.parameters(), self.k_norm.parameters()];
                norm_attention([&q, &k, &v], norms, rotation.factors(), EPSILON, pass, layer)
            }
        };
        self.o_proj.forward(&attended)
    }

    /// Attention to keys and values on a device.
    fn on_device(&self, qkv: [Hidden; 3], rows: &mut [Row<'_>], layer: usize, compute: &Compute) -> Hidden {
        let split = |x: Hidden| {
            let [n, width] = x.dims();
            x.into_tensor(compute.device()).reshape([n, width / self.head_dim, self.head_dim])
        };
        let [q, k, v] = qkv.map(split);
        let mut start = 0;
        let rows = rows.iter_mut().map(|row| {
            let (position, len) = (row.position(), row.len());
            let own = |x: &Tensor<3>| x.clone().narrow(0, start, len).swap_dims(0, 1);
            let (q, k, v) = (own(&q), own(&k), own(&v));
            start += len;
            let (k, v) = match row.cache.as_deref_mut().and_then(|cache| cache.layer_mut(layer)) {
                Some(LayerCache::Device(own)) => own.append(position, k, v),
                _ => (k, v),
            };
            attention(q.unsqueeze(), k.unsqueeze(), v.unsqueeze(), position)
        });
        let mut rows: Vec<Tensor<2>> = rows.collect();
        if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 0) }.into()
    }
}

/// What attention needs of the rows that have keys and values in host memory.
fn host_rows<'r>(rows: &'r mut [Row<'_>], layer: usize) -> SmallVec<[CachedRow<'r>; MAX_INLINE_ROWS]> {
    let rows = rows.iter_mut().filter_map(|row| {
        let (position, len, path, parents) = (row.position(), row.len(), row.attention, row.parents);
        match row.cache.as_deref_mut()?.layer_mut(layer)? {
            LayerCache::Host(cache) => Some(CachedRow { cache, position, len, path, parents }),
            LayerCache::Device(_) => None,
        }
    });
    rows.collect()
}
