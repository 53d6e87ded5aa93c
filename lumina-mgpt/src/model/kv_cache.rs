//! Keys and values of a sequence, in blocks that are taken as it grows.

use burn::tensor::{DType, Device, Tensor};
use lumina_nn::Compute;
use lumina_nn::ops::KvStorage;
#[cfg(feature = "cube")]
use lumina_nn::ops::{GpuKv, GpuKvPool};
#[cfg(feature = "cube")]
use std::sync::Arc;

use super::config::Architecture;
use crate::{Error, Result};

/// From this growth on, all of it is asked of the system at once before it is taken in blocks.
const MIN_TRIAL_BYTES: u64 = 1 << 30;

/// Whether the system would hand out so many bytes at once.
fn can_allocate(bytes: u64) -> bool {
    Vec::<u8>::new().try_reserve_exact(usize::try_from(bytes).unwrap_or(usize::MAX)).is_ok()
}

/// The keys and values of one sequence in all layers, of a capacity fixed when it is made.
///
/// On the processor memory is taken in blocks of [`KV_BLOCK_TOKENS`](lumina_nn::ops::KV_BLOCK_TOKENS) tokens as the
/// sequence grows, and on a GPU in blocks of a pool that all sequences of the model share. In Burn's tensors it is
/// allocated with the first token, for the whole capacity, and written in place. Not `Clone`: a second handle on a
/// tensor would turn every write into a copy.
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    /// Blocks on a GPU, which serve all layers; there are no `layers` then.
    #[cfg(feature = "cube")]
    pub(crate) gpu: Option<GpuKv>,
    len: usize,
    capacity: usize,
}

/// Keys and values of one layer, `[kv_heads, capacity, head_dim]` each.
pub(crate) enum LayerCache {
    /// In host memory.
    Host(KvStorage),
    /// On a device.
    Device(Box<DeviceKv>),
}

impl KvCache {
    /// An empty cache for up to `capacity` tokens, or for as many of them as can be addressed.
    pub fn new(architecture: &Architecture, capacity: usize, compute: &Compute) -> Self {
        let &Architecture { kv_heads, head_dim, .. } = architecture;
        let (device, dtype) = compute.options();
        let layer = |_| match compute.kv_storage(kv_heads, capacity, head_dim) {
            Some(own) => LayerCache::Host(own),
            None => {
                let is_host = compute.has_host_memory();
                LayerCache::Device(Box::new(DeviceKv::new([kv_heads, capacity, head_dim], device, dtype, is_host)))
            }
        };
        let layers: Vec<LayerCache> = (0..architecture.layers).map(layer).collect();
        let capacity = layers.iter().map(LayerCache::capacity).fold(capacity, usize::min);
        Self {
            layers,
            #[cfg(feature = "cube")]
            gpu: None,
            len: 0,
            capacity,
        }
    }

