//! Keys and values of a sequence, allocated once and written in place.

use burn::tensor::{DType, Tensor, TensorData};
use lumina_core::Compute;

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
pub(crate) struct LayerCache {
    keys: Tensor<3>,
    values: Tensor<3>,
}

impl KvCache {
    /// An empty cache for `capacity` tokens. On the processor it takes memory as it fills.
    pub fn new(architecture: &Architecture, capacity: usize, compute: &Compute) -> Self {
        let shape = [architecture.kv_heads, capacity, architecture.head_dim];
        let zeros = || match compute.options() {
            // Memory that the system hands out zeroed is not touched, so what is never written takes no room.
            options @ (_, DType::F32) if compute.on_host() => {
                Tensor::from_data(TensorData::new(vec![0.0f32; shape.iter().product()], shape), options)
            }
            options => Tensor::zeros(shape, options),
        };
        let layers = (0..architecture.layers).map(|_| LayerCache { keys: zeros(), values: zeros() }).collect();
        Self { layers, len: 0, capacity }
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
        self.layers.iter().map(|layer| values(&layer.keys) + values(&layer.values)).sum()
    }

    /// Forgets the tokens from `len` on; what they held is overwritten by the next ones.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl LayerCache {
    /// Writes keys and values `[kv_heads, n, head_dim]` from position `start` on, and gives views of all up to there.
    pub(crate) fn append(&mut self, start: usize, keys: Tensor<3>, values: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let [kv_heads, n, head_dim] = keys.dims();
        let place = [0..kv_heads, start..start + n, 0..head_dim];
        self.keys.inplace(|cache| cache.slice_assign(place.clone(), keys));
        self.values.inplace(|cache| cache.slice_assign(place, values));
        let seen = |cache: &Tensor<3>| cache.clone().narrow(1, 0, start + n);
        (seen(&self.keys), seen(&self.values))
    }
}
