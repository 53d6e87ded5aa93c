//! Keys and values of a sequence, in blocks that are taken as it grows.

use std::ops::Range;
#[cfg(feature = "cube")]
use std::sync::Arc;

use lumina_nn::Compute;
#[cfg(feature = "cube")]
use lumina_nn::ops::{GpuKv, GpuKvPool};
use lumina_nn::ops::{LayerKv, can_allocate};

use super::config::Architecture;
use crate::{Error, Result};

/// From this growth on, all of it is asked of the system at once before it is taken in blocks.
const MIN_TRIAL_BYTES: u64 = 1 << 30;

/// The keys and values of one sequence in all layers, of a capacity fixed when it is made.
///
/// On the processor memory is taken in blocks of [`KV_BLOCK_TOKENS`](lumina_nn::ops::KV_BLOCK_TOKENS) tokens as the
/// sequence grows, and on a GPU in blocks of a pool that all sequences of the model share. In Burn's tensors it is
/// allocated with the first token, for the whole capacity, and written in place. Where the layers of a model are on
/// several devices, so are their keys and values.
pub struct KvCache {
    /// Those of each stage of the network.
    parts: Vec<KvPart>,
    len: usize,
    capacity: usize,
}

/// The keys and values of consecutive layers, in one place.
pub(crate) enum KvPart {
    /// Of each layer from `first` on, with their `[kv_heads, head_dim]`.
    Layers { first: usize, layers: Vec<LayerKv>, heads: [usize; 2] },
    /// Blocks on a GPU, which serve all layers.
    #[cfg(feature = "cube")]
    Gpu(GpuKv),
}

impl KvPart {
    /// Of these layers, for up to `capacity` tokens, or for as many of them as can be addressed.
    pub(crate) fn new(architecture: &Architecture, layers: Range<usize>, capacity: usize, compute: &Compute) -> Self {
        let &Architecture { kv_heads, head_dim, .. } = architecture;
        let layer = |_| LayerKv::new(compute, kv_heads, capacity, head_dim);
        Self::Layers { first: layers.start, layers: layers.map(layer).collect(), heads: [kv_heads, head_dim] }
    }

    /// With blocks of a pool.
    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(pool: &Arc<GpuKvPool>) -> Self {
        Self::Gpu(GpuKv::new(pool))
    }

    /// Tokens that can be addressed.
    fn capacity(&self) -> usize {
        match self {
            Self::Layers { layers, .. } => layers.iter().map(LayerKv::capacity).min().unwrap_or(usize::MAX),
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.max_tokens(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Layers { layers, .. } => layers.iter().map(LayerKv::bytes).fold(0, u64::saturating_add),
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.bytes(),
        }
    }

    fn bytes_of(&self, tokens: usize) -> u64 {
        match self {
            Self::Layers { layers, .. } => {
                layers.iter().map(|layer| layer.bytes_of(tokens)).fold(0, u64::saturating_add)
            }
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.bytes_of(tokens),
        }
    }

    /// Takes the memory for `tokens` tokens in all: whether there is so much.
    fn reserve(&mut self, tokens: usize) -> Result<bool> {
        // Linux hands out more memory than there is, block by block, and then ends the process. All at once it refuses.
        let growth = self.bytes_of(tokens).saturating_sub(self.bytes());
        match self {
            Self::Layers { layers, .. } => {
                let is_host = layers.first().is_some_and(LayerKv::is_host);
                let is_possible = growth < MIN_TRIAL_BYTES || !is_host || can_allocate(growth);
                Ok(is_possible && layers.iter_mut().all(|layer| layer.reserve(tokens)))
            }
            #[cfg(feature = "cube")]
            Self::Gpu(own) => match own.reserve(tokens) {
                Ok(()) => Ok(true),
                Err(lumina_nn::Error::Gpu(error)) if error.is_out_of_memory() => Ok(false),
                Err(other) => Err(other.into()),
            },
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Self::Layers { layers, .. } => layers.iter_mut().for_each(|layer| layer.truncate(len)),
            #[cfg(feature = "cube")]
            Self::Gpu(own) => own.truncate(len),
        }
    }
}

impl KvCache {
    /// An empty cache for up to `capacity` tokens, or for as many of them as can be addressed, of a network that
    /// computes in one place and not on a GPU. [`Transformer::new_cache`](crate::Transformer::new_cache) makes one for
    /// any network.
    pub fn new(architecture: &Architecture, capacity: usize, compute: &Compute) -> Self {
        Self::of(vec![KvPart::new(architecture, 0..architecture.layers, capacity, compute)], capacity)
    }

