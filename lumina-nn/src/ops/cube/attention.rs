//! Keys and values on a GPU, and attention to them.

use std::sync::{Arc, Mutex, PoisonError};

use lumina_checkpoint::Dtype;
use lumina_cube::attention::{
    AttentionShape, BLOCK_TOKENS, KvFormat, NormParams, attention, has_prompts, norm_rotate_write,
};
use lumina_cube::{Buffer, Gpu};
use lumina_kernels::attention::cached::{AttentionPath, MIN_GEMM_QUERIES};

use super::rows::GpuRows;
use super::step::GpuPass;
use crate::ops::hidden::Hidden;
use crate::ops::values::Values;
use crate::{Compute, Result};

/// The keys and values of all sequences of a model on a GPU: a buffer for each layer, in blocks of 64 tokens that
/// sequences take as they grow. So that one launch reads those of all rows of a pass.
pub struct GpuKvPool {
    gpu: Gpu,
    shape: AttentionShape,
    state: Mutex<PoolState>,
    n_layers: usize,
}

struct PoolState {
    layers: Vec<Buffer>,
    /// Blocks of each buffer.
    blocks: usize,
    free: Vec<u32>,
}

/// Blocks of a pool when it is first used.
const FIRST_BLOCKS: usize = 16;

impl GpuKvPool {
    /// An empty pool, where the device has kernels of our own.
    pub fn new(compute: &Compute, n_layers: usize, [heads, kv_heads, head_dim]: [usize; 3]) -> Option<Arc<Self>> {
        let gpu = compute.gpu()?.clone();
        let format = match compute.kv_dtype() {
            Dtype::F16 => KvFormat::F16,
            Dtype::BF16 => KvFormat::BF16,
            Dtype::Q8_0 => KvFormat::Q8_0,
            _ => KvFormat::F32,
        };
        let shape = AttentionShape { heads, kv_heads, head_dim, format };
        let state = PoolState { layers: Vec::new(), blocks: 0, free: Vec::new() };
        Some(Arc::new(Self { gpu, shape, state: Mutex::new(state), n_layers }))
    }

    pub(super) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// A turn on the device: see [`Gpu::turn`]. A pass has one from before its inputs are made to their result.
    pub fn turn(&self) -> impl Drop + '_ {
        self.gpu.turn()
    }

    /// Which buffers the layers are in: it changes when they do.
    pub(super) fn generation(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).blocks
    }

    /// Bytes of a block in all layers.
    fn block_bytes(&self) -> u64 {
        (self.shape.block_words() * 4 * self.n_layers) as u64
    }

    /// The most tokens that a sequence can have: what one buffer holds, by indices of 32 bits.
    fn max_tokens(&self) -> usize {
        let words = (self.gpu.max_buffer_bytes() / 4).min(u64::from(u32::MAX)) as usize;
        words / self.shape.block_words().max(1) * BLOCK_TOKENS
    }

    /// Takes blocks; the pool grows where it has too few.
    fn take(&self, n: usize) -> Result<Vec<u32>> {
        // Before the state, as a pass has its turn first. What grows is not launched into another's recording, and no
        // pass has buffers that others have left.
        let _turn = self.turn();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.free.len() < n {
            self.grow(&mut state, n)?;
        }
        let rest = state.free.len() - n;
        Ok(state.free.split_off(rest))
    }

    fn grow(&self, state: &mut PoolState, n: usize) -> Result<()> {
        let least = state.blocks + n - state.free.len();
        // Doubled, so that a sequence that grows is copied a few times at most. Where that is too much, what is needed.
        let mut error = None;
        let most = self.max_tokens() / BLOCK_TOKENS;
        for blocks in [least.max(2 * state.blocks).max(FIRST_BLOCKS).min(most.max(least)), least] {
            match self.widen(&mut state.layers, blocks) {
                Ok(()) => {
                    state.free.extend((state.blocks..blocks).rev().map(|block| block as u32));
                    state.blocks = blocks;
                    return Ok(());
                }
                Err(failed) => error = Some(failed),
            }
        }
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Makes each layer's buffer one of so many blocks, with the content of the one before. One layer after the other,
    /// so that at most one is there twice; where that fails halfway, some are larger than others, which does no harm.
    fn widen(&self, layers: &mut Vec<Buffer>, blocks: usize) -> lumina_cube::Result<()> {
        for layer in 0..self.n_layers {
            let wider = self.gpu.empty(blocks * self.shape.block_words());
            self.gpu.check(&wider)?;
            match layers.get_mut(layer) {
                Some(before) => {
                    self.gpu.copy(before, &wider);
                    *before = wider;
                }
                None => layers.push(wider),
            }
        }
        Ok(())
    }

    fn layer(&self, layer: usize) -> Option<Buffer> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).layers.get(layer).cloned()
    }
}

