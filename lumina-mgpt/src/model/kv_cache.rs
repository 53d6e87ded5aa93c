//! Keys and values of a sequence, in blocks that are taken as it grows.

use burn::tensor::Tensor;
use lumina_nn::Compute;
use lumina_nn::ops::KvStorage;

use super::config::Architecture;

/// The keys and values of one sequence in all layers, of a capacity fixed when it is made.
///
/// On the processor memory is taken in blocks of [`KV_BLOCK_TOKENS`](lumina_nn::ops::KV_BLOCK_TOKENS) tokens as the sequence grows. On a device it is allocated at once,
/// and written in place. Not `Clone`: a second handle on a tensor would turn every write into a copy.
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
    /// Keys and values on a device.
    Tensors(Box<[Tensor<3>; 2]>),
}

impl KvCache {
    /// An empty cache for up to `capacity` tokens.
    pub fn new(architecture: &Architecture, capacity: usize, compute: &Compute) -> Self {
        let &Architecture { kv_heads, head_dim, .. } = architecture;
        let zeros = || Tensor::zeros([kv_heads, capacity, head_dim], compute.options());
        let layer = |_| match compute.kv_storage(kv_heads, capacity, head_dim) {
            Some(own) => LayerCache::Host(own),
            None => LayerCache::Tensors(Box::new([zeros(), zeros()])),
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
            LayerCache::Tensors(both) => tensor_bytes(both),
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Bytes that the cache takes with `tokens` tokens, in whole blocks.
    pub fn bytes_of(&self, tokens: usize) -> u64 {
        let bytes = |layer: &LayerCache| match layer {
            LayerCache::Host(own) => own.bytes_of(tokens) as u64,
            LayerCache::Tensors(both) => tensor_bytes(both),
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Forgets the tokens from `len` on, and returns the blocks that are not needed any more.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for layer in &mut self.layers {
            if let LayerCache::Host(own) = layer {
                own.truncate(self.len);
            }
        }
    }

    /// Whether the cache grows in blocks, and can be filled again with the same keys and values.
    pub(crate) fn is_paged(&self) -> bool {
        matches!(self.layers.first(), Some(LayerCache::Host(_)))
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// Bytes of keys and values on a device.
fn tensor_bytes(both: &[Tensor<3>; 2]) -> u64 {
    both.iter().map(|tensor| (tensor.dims().iter().product::<usize>() * tensor.dtype().size()) as u64).sum()
}

/// Writes keys and values `[kv_heads, n, head_dim]` from position `start` on to those on a device, and gives views of all up
/// to there.
pub(crate) fn append(
    [own_keys, own_values]: &mut [Tensor<3>; 2],
    start: usize,
    keys: Tensor<3>,
    values: Tensor<3>,
) -> (Tensor<3>, Tensor<3>) {
    let [kv_heads, n, head_dim] = keys.dims();
    let place = [0..kv_heads, start..start + n, 0..head_dim];
    let write = |cache: &mut Tensor<3>, new| {
        cache.inplace(|cache| cache.slice_assign(place.clone(), new));
        cache.clone().narrow(1, 0, start + n)
    };
    (write(own_keys, keys), write(own_values, values))
}
