//! A sequence's part of a pass.

use std::ops::Range;

use lumina_nn::ops::AttentionPath;

use super::kv_cache::{KvCache, LayerCache};

/// Rows of a pass that are counted without allocating: requests with guidance, or a small batch.
pub(crate) const MAX_INLINE_ROWS: usize = 8;

/// A sequence's part of a pass: its next tokens, and what came before them.
///
/// The tokens of all rows lie one after the other in `[n, hidden]`. Linear layers compute all of them at once;
/// attention gives each row its own keys and values.
pub struct Row<'a> {
    /// The tokens to run, at least one.
    pub tokens: &'a [u32],
    /// The keys and values before them, to which theirs are appended. Without a cache the tokens begin a sequence that
    /// is not kept.
    pub cache: Option<&'a mut KvCache>,
    /// Tokens of the whole prompt, where these are a chunk of it: dynamic rotary scaling depends on it.
    pub planned_len: usize,
    /// The tokens of the row after which logits are wanted, by their index in `tokens`; by default the last one.
    pub logits: Range<usize>,
    /// How attention is computed. With [`AttentionPath::AsDecoding`] several tokens give what they give one by one, to
    /// the bit.
    pub attention: AttentionPath,
}

impl<'a> Row<'a> {
    /// Tokens that begin a sequence which is not kept.
    pub fn whole(tokens: &'a [u32]) -> Self {
        Self::new(tokens, None, 0)
    }

    /// Tokens that follow those in the cache.
    pub fn cached(tokens: &'a [u32], cache: &'a mut KvCache) -> Self {
        let position = cache.len();
        Self::new(tokens, Some(cache), position)
    }

    fn new(tokens: &'a [u32], cache: Option<&'a mut KvCache>, position: usize) -> Self {
        let len = tokens.len();
        Self {
            tokens,
            cache,
            planned_len: position + len,
            logits: len.saturating_sub(1)..len,
            attention: AttentionPath::ByLength,
        }
    }

    /// Number of tokens to run.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens before these.
    pub(crate) fn position(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len())
    }

    /// Tokens that rotary scaling takes the sequence to have.
    pub(crate) fn planned_len(&self) -> usize {
        self.planned_len.max(self.position() + self.len())
    }

    /// Whether keys and values of a layer are in host memory.
    pub(crate) fn has_host_cache(&self, layer: usize) -> bool {
        self.cache.as_ref().is_some_and(|cache| matches!(cache.layer(layer), Some(LayerCache::Host(_))))
    }
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("tokens", &self.tokens.len())
            .field("cache", &self.cache)
            .field("planned_len", &self.planned_len)
            .field("logits", &self.logits)
            .field("attention", &self.attention)
            .finish()
    }
}
