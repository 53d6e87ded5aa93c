//! Keys and values of one layer of a sequence.

use lumina_kernels::Format;
use lumina_kernels::attention::kv_storage::KvStorage;

use crate::Compute;

/// Keys and values of one layer of a sequence, `[kv_heads, capacity, head_dim]` each. On a GPU those of all layers are
/// in the blocks of a pool instead.
pub enum LayerKv {
    /// In host memory, in blocks that are taken as the sequence grows.
    Host(KvStorage),
    /// In Burn's tensors.
    #[cfg(feature = "burn")]
    Tensors(Box<super::burn::TensorKv>),
}

/// Whether the system would hand out so many bytes at once.
pub fn can_allocate(bytes: u64) -> bool {
    Vec::<u8>::new().try_reserve_exact(usize::try_from(bytes).unwrap_or(usize::MAX)).is_ok()
}

impl LayerKv {
    /// None yet, where `compute` keeps them, of up to `capacity` tokens, or as many of them as can be addressed.
    pub fn new(compute: &Compute, kv_heads: usize, capacity: usize, head_dim: usize) -> Self {
        #[cfg(feature = "burn")]
        if !compute.has_host_cache() {
            let shape = [kv_heads, capacity, head_dim];
            return Self::Tensors(Box::new(super::burn::TensorKv::new(shape, compute)));
        }
        let new = |format| KvStorage::new(format, kv_heads, capacity, head_dim);
        // `Compute::check` reports a type that no cache can have.
        let own = compute.kv_dtype().format().and_then(new).or_else(|| new(Format::F32));
        Self::Host(own.expect("`f32` is one of `KvStorage::FORMATS`"))
    }

    /// Whether they are in host memory, where drafts may branch.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host(_))
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        match self {
            Self::Host(own) => own.capacity(),
            #[cfg(feature = "burn")]
            Self::Tensors(own) => own.capacity(),
        }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Host(own) => own.bytes() as u64,
            #[cfg(feature = "burn")]
            Self::Tensors(own) => own.bytes(),
        }
    }

    /// Bytes with so many tokens.
    pub fn bytes_of(&self, tokens: usize) -> u64 {
        match self {
            Self::Host(own) => own.bytes_of(tokens) as u64,
            #[cfg(feature = "burn")]
            Self::Tensors(own) => own.bytes_of(tokens),
        }
    }

    /// Takes the memory for `tokens` tokens in all: whether there is so much.
    pub fn reserve(&mut self, tokens: usize) -> bool {
        match self {
            Self::Host(own) => own.reserve(tokens).is_ok(),
            #[cfg(feature = "burn")]
            Self::Tensors(own) => own.can_allocate(),
        }
    }

    /// Forgets the tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Self::Host(own) => own.truncate(len),
            #[cfg(feature = "burn")]
            Self::Tensors(own) => own.truncate(len),
        }
    }

    /// Keeps, of the tokens from `start` on, those at `start + places[0]`, `start + places[1]` …, which become the next
    /// ones: in host memory. Elsewhere nothing changes, and the result is `false`.
    #[must_use]
    pub fn keep(&mut self, start: usize, places: &[usize]) -> bool {
        match self {
            Self::Host(own) => {
                own.keep(start, places);
                true
            }
            #[cfg(feature = "burn")]
            Self::Tensors(_) => false,
        }
    }
}
