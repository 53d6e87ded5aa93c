//! Consecutive layers that compute in one place.

use std::ops::Range;
#[cfg(feature = "cube")]
use std::sync::Arc;

use lumina_nn::Compute;
#[cfg(feature = "cube")]
use lumina_nn::ops::{GpuKvPool, Recordings};

use super::config::Architecture;
use super::kv_cache::{KvCache, KvPart};

/// Layers of a network that compute in one place, with their keys and values. The first stage has the embedding, the
/// last one norm and head. Most networks have one stage.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    /// Where they compute.
    pub(super) compute: Compute,
    /// Their indices.
    pub(super) layers: Range<usize>,
    /// The keys and values of all sequences, where they are on a GPU.
    #[cfg(feature = "cube")]
    pub(super) kv_pool: Option<Arc<GpuKvPool>>,
    /// Short passes on a GPU, by their range of logits.
    #[cfg(feature = "cube")]
    pub(super) recordings: Arc<Recordings<Range<usize>>>,
}

impl Stage {
    /// These layers of a network of this shape on one device.
    pub(super) fn new(architecture: &Architecture, layers: Range<usize>, compute: &Compute) -> Self {
        #[cfg(feature = "cube")]
        let &Architecture { heads, kv_heads, head_dim, .. } = architecture;
        #[cfg(not(feature = "cube"))]
        let _ = architecture;
        Self {
            #[cfg(feature = "cube")]
            kv_pool: GpuKvPool::new(compute, layers.len(), [heads, kv_heads, head_dim]),
            #[cfg(feature = "cube")]
            recordings: Arc::default(),
            compute: compute.clone(),
            layers,
        }
    }

    /// Whether the layers compute on a GPU.
    pub(super) fn is_on_gpu(&self) -> bool {
        #[cfg(feature = "cube")]
        return self.kv_pool.is_some();
        #[cfg(not(feature = "cube"))]
        false
    }

    /// No keys and values of these layers, yet: of at most `capacity` tokens.
    pub(super) fn new_kv(&self, architecture: &Architecture, capacity: usize) -> KvPart {
        #[cfg(feature = "cube")]
        if let Some(pool) = &self.kv_pool {
            return KvPart::on_gpu(pool);
        }
        KvPart::new(architecture, self.layers.clone(), capacity, &self.compute)
    }

    /// Whether a cache has keys and values of these layers where they compute.
    pub(super) fn is_served_by(&self, cache: &KvCache, architecture: &Architecture) -> bool {
        #[cfg(feature = "cube")]
        if let Some(pool) = &self.kv_pool {
            return cache.on_gpu(pool).is_some();
        }
        cache.has_layers(&self.layers, [architecture.kv_heads, architecture.head_dim])
    }
}
