//! A sequence's part of a pass.

use std::ops::Range;

use lumina_nn::ops::{AttentionPath, LayerKv};
use smallvec::SmallVec;

use super::kv_cache::KvCache;

/// Rows of a pass that are counted without allocating: requests with guidance, or a small batch.
pub(crate) const MAX_INLINE_ROWS: usize = 8;

/// Tokens of a row that are counted without allocating: more than most windows have.
const MAX_INLINE_TOKENS: usize = 160;

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
    /// The parent of each token but the first, as an index in `tokens` that is below its own, where drafts branch: a
    /// token's position is that of its parent and one more, and it attends to its ancestors alone, besides what came
    /// before the row. Empty where each follows the one before it.
    ///
    /// Only with keys and values in host memory ([`Transformer::takes_trees`](super::Transformer::takes_trees)), where
    /// a token gives what its branch gives one by one, to the bit. [`KvCache::keep`] then keeps a branch.
    pub parents: &'a [u32],
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
            parents: &[],
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

    /// The position of each token.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> {
        let first = self.position();
        let mut branching: SmallVec<[usize; MAX_INLINE_TOKENS]> = SmallVec::new();
        if !self.parents.is_empty() {
            branching.push(first);
            for &parent in self.parents {
                branching.push(branching[parent as usize] + 1);
            }
        }
        (0..self.len()).map(move |token| branching.get(token).copied().unwrap_or(first + token))
    }

    /// Whether keys and values of a layer are in host memory.
    pub(crate) fn has_host_cache(&self, layer: usize) -> bool {
        self.cache.as_ref().and_then(|cache| cache.layer(layer)).is_some_and(LayerKv::is_host)
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
            .field("parents", &self.parents)
            .finish()
    }
}
