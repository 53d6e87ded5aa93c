//! Causal attention, of whole rows and to what is kept of them.

use lumina_kernels::attention::cached::{self, AttentionPath, CachedRow};
use lumina_kernels::attention::causal::{self, AttentionInputs, AttentionShape};
use smallvec::SmallVec;

use super::hidden::{Activation, Hidden};
use super::kv::LayerKv;
use crate::Compute;

/// Attention of rows to themselves, each from its beginning on: `q` `[n, heads · head_dim]`, `k` and `v` `[n, kv_heads
/// · head_dim]`, with the rows' tokens one after the other, as many as `lens` says. The result has the shape of `q`.
///
/// `softmax(q · kᵀ / √head_dim) · v`. A token attends to itself and to what comes before it in its row; `heads /
/// kv_heads` consecutive heads share keys and values.
pub fn causal_attention(q: Hidden, k: Hidden, v: Hidden, head_dim: usize, lens: &[usize]) -> Hidden {
    let ([_, width], [_, kv_width]) = (q.dims(), k.dims());
    let shape = AttentionShape { heads: width / head_dim, kv_heads: kv_width / head_dim, head_dim };
    match (q.0, k.0, v.0) {
        (Activation::Host(q), Activation::Host(k), Activation::Host(v)) => {
            let mut y = q.sibling(width);
            let inputs = AttentionInputs { q: &q.values, k: &k.values, v: &v.values };
            causal::forward_into(inputs, lens, &shape, &mut y.values);
            y.into()
        }
        (q, k, v) => in_tensors!(q, k, v => super::burn::causal_attention([q, k, v].map(Hidden), head_dim, lens)),
    }
}

/// A row of [`cached_attention`].
pub struct KvRow<'a> {
    /// The keys and values of the layer, to which those of the row are appended.
    pub kv: &'a mut LayerKv,
    /// Tokens in it before those of the row.
    pub position: usize,
    /// Tokens of the row.
    pub len: usize,
    /// How attention is computed, in host memory.
    pub path: AttentionPath,
    /// The parent of each token but the first, where drafts branch: in host memory alone.
    pub parents: &'a [u32],
}

/// Rows that are counted without allocating.
const MAX_INLINE_ROWS: usize = 8;

/// Attention of rows to their KV caches and to themselves: `q` `[n, heads · head_dim]`, `k` and `v` `[n, kv_heads ·
/// head_dim]`, with the rows' tokens one after the other. Keys and values are appended to the caches. The result has
/// the shape of `q`; in host memory that of a row does not depend on the others.
///
/// # Panics
/// If a row does not fit its cache, or is of another shape.
pub fn cached_attention(
    q: Hidden,
    k: Hidden,
    v: Hidden,
    head_dim: usize,
    rows: &mut [KvRow<'_>],
    compute: &Compute,
) -> Hidden {
    if rows.iter().all(|row| row.kv.is_host()) {
        let y = in_host_memory([q, k, v], rows);
        if compute.is_host() { y } else { in_tensors!(y => y.in_tensors(compute)) }
    } else {
        in_tensors!(q, k, v, head_dim => super::burn::cached_attention([q, k, v], head_dim, rows, compute))
    }
}

/// [`cached_attention`] where keys and values are in host memory.
fn in_host_memory(qkv: [Hidden; 3], rows: &mut [KvRow<'_>]) -> Hidden {
    let mut own: SmallVec<[CachedRow<'_>; MAX_INLINE_ROWS]> = SmallVec::new();
    for KvRow { kv, position, len, path, parents } in rows {
        match kv {
            LayerKv::Host(cache) => {
                own.push(CachedRow { cache, position: *position, len: *len, path: *path, parents });
            }
            #[cfg(feature = "burn")]
            LayerKv::Tensors(_) => {}
        }
    }
    let width = qkv[0].dims()[1];
    let [q, k, v] = qkv.map(|x| x.into_host().expect("caches in host memory go with CPU devices"));
    let mut y = q.sibling(width);
    let inputs = AttentionInputs { q: &q.values, k: &k.values, v: &v.values };
    cached::forward_into(inputs, &mut own, &mut y.values);
    y.into()
}
