//! Attention of the tokens of a pass, by the kernel that serves each.

use super::kv::{AttentionShape, KvFormat};
use super::pass::Pass;
use super::{prompt, split};
use crate::matmul::MatmulPrecision;
use crate::{Buffer, Gpu};

/// The largest head that tensor cores take: its sums are in registers.
const MAX_PROMPT_DIM: usize = 128;

/// Whether a device can have prompts in its passes, whose attention is by tensor cores: see
/// [`PassWords::new`](super::PassWords::new). Caches are in 16 or 8 bits, and heads have a multiple of 16 numbers up to
/// 128.
pub fn has_prompts(gpu: &Gpu, shape: &AttentionShape) -> bool {
    gpu.has_tensor_cores() && takes(shape)
}

/// Whether there are kernels for prompts of this shape.
pub(super) fn takes(shape: &AttentionShape) -> bool {
    let is_dim = shape.head_dim <= MAX_PROMPT_DIM && shape.head_dim.is_multiple_of(16);
    is_dim && shape.format != KvFormat::F32
}

/// `softmax(q · kᵀ / √head_dim) · v` over the cache of a layer: `q` as
/// [`norm_rotate_write`](super::norm_rotate_write) returns it → `[n, heads · head_dim]`. Each token sees the positions
/// of its row up to its own, or those of them that its mask shows.
///
/// Up to eight queries share a read of the keys, by the number of consecutive tokens in the pass; that changes no
/// result. What is not finite in the pass may spoil other tokens of its row.
///
/// Tokens of [prompts](super::PassWords::new) are multiplied by tensor cores, with [`MatmulPrecision::High`].
///
/// # Panics
/// If `q` has another size, the cache has fewer blocks than the pass uses, or the pass has prompts and the device
/// [takes none](has_prompts).
pub fn attention(gpu: &Gpu, q: &Buffer, shape: &AttentionShape, cache: &Buffer, pass: &Pass) -> Buffer {
    attention_with(gpu, q, shape, cache, pass, MatmulPrecision::default())
}

/// [`attention`] with a choice of precision for the tokens of prompts, which their bits depend on: queries and the
/// weights of the softmax become one or two numbers of 16 bits. Keys and values are as the cache has them.
///
/// # Panics
/// As [`attention`].
pub fn attention_with(
    gpu: &Gpu,
    q: &Buffer,
    shape: &AttentionShape,
    cache: &Buffer,
    pass: &Pass,
    precision: MatmulPrecision,
) -> Buffer {
    let has_kernels = pass.prompts.tiles.is_empty() || has_prompts(gpu, shape);
    assert!(has_kernels, "attention of prompts is for tensor cores, not for {shape:?} on {}", gpu.name());
    attend(gpu, q, cache, pass, prompt::Config::new(*shape, precision))
}

/// [`attention_with`] by the kernel of this configuration for prompts.
pub(super) fn attend(gpu: &Gpu, q: &Buffer, cache: &Buffer, pass: &Pass, config: prompt::Config) -> Buffer {
    let shape = &config.shape;
    shape.check();
    let &AttentionShape { heads, head_dim, .. } = shape;
    let padded = shape.padded_dim();
    assert_eq!(q.len(), pass.n * heads * padded, "queries are [{}, {heads}, {padded}]", pass.n);
    pass.check_cache(shape, cache);
    let out = gpu.empty(pass.n * heads * head_dim);
    split::launch(gpu, q, shape, cache, pass, &out);
    prompt::launch(gpu, q, cache, pass, config, &out);
    out
}
