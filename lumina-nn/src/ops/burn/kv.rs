//! Keys and values of one layer in tensors.

use burn::tensor::{DType, Device, Tensor};

use crate::Compute;
use crate::ops::kv::can_allocate;

/// Keys and values of one layer on a device, in memory that is allocated with the first of them, for the whole
/// capacity, and written in place. Not `Clone`: a second handle on a tensor would turn every write into a copy.
pub struct TensorKv {
    /// `[kv_heads, capacity, head_dim]`.
    shape: [usize; 3],
    device: Device,
    dtype: DType,
    /// Whether the device's memory is that of the process.
    is_host: bool,
    tensors: Option<[Tensor<3>; 2]>,
}

impl TensorKv {
    /// Of a smaller capacity where so many tokens cannot be addressed.
    pub(in crate::ops) fn new([kv_heads, capacity, head_dim]: [usize; 3], compute: &Compute) -> Self {
        let (device, dtype) = compute.options();
        let token_bytes = [2, kv_heads, head_dim].into_iter().try_fold(dtype.size(), usize::checked_mul);
        let capacity = token_bytes.map_or(0, |bytes| capacity.min(isize::MAX as usize / bytes.max(1)));
        let is_host = compute.has_host_memory();
        Self { shape: [kv_heads, capacity, head_dim], device, dtype, is_host, tensors: None }
    }

    pub(in crate::ops) fn capacity(&self) -> usize {
        self.shape[1]
    }

    /// Whether the memory is there, or can be taken. Burn ends the process where the processor's memory is exhausted,
    /// so that is tried before. Other devices report it themselves.
    pub(in crate::ops) fn can_allocate(&self) -> bool {
        self.tensors.is_some() || !self.is_host || can_allocate(self.bytes_of(1))
    }

    /// Bytes that are allocated.
    pub(in crate::ops) fn bytes(&self) -> u64 {
        if self.tensors.is_some() { self.bytes_of(1) } else { 0 }
    }

    /// Bytes with any number of tokens but none: those of the capacity.
    pub(in crate::ops) fn bytes_of(&self, tokens: usize) -> u64 {
        let all = 2 * self.shape.iter().product::<usize>() * self.dtype.size();
        if tokens == 0 { 0 } else { all as u64 }
    }

    /// Frees the memory if no token is left.
    pub(in crate::ops) fn truncate(&mut self, len: usize) {
        if len == 0 {
            self.tensors = None;
        }
    }

    /// Writes keys and values `[kv_heads, n, head_dim]` from position `start` on, and returns views of all up to there.
    pub(in crate::ops) fn append(
        &mut self,
        start: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
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
