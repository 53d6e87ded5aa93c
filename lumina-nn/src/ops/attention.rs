//! Causal attention.

use burn::tensor::Tensor;
use lumina_kernels::attention::cached::{self, CachedRow};
use lumina_kernels::attention::causal::{self, AttentionInputs, AttentionShape};

use super::hidden::{Activation, Hidden};

/// Attention of rows to themselves, each from its beginning on: `q` `[n, heads · head_dim]`, `k` and `v` `[n, kv_heads
/// · head_dim]`, with the rows' tokens one after the other, as many as `lens` says. The result has the shape of `q`.
///
/// `softmax(q · kᵀ / √head_dim) · v`. A token attends to itself and to what comes before it in its row; `heads /
/// kv_heads` consecutive heads share keys and values.
pub fn causal_attention(q: Hidden, k: Hidden, v: Hidden, head_dim: usize, lens: &[usize]) -> Hidden {
    let ([n, width], [_, kv_width]) = (q.dims(), k.dims());
    let shape = AttentionShape { heads: width / head_dim, kv_heads: kv_width / head_dim, head_dim };
    match (q.0, k.0, v.0) {
        (Activation::Host(q), Activation::Host(k), Activation::Host(v)) => {
            let mut y = q.sibling(width);
            let inputs = AttentionInputs { q: &q.values, k: &k.values, v: &v.values };
            causal::forward_into(inputs, lens, &shape, &mut y.values);
            y.into()
        }
        (q, k, v) => {
            let all = [q, k, v].map(Hidden);
            let device = all.iter().find_map(Hidden::device).expect("one is a tensor, or the arm above matches");
            let split = |x: Tensor<2>, heads| x.reshape([n, heads, head_dim]);
            let [q, k, v] = all.map(|x| x.into_tensor(&device));
            let heads = (shape.heads, shape.kv_heads);
            super::burn::causal_attention([split(q, heads.0), split(k, heads.1), split(v, heads.1)], lens).into()
        }
    }
}

/// Attention of rows to their KV caches and to themselves, in host memory and `f32`: `q` `[n, heads · head_dim]`, `k`
/// and `v` `[n, kv_heads · head_dim]`, with the rows' tokens one after the other. Keys and values are appended to the
/// caches. The result has the shape of `q`; that of a row does not depend on the others.
///
/// # Panics
/// If a row does not fit its cache, or is of another shape.
pub fn cached_attention(q: Hidden, k: Hidden, v: Hidden, rows: &mut [CachedRow<'_>]) -> Hidden {
    let device = q.device();
    let width = q.dims()[1];
    let [q, k, v] = [q, k, v].map(|x| x.into_host().expect("caches in host memory go with CPU devices"));
    let mut y = q.sibling(width);
    let inputs = AttentionInputs { q: &q.values, k: &k.values, v: &v.values };
    cached::forward_into(inputs, rows, &mut y.values);
    match device {
        Some(device) => Hidden::from(y).into_tensor(&device).into(),
        None => y.into(),
    }
}
