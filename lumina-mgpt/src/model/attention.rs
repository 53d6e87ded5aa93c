//! Attention: projections, QK-norm, rotary positions, and each row's own keys and values.

#[cfg(feature = "cube")]
use lumina_nn::ops::{GpuPass, norm_attention};
use lumina_nn::ops::{Hidden, KvRow, Linear, cached_attention, causal_attention};
use lumina_nn::{Compute, Loader};
use smallvec::SmallVec;

use super::config::Architecture;
#[cfg(feature = "cube")]
use super::norm::EPSILON;
use super::norm::HeadNorm;
use super::rope::Rotation;
use super::row::{MAX_INLINE_ROWS, Row};

/// Grouped-query attention. Mirrors `modeling_chameleon.py::ChameleonAttention`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
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
                cached_attention(q, k, v, self.head_dim, &mut cached_rows(rows, layer), compute)
            }
            #[cfg(feature = "cube")]
            PassRows::Gpu { pass, layer } => {
                let norms = [self.q_norm.parameters(), self.k_norm.parameters()];
                norm_attention([&q, &k, &v], norms, rotation.factors(), EPSILON, pass, layer)
            }
        };
        self.o_proj.forward(&attended)
    }
}

/// What attention needs of the rows in a layer.
fn cached_rows<'r>(rows: &'r mut [Row<'_>], layer: usize) -> SmallVec<[KvRow<'r>; MAX_INLINE_ROWS]> {
    let rows = rows.iter_mut().filter_map(|row| {
        let (position, len, path, parents) = (row.position(), row.len(), row.attention, row.parents);
        Some(KvRow { kv: row.cache.as_deref_mut()?.layer_mut(layer)?, position, len, path, parents })
    });
    rows.collect()
}
