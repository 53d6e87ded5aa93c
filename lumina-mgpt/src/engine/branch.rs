//! One of the two streams of tokens that the model sees of a request, with its KV cache.

use lumina_nn::ops::{AttentionPath, MIN_GEMM_QUERIES};
use lumina_sampling::speculation::Draft;

use crate::model::{KvCache, Transformer};

/// Tokens of a prompt that one pass takes. It bounds the table of attention scores, and a prompt is cut at multiples of
/// it, alone and in a batch alike.
pub(super) const PREFILL_CHUNK: usize = 256;

/// A stream of tokens that the model sees, its keys and values, and the tokens that they lack.
pub(super) struct Branch {
    pub(super) cache: KvCache,
    /// Tokens that no pass has run yet, and drafts after them.
    pub(super) pending: Vec<u32>,
    /// How many of them are drafts.
    pub(super) n_drafts: usize,
    /// Where the drafts branch, the parent of each of `pending` but the first.
    pub(super) parents: Vec<u32>,
    /// Tokens run and pending.
    pub(super) len: usize,
    /// Index in the sequence of the first token.
    start: usize,
    /// Passes whose attention was a matrix product, by position and length: a repeated prefill is cut as the first one
    /// was.
    chunks: Vec<(usize, usize)>,
    /// Tokens that were run before the cache was given up, and are being run again.
    replay_until: usize,
}

/// What a branch runs in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) len: usize,
    pub(super) attention: AttentionPath,
}

impl Chunk {
    /// Whether it is no part of a prompt.
    pub(super) fn is_decode(&self) -> bool {
        self.attention == AttentionPath::AsDecoding || self.len < MIN_GEMM_QUERIES
    }
}

impl Branch {
    pub(super) fn new(transformer: &Transformer, tokens: &[u32], start: usize, capacity: usize) -> Self {
        Self {
            cache: transformer.new_cache(capacity),
            pending: tokens.to_vec(),
            n_drafts: 0,
            parents: Vec::new(),
            len: tokens.len(),
            start,
            chunks: Vec::new(),
            replay_until: 0,
        }
    }

    pub(super) fn push(&mut self, token: u32) {
        self.pending.push(token);
        self.len += 1;
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.cache.len() < self.replay_until
    }

    /// The tokens of the next pass. With `is_last` it runs all that are pending. Where the other branch has more to run
    /// than a pass takes, one token is kept back, so that both give their logits in the same pass.
    pub(super) fn chunk(&self, is_last: bool) -> Chunk {
        let position = self.cache.len();
        if !self.is_replaying() {
            let len = match self.pending.len() {
                pending if pending > PREFILL_CHUNK => PREFILL_CHUNK,
                pending if is_last => pending,
                pending => pending.saturating_sub(1),
            };
            // Tokens of a window give what they give one by one.
            let attention = if self.n_drafts > 0 { AttentionPath::AsDecoding } else { AttentionPath::ByLength };
            return Chunk { len, attention };
        }
        // The same rounding as the first time: matrix products for the same chunks, and as one token at a time between
        // them.
        match self.chunks.iter().find(|&&(start, _)| start >= position) {
            Some(&(start, len)) if start == position => Chunk { len, attention: AttentionPath::ByLength },
            next => {
                let end = next.map_or(self.replay_until, |&(start, _)| start.min(self.replay_until));
                Chunk { len: (end - position).min(PREFILL_CHUNK), attention: AttentionPath::AsDecoding }
            }
        }
    }

    /// Bytes that the cache lacks for a chunk.
    pub(super) fn growth(&self, chunk: Chunk) -> u64 {
        self.cache.bytes_of(self.cache.len() + chunk.len).saturating_sub(self.cache.bytes())
    }

    /// Notes that a pass has run a chunk.
    pub(super) fn advance(&mut self, chunk: Chunk) {
        let position = self.cache.len() - chunk.len;
        let is_gemm = chunk.len >= MIN_GEMM_QUERIES && chunk.attention == AttentionPath::ByLength;
        if position >= self.replay_until && is_gemm {
            self.chunks.push((position, chunk.len));
        }
        self.pending.drain(..chunk.len);
    }

    /// Whether drafts can follow the tokens that are pending: those have no attention by matrix products.
    pub(super) fn can_draft(&self) -> bool {
        self.n_drafts == 0 && !self.is_replaying() && (1..MIN_GEMM_QUERIES).contains(&self.pending.len())
    }

    /// Drafts that fit the cache.
    pub(super) fn room(&self) -> usize {
        self.cache.capacity().saturating_sub(self.len).min(PREFILL_CHUNK - MIN_GEMM_QUERIES)
    }

    /// Appends drafts to what the next pass runs.
    pub(super) fn push_drafts(&mut self, drafts: &[Draft]) {
        let certain = self.pending.len();
        self.pending.extend(drafts.iter().map(|draft| draft.token));
        self.n_drafts = drafts.len();
        self.parents.clear();
        if drafts.iter().enumerate().any(|(index, draft)| draft.parent != index.checked_sub(1)) {
            let parent = |draft: &Draft| draft.parent.map_or(certain - 1, |parent| certain + parent) as u32;
            self.parents.extend((0..certain as u32 - 1).chain(drafts.iter().map(parent)));
        }
    }

    /// Takes drafts back that no pass has run.
    pub(super) fn drop_drafts(&mut self) {
        self.pending.truncate(self.pending.len() - self.n_drafts);
        self.n_drafts = 0;
        self.parents.clear();
    }

    /// Keeps the keys and values of the drafts of the last pass that are on this path, which have been appended since,
    /// and those of no other.
    pub(super) fn keep_drafts(&mut self, path: &[usize]) {
        if self.n_drafts == 0 {
            return;
        }
        self.cache.keep(self.cache.len() - self.n_drafts, path);
        self.pending.drain(..path.len().min(self.pending.len()));
        self.n_drafts = 0;
        self.parents.clear();
    }

    /// Gives up the keys and values; `tokens` are those of the whole sequence.
    pub(super) fn release(&mut self, tokens: &[u32]) {
        self.replay_until = self.replay_until.max(self.cache.len());
        self.cache.truncate(0);
        self.n_drafts = 0;
        self.parents.clear();
        self.pending.clear();
        self.pending.extend_from_slice(&tokens[self.start..self.start + self.len]);
    }
}