    /// [`KvCache::new`] with blocks of a pool.
    #[cfg(feature = "cube")]
    pub(crate) fn on_gpu(pool: &Arc<GpuKvPool>, capacity: usize) -> Self {
        let capacity = capacity.min(pool.max_tokens());
        Self { layers: Vec::new(), gpu: Some(GpuKv::new(pool)), len: 0, capacity }
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

    /// Bytes that the cache takes now.
    pub fn bytes(&self) -> u64 {
        #[cfg(feature = "cube")]
        if let Some(gpu) = &self.gpu {
            return gpu.bytes();
        }
        let bytes = |layer: &LayerCache| match layer {
            LayerCache::Host(own) => own.bytes() as u64,
            LayerCache::Device(own) => own.bytes(),
        };
        self.layers.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Bytes that the cache takes with `tokens` tokens, in whole blocks. Beyond what can be counted it is [`u64::MAX`].
    pub fn bytes_of(&self, tokens: usize) -> u64 {
        #[cfg(feature = "cube")]
        if let Some(gpu) = &self.gpu {
            return gpu.bytes_of(tokens);
        }
        let bytes = |layer: &LayerCache| match layer {
            LayerCache::Host(own) => own.bytes_of(tokens) as u64,
            LayerCache::Device(own) => own.bytes_of(tokens),
        };
        self.layers.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Takes the memory for `tokens` tokens in all, so that a pass cannot fail for want of it. A pass does so itself.
    ///
    /// # Errors
    /// [`Error::CacheFull`] where they do not fit; [`Error::KvMemory`] where the system has no memory for them. The
    /// tokens written before are still there.
    pub fn reserve(&mut self, tokens: usize) -> Result<()> {
        if tokens > self.capacity {
            return Err(Error::CacheFull { needed: tokens, capacity: self.capacity });
        }
        #[cfg(feature = "cube")]
        if let Some(gpu) = &mut self.gpu {
            let needed = gpu.bytes_of(tokens);
            return gpu.reserve(tokens).map_err(|error| match error {
                lumina_nn::Error::Gpu(error) if error.is_out_of_memory() => Error::KvMemory { needed, tokens },
                other => other.into(),
            });
        }
        // Linux hands out more memory than there is, block by block, and then ends the process. All at once it refuses.
        let growth = self.bytes_of(tokens).saturating_sub(self.bytes());
        let is_possible = growth < MIN_TRIAL_BYTES || !self.is_host() || can_allocate(growth);
        let reserved = is_possible
            && self.layers.iter_mut().all(|layer| match layer {
                LayerCache::Host(own) => own.reserve(tokens).is_ok(),
                LayerCache::Device(own) => own.can_allocate(),
            });
        if !reserved {
            let error = Error::KvMemory { needed: self.bytes_of(tokens), tokens };
            self.truncate(self.len);
            return Err(error);
        }
        Ok(())
    }

    /// Forgets the tokens from `len` on, and frees memory that is not needed any more: blocks on the processor; on a
    /// device all of it, if no token is left.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        #[cfg(feature = "cube")]
        if let Some(gpu) = &mut self.gpu {
            gpu.truncate(self.len);
        }
        for layer in &mut self.layers {
            match layer {
                LayerCache::Host(own) => own.truncate(self.len),
                LayerCache::Device(own) if self.len == 0 => own.tensors = None,
                LayerCache::Device(_) => {}
            }
        }
    }

    /// Keeps the tokens before `start` and, of those from there on, the ones at `start + places[0]`, `start + places[1]`
    /// …, which become the next ones: the branch of a [tree](super::Row::parents) that came out right. Places ascend.
    ///
    /// # Panics
    /// If there is no such token, or tokens would move that are not in host memory.
    pub fn keep(&mut self, start: usize, places: &[usize]) {
        let is_moved = places.iter().enumerate().any(|(to, from)| to != *from);
        assert!(places.last().is_none_or(|last| start + last < self.len), "a token that is kept is there");
        assert!(!is_moved || self.is_host(), "only caches in host memory have trees");
        for layer in &mut self.layers {
            match layer {
                LayerCache::Host(own) if is_moved => own.keep(start, places),
                _ => {}
            }
        }
        self.truncate(start + places.len());
    }

    /// Whether keys and values are in host memory.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.layers.first(), Some(LayerCache::Host(_)))
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl LayerCache {
    /// Tokens that fit.
    fn capacity(&self) -> usize {
        match self {
            Self::Host(own) => own.capacity(),
            Self::Device(own) => own.shape[1],
        }
    }
}

/// Keys and values of one layer on a device, in memory that is allocated with the first of them.
pub(crate) struct DeviceKv {
    /// `[kv_heads, capacity, head_dim]`.
    shape: [usize; 3],
    device: Device,
    dtype: DType,
    /// Whether the device's memory is that of the process.
    is_host: bool,
    tensors: Option<[Tensor<3>; 2]>,
}

impl DeviceKv {
    /// Of a smaller capacity where so many tokens cannot be addressed.
    fn new([kv_heads, capacity, head_dim]: [usize; 3], device: &Device, dtype: DType, is_host: bool) -> Self {
        let token_bytes = [2, kv_heads, head_dim].into_iter().try_fold(dtype.size(), usize::checked_mul);
        let capacity = token_bytes.map_or(0, |bytes| capacity.min(isize::MAX as usize / bytes.max(1)));
        Self { shape: [kv_heads, capacity, head_dim], device: device.clone(), dtype, is_host, tensors: None }
    }

    /// Whether the memory is there, or can be taken. Burn ends the process where the processor's memory is exhausted,
    /// so that is tried before. Other devices report it themselves.
    fn can_allocate(&self) -> bool {
        self.tensors.is_some() || !self.is_host || can_allocate(self.bytes_of(1))
    }

    /// Bytes that are allocated.
    fn bytes(&self) -> u64 {
        if self.tensors.is_some() { self.bytes_of(1) } else { 0 }
    }

    /// Bytes with any number of tokens but none: those of the capacity.
    fn bytes_of(&self, tokens: usize) -> u64 {
        let all = 2 * self.shape.iter().product::<usize>() * self.dtype.size();
        if tokens == 0 { 0 } else { all as u64 }
    }

    /// Writes keys and values `[kv_heads, n, head_dim]` from position `start` on, and returns views of all up to there.
    pub(crate) fn append(&mut self, start: usize, keys: Tensor<3>, values: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let &mut Self { shape, ref device, dtype, ref mut tensors, .. } = self;
        let zeros = || Tensor::zeros(shape, (device, dtype));
        let [own_keys, own_values] = tensors.get_or_insert_with(|| [zeros(), zeros()]);
        let [kv_heads, n, head_dim] = keys.dims();
        let place = [0..kv_heads, start..start + n, 0..head_dim];
        let write = |cache: &mut Tensor<3>, new| {
            cache.inplace(|cache| cache.slice_assign(place.clone(), new));
            cache.clone().narrow(1, 0, start + n)
        };
        (write(own_keys, keys), write(own_values, values))
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
