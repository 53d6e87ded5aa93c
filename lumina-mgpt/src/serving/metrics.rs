//! What an engine has done so far, for those who watch it.

use std::time::Duration;

use crate::engine::Stats;
use crate::stop_reason::StopReason;

/// What an engine on a thread of its own does now, and has done since it began. Made by
/// [`Handle::metrics`](super::Handle::metrics).
///
/// Times and counts of requests are added up when a request ends.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Requests that wait for their first pass, or for memory.
    pub waiting: usize,
    /// Requests that take part in passes.
    pub running: usize,
    /// Requests that are left out of passes, as their readers are behind.
    pub held: usize,
    /// Bytes of keys and values.
    pub kv_cache_bytes: u64,
    /// Requests taken on.
    pub submitted: u64,
    /// Requests refused because too many waited.
    pub refused: u64,
    /// Requests that have ended with an answer, cut off or not.
    pub completed: u64,
    /// Requests that were cancelled.
    pub cancelled: u64,
    /// Requests that have failed.
    pub failed: u64,
    /// Passes over the weights.
    pub passes: u64,
    /// Time of these passes with their draws, and of handing events out.
    pub pass_time: Duration,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens that the grammar forced.
    pub forced_tokens: u64,
    /// Drafts that passes tried.
    pub drafts: u64,
    /// Drafts that came out right.
    pub accepted_drafts: u64,
    /// Time from submission to the first token, of all requests together.
    pub prefill: Duration,
    /// Time of the passes after that, of all requests together.
    pub decode: Duration,
    /// Time of drawing tokens.
    pub sampling: Duration,
    /// Time of decoding images.
    pub image_decode: Duration,
}

impl Metrics {
    /// Adds a request that has ended.
    pub(super) fn add(&mut self, stats: &Stats) {
        match stats.stop {
            StopReason::Cancelled => self.cancelled += 1,
            _ => self.completed += 1,
        }
        self.prompt_tokens += stats.prompt_tokens as u64;
        self.generated_tokens += stats.generated_tokens as u64;
        self.forced_tokens += stats.forced_tokens as u64;
        self.drafts += stats.drafts as u64;
        self.accepted_drafts += stats.accepted_drafts as u64;
        self.prefill += stats.prefill;
        self.decode += stats.decode;
        self.sampling += stats.sampling;
        self.image_decode += stats.image_decode;
    }
}
