//! Keys and values of a sequence, allocated once and written in place.

use burn::tensor::Tensor;
use lumina_nn::Compute;
use lumina_nn::ops::KvStorage;

use crate::config::Architecture;

/// The keys and values of one sequence in all layers, of a capacity fixed when it is made.
///
/// Not `Clone`: a second handle on a tensor would turn every write into a copy.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    len: usize,
    capacity: usize,
}

/// Keys and values of one layer, `[kv_heads, capacity, head_dim]` each.
#[derive(Debug)]
pub(crate) enum LayerCache {
    /// In the program's own memory.
    Host(KvStorage),
    /// Keys and values on a device.
    Tensors(Box<[Tensor<3>; 2]>),
}

impl KvCache {
    /// An empty cache for `capacity` tokens. On the processor it takes memory as it fills.
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

    /// Bytes that the cache takes.
    pub fn bytes(&self) -> u64 {
        let values = |tensor: &Tensor<3>| (tensor.dims().iter().product::<usize>() * tensor.dtype().size()) as u64;
        let of_layer = |layer: &LayerCache| match layer {
            LayerCache::Host(own) => own.bytes() as u64,
            LayerCache::Tensors(both) => both.iter().map(values).sum(),
        };
        self.layers.iter().map(of_layer).sum()
    }

    /// Forgets the tokens from `len` on; what they held is overwritten by the next ones.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
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