impl std::fmt::Debug for GpuKvPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuKvPool").field("shape", &self.shape).field("layers", &self.n_layers).finish_non_exhaustive()
    }
}

/// The blocks of one sequence, which go back to the pool when it is dropped.
pub struct GpuKv {
    pool: Arc<GpuKvPool>,
    blocks: Vec<u32>,
}

impl GpuKv {
    /// Without blocks.
    pub fn new(pool: &Arc<GpuKvPool>) -> Self {
        Self { pool: pool.clone(), blocks: Vec::new() }
    }

    pub(super) fn pool(&self) -> &Arc<GpuKvPool> {
        &self.pool
    }

    /// Whether its blocks are of this pool.
    pub fn is_of(&self, pool: &Arc<GpuKvPool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// The most tokens that its blocks can hold.
    pub fn max_tokens(&self) -> usize {
        self.pool.max_tokens()
    }

    /// Bytes that its blocks take in all layers.
    pub fn bytes(&self) -> u64 {
        self.blocks.len() as u64 * self.pool.block_bytes()
    }

    /// Bytes with so many tokens, in whole blocks.
    pub fn bytes_of(&self, tokens: usize) -> u64 {
        (tokens.div_ceil(BLOCK_TOKENS) as u64).saturating_mul(self.pool.block_bytes())
    }

    /// Takes the blocks for so many tokens in all.
    ///
    /// # Errors
    /// `Error::Gpu` where the device has no memory for them.
    pub fn reserve(&mut self, tokens: usize) -> Result<()> {
        let more = tokens.div_ceil(BLOCK_TOKENS).saturating_sub(self.blocks.len());
        if more > 0 {
            self.blocks.extend(self.pool.take(more)?);
        }
        Ok(())
    }

    /// Gives the blocks after those of so many tokens back.
    pub fn truncate(&mut self, tokens: usize) {
        let kept = tokens.div_ceil(BLOCK_TOKENS).min(self.blocks.len());
        let mut state = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free.extend(self.blocks.drain(kept..));
    }
}

impl Drop for GpuKv {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

/// A sequence's part of a pass.
pub struct GpuRow<'a> {
    /// Its blocks, with room for the tokens.
    pub kv: &'a GpuKv,
    /// Tokens before these.
    pub position: usize,
    /// Tokens of this pass.
    pub len: usize,
    /// How attention is computed: by tensor cores, where the device and the cache allow it, for
    /// [`AttentionPath::ByLength`] from [`MIN_GEMM_QUERIES`] tokens on, which rounds differently than single tokens.
    pub path: AttentionPath,
}

impl GpuRow<'_> {
    /// Whether tensor cores compute its attention. It depends on the row alone.
    pub(super) fn is_prompt(&self) -> bool {
        let pool = &self.kv.pool;
        self.path == AttentionPath::ByLength && self.len >= MIN_GEMM_QUERIES && has_prompts(&pool.gpu, &pool.shape)
    }
}

/// QK-norm, rotary positions, the tokens' keys and values into the cache, and attention to it: `q` `[n, heads ·
/// head_dim]`, `k` and `v` `[n, kv_heads · head_dim]` → the shape of `q`.
///
/// [`head_norm_rotated`](super::super::head_norm_rotated) and [`cached_attention`](super::super::cached_attention) in
/// one. The result of a row does not depend on the others, nor, with [`AttentionPath::AsDecoding`], on how many of its
/// tokens share the pass.
///
/// # Panics
/// If activations or parameters are elsewhere than on the GPU, which [`Compute`] makes sure of.
pub fn norm_attention(
    qkv: [&Hidden; 3],
    [q_norm, k_norm]: [(&Values<2>, &Values<2>); 2],
    (cos, sin): (&Hidden, &Hidden),
    epsilon: f64,
    pass: &GpuPass,
    layer: usize,
) -> Hidden {
    let buffer = |values: &'_ Values<2>| values.buffer().expect("parameters are where activations are").clone();
    let [q_weight, q_bias] = [q_norm.0, q_norm.1].map(buffer);
    let [k_weight, k_bias] = [k_norm.0, k_norm.1].map(buffer);
    let params = NormParams {
        q_weight: &q_weight,
        q_bias: &q_bias,
        k_weight: &k_weight,
        k_bias: &k_bias,
        cos: cos.buffer(),
        sin: sin.buffer(),
        epsilon: epsilon as f32,
    };
    let GpuPass { pool, pass, .. } = pass;
    let (gpu, shape) = (&pool.gpu, &pool.shape);
    let cache = pool.layer(layer).expect("a pass has tokens, for which blocks were taken in each layer");
    let rotated = norm_rotate_write(gpu, qkv.map(Hidden::buffer), &params, shape, &cache, pass);
    let values = attention(gpu, &rotated, shape, &cache, pass);
    GpuRows { gpu: gpu.clone(), values, width: qkv[0].dims()[1] }.into()
}