    /// An empty cache of these parts.
    pub(crate) fn of(parts: Vec<KvPart>, capacity: usize) -> Self {
        let capacity = parts.iter().map(KvPart::capacity).fold(capacity, usize::min);
        Self { parts, len: 0, capacity }
    }

    /// Tokens written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token has been written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit: less than was asked for where so many cannot be addressed.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that the cache takes now, on all devices.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(KvPart::bytes).fold(0, u64::saturating_add)
    }

    /// Bytes that the cache takes with `tokens` tokens, in whole blocks. Beyond what can be counted it is [`u64::MAX`].
    pub fn bytes_of(&self, tokens: usize) -> u64 {
        self.parts.iter().map(|part| part.bytes_of(tokens)).fold(0, u64::saturating_add)
    }

    /// Takes the memory for `tokens` tokens in all, so that a pass cannot fail for want of it. A pass does so itself.
    ///
    /// # Errors
    /// [`Error::CacheFull`] where they do not fit; [`Error::KvMemory`] where the system, or one of the devices, has no
    /// memory for them. The tokens written before are still there, and no more is taken than for them.
    pub fn reserve(&mut self, tokens: usize) -> Result<()> {
        if tokens > self.capacity {
            return Err(Error::CacheFull { needed: tokens, capacity: self.capacity });
        }
        let reserved: Result<bool> = self.parts.iter_mut().try_fold(true, |all, part| Ok(all && part.reserve(tokens)?));
        if !matches!(reserved, Ok(true)) {
            self.truncate(self.len);
        }
        if reserved? { Ok(()) } else { Err(Error::KvMemory { needed: self.bytes_of(tokens), tokens }) }
    }

