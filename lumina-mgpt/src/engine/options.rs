//! What an engine is given: bounds, and with a request what is no value.

use std::sync::Arc;

use lumina_sampling::Sampler;

use super::request::Cancel;

/// A request in an [`Engine`](super::Engine), by the order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// Bounds of an [`Engine`](super::Engine).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The most bytes of keys and values of all sequences that run; without it, as many as they need.
    ///
    /// On the processor a sequence takes them in blocks of 128 tokens as it grows. Where they run out, the sequence
    /// that was admitted last gives its own up and is computed again later, with the same tokens. On other devices a
    /// sequence takes all at once, with its first pass, and what is computed again may round differently.
    pub kv_budget_bytes: Option<u64>,
    /// The most sequences that run at once; at least 1.
    pub max_sequences: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { kv_budget_bytes: None, max_sequences: 64 }
    }
}

impl EngineOptions {
    /// Sets [`EngineOptions::kv_budget_bytes`].
    #[must_use]
    pub fn kv_budget_bytes(self, bytes: u64) -> Self {
        Self { kv_budget_bytes: Some(bytes), ..self }
    }

    /// Sets [`EngineOptions::max_sequences`].
    #[must_use]
    pub fn max_sequences(self, sequences: usize) -> Self {
        Self { max_sequences: sequences.max(1), ..self }
    }
}

/// Changes the sampler that a request's options ask for.
pub type AdaptSampler = Arc<dyn Fn(Sampler) -> Sampler + Send + Sync>;

/// What is given with a request that is no value: see [`Engine::submit_with`](super::Engine::submit_with).
#[derive(Clone, Default)]
pub struct Submission {
    /// Ends the request from any thread.
    pub cancel: Cancel,
    /// Changes the sampler: the place for a [`Step`](lumina_sampling::Step) of one's own.
    pub sampler: Option<AdaptSampler>,
}
