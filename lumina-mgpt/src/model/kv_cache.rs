//! Keys and values of a sequence, in blocks that are taken as it grows.

use burn::tensor::{DType, Device, Tensor};
use lumina_nn::Compute;
use lumina_nn::ops::KvStorage;

use super::config::Architecture;

/// The keys and values of one sequence in all layers, of a capacity fixed when it is made.
///
/// On the processor memory is taken in blocks of [`KV_BLOCK_TOKENS`](lumina_nn::ops::KV_BLOCK_TOKENS) tokens as the
/// sequence grows. On a device it is allocated with the first token, for the whole capacity, and written in place. Not
/// `Clone`: a second handle on a tensor would turn every write into a copy.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    len: usize,
    capacity: usize,
}

/// Keys and values of one layer, `[kv_heads, capacity, head_dim]` each.
#[derive(Debug)]
pub(crate) enum LayerCache {
    /// In host memory.
    Host(KvStorage),
    /// On a device.
    Device(Box<DeviceKv>),
}

impl KvCache {
    /// An empty cache for up to `capacity` tokens.
    pub fn new(architecture: &Architecture, capacity: usize, compute: &Compute) -> Self {
        let &Architecture { kv_heads, head_dim, .. } = architecture;
        let (device, dtype) = compute.options();
        let layer = |_| match compute.kv_storage(kv_heads, capacity, head_dim) {
            Some(own) => LayerCache::Host(own),
            None => LayerCache::Device(Box::new(DeviceKv::new([kv_heads, capacity, head_dim], device, dtype))),
        };
        Self { layers: (0..architecture.layers).map(layer).collect(), len: 0, capacity }
    }

    /// Tokens written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token has been written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that the cache takes now.
    pub fn bytes(&self) -> u64 {
        let bytes = |layer: &LayerCache| match layer {
            LayerCache::Host(own) => own.bytes() as u64,
            LayerCache::Device(own) => own.bytes(),
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Bytes that the cache takes with `tokens` tokens, in whole blocks.
    pub fn bytes_of(&self, tokens: usize) -> u64 {
        let bytes = |layer: &LayerCache| match layer {
            LayerCache::Host(own) => own.bytes_of(tokens) as u64,
            LayerCache::Device(own) => own.bytes_of(tokens),
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Forgets the tokens from `len` on, and frees memory that is not needed any more: blocks on the processor; on a
    /// device all of it, if no token is left.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for layer in &mut self.layers {
            match layer {
                LayerCache::Host(own) => own.truncate(self.len),
                LayerCache::Device(own) if self.len == 0 => own.tensors = None,
                LayerCache::Device(_) => {}
            }
        }
    }

    /// Whether keys and values are in host memory.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.layers.first(), Some(LayerCache::Host(_)))
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// Keys and values of one layer on a device, in memory that is allocated with the first of them.
#[derive(Debug)]
pub(crate) struct DeviceKv {
    /// `[kv_heads, capacity, head_dim]`.
    shape: [usize; 3],
    device: Device,
    dtype: DType,
    tensors: Option<[Tensor<3>; 2]>,
}

impl DeviceKv {
    fn new(shape: [usize; 3], device: &Device, dtype: DType) -> Self {
        Self { shape, device: device.clone(), dtype, tensors: None }
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
        let &mut Self { shape, ref device, dtype, ref mut tensors } = self;
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