    /// Forgets the tokens from `len` on, and frees memory that is not needed any more: blocks on the processor and on
    /// GPUs; in Burn's tensors all of it, if no token is left.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.parts.iter_mut().for_each(|part| part.truncate(self.len));
    }

    /// Keeps the tokens before `start` and, of those from there on, the ones at `start + places[0]`, `start +
    /// places[1]` …, which become the next ones: the branch of a [tree](super::Row::parents) that came out right.
    /// Places ascend.
    ///
    /// # Panics
    /// If there is no such token, or tokens would move that are not in host memory.
    pub fn keep(&mut self, start: usize, places: &[usize]) {
        assert!(places.last().is_none_or(|last| start + last < self.len), "a token that is kept is there");
        if places.iter().enumerate().any(|(to, from)| to != *from) {
            for part in &mut self.parts {
                let moved = match part {
                    KvPart::Layers { layers, .. } => layers.iter_mut().all(|layer| layer.keep(start, places)),
                    #[cfg(feature = "cube")]
                    KvPart::Gpu(_) => false,
                };
                assert!(moved, "only caches in host memory have trees");
            }
        }
        self.truncate(start + places.len());
    }

    /// Whether it has the keys and values of these layers elsewhere than on a GPU, with so many `[kv_heads, head_dim]`.
    pub(crate) fn has_layers(&self, wanted: &Range<usize>, shape: [usize; 2]) -> bool {
        self.parts.iter().any(|part| match part {
            KvPart::Layers { first, layers, heads } => {
                *heads == shape && *first <= wanted.start && wanted.end <= first + layers.len()
            }
            #[cfg(feature = "cube")]
            KvPart::Gpu(_) => false,
        })
    }

    /// The keys and values of a layer, where they are not on a GPU.
    pub(crate) fn layer(&self, layer: usize) -> Option<&LayerKv> {
        self.parts.iter().find_map(|part| match part {
            KvPart::Layers { first, layers, .. } => layers.get(layer.checked_sub(*first)?),
            #[cfg(feature = "cube")]
            KvPart::Gpu(_) => None,
        })
    }

    /// [`KvCache::layer`], to be changed.
    pub(crate) fn layer_mut(&mut self, layer: usize) -> Option<&mut LayerKv> {
        self.parts.iter_mut().find_map(|part| match part {
            KvPart::Layers { first, layers, .. } => layers.get_mut(layer.checked_sub(*first)?),
            #[cfg(feature = "cube")]
            KvPart::Gpu(_) => None,
        })
    }

    /// The blocks of a pool.
    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(&self, pool: &Arc<GpuKvPool>) -> Option<&GpuKv> {
        self.parts.iter().find_map(|part| match part {
            KvPart::Gpu(own) => Some(own).filter(|own| own.is_of(pool)),
            KvPart::Layers { .. } => None,
        })
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvCache")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

    use super::*;
    use crate::model::ModelConfig;

    fn architecture(hidden_size: usize) -> Architecture {
        let config =
            ModelConfig { hidden_size, num_attention_heads: 1, num_hidden_layers: 2, ..ModelConfig::default() };
        config.resolve("config.json".as_ref()).unwrap()
    }

    /// Parts of the first layer, on each kind of device that there is.
    fn firsts() -> Vec<KvPart> {
        let on = |compute: Compute| {
            compute.check().unwrap();
            #[cfg(feature = "cube")]
            if let Some(pool) = GpuKvPool::new(&compute, 1, [1, 1, 8]) {
                return KvPart::on_gpu(&pool);
            }
            KvPart::new(&architecture(8), 0..1, 1 << 20, &compute)
        };
        Compute::available().into_iter().map(on).collect()
    }

    #[test]
    fn no_part_keeps_what_another_has_no_memory_for() {
        let most = 1 << 24;
        for first in firsts() {
            let large = KvPart::new(&architecture(most), 1..2, 1 << 40, &Compute::cpu());
            let mut cache = KvCache::of(vec![first, large], 1 << 20);
            cache.parts[0].reserve(70).unwrap();
            let (taken, some) = (cache.parts[0].bytes(), cache.parts[0].bytes_of(70));
            assert!(taken == some && some > 0);
            let tokens = cache.capacity();
            let error = cache.reserve(tokens).unwrap_err().to_string();
            assert!(error.contains("no memory") && error.contains(&cache.bytes_of(tokens).to_string()), "{error}");
            assert_eq!((cache.len(), cache.bytes()), (0, 0));
            // One layer after the other, each once.
            assert!(cache.layer(1).is_some() && cache.layer(2).is_none());
        }
    }

    #[test]
    fn parts_count_together() {
        let part = |layers: Range<usize>| KvPart::new(&architecture(8), layers, 300, &Compute::cpu());
        let (mut one, mut two) = (KvCache::of(vec![part(0..2)], 300), KvCache::of(vec![part(0..1), part(1..2)], 300));
        assert_eq!((one.capacity(), two.capacity()), (300, 300));
        for tokens in [0, 1, 129, 300] {
            [&mut one, &mut two].into_iter().for_each(|cache| cache.reserve(tokens).unwrap());
            assert_eq!((one.bytes(), one.bytes_of(tokens)), (two.bytes(), two.bytes_of(tokens)));
        }
        assert!(two.reserve(301).is_err());
        two.truncate(0);
        assert_eq!(two.bytes(), 0);
    }
}
