//! A request in progress: its tokens, its branches with their KV caches, and when it ends.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lumina_core::Vocabulary;
use lumina_core::layout::Phase;
use lumina_sampling::speculation::{DraftKind, Speculation, Speculator};
use lumina_sampling::{LogitsRow, PlainDraw, Sampler, StreamState};

use super::branch::{Branch, Chunk, PREFILL_CHUNK};
use super::event::Stats;
use super::request::{Cancel, GenerateOptions};
use crate::model::Transformer;
use crate::stop_reason::StopReason;
use crate::{Error, Result};

/// A request in progress.
pub(super) struct Sequence {
    sampler: Sampler,
    speculator: Speculator,
    /// The tokens that the last pass made certain.
    verified: Vec<u32>,
    /// Drafts that were asked for, and whether the next token was in an image.
    places: usize,
    drafted_in_image: bool,
    /// What the drafts of the last pass were good for.
    pub(super) outcome: Option<Outcome>,
    state: StreamState,
    /// Prompt and answer.
    tokens: Vec<u32>,
    pub(super) conditional: Branch,
    pub(super) unconditional: Option<Branch>,
    limits: Limits,
    pub(super) stats: Stats,
    stop: Option<StopReason>,
}

/// When a sequence ends at the latest.
struct Limits {
    max_new_tokens: usize,
    context: usize,
    max_images: Option<usize>,
    deadline: Option<Duration>,
    cancel: Cancel,
}

/// What a pass has brought a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// Drafts that were asked for, forced ones aside.
    pub(super) places: usize,
    /// Drafts that it ran, forced ones included.
    pub(super) drafts: usize,
    /// Tokens that it made certain, forced ones aside.
    pub(super) drawn: usize,
    /// Whether they were in an image.
    pub(super) in_image: bool,
}

/// What a sequence is made of.
pub(super) struct SequenceParts<'a> {
    pub(super) transformer: &'a Transformer,
    pub(super) vocabulary: &'a Arc<Vocabulary>,
    pub(super) options: &'a GenerateOptions,
    pub(super) cancel: Cancel,
    pub(super) now: Duration,
}

impl Sequence {
    /// A sequence that continues `prompt`.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::Option`].
    pub(super) fn new(parts: SequenceParts<'_>, prompt: Vec<u32>, sampler: Sampler) -> Result<Self> {
        let SequenceParts { transformer, vocabulary, options, cancel, now } = parts;
        options.check()?;
        let context = transformer.architecture().max_positions();
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(Error::PromptTooLong { tokens: prompt.len(), context });
        }
        let state = StreamState::new(vocabulary.clone(), &prompt);
        let by_rule = sampler.longest_answer(&state).unwrap_or(usize::MAX);
        let longest = by_rule.min(options.max_new_tokens).min(context - prompt.len());
        let mut sequence = Self {
            state,
            conditional: Branch::new(transformer, &prompt, 0, prompt.len() + longest),
            unconditional: None,
            limits: Limits {
                max_new_tokens: options.max_new_tokens,
                context,
                max_images: options.max_images,
                deadline: options.deadline_ms.map(|ms| now.saturating_add(Duration::from_millis(ms))),
                cancel,
            },
            stats: Stats { prompt_tokens: prompt.len(), ..Stats::default() },
            stop: None,
            speculator: Speculator::new(match options.sampling.speculation {
                Speculation::Tree { window, .. } if !transformer.takes_trees() => Speculation::Window(window),
                setting => setting,
            }),
            verified: Vec::new(),
            places: 0,
            drafted_in_image: false,
            outcome: None,
            sampler,
            tokens: prompt,
        };
        sequence.append_forced(transformer);
        Ok(sequence)
    }

    /// The least bytes of keys and values with which the sequence can end: all of them where its length is known, else
    /// those of the prompt and a token.
    pub(super) fn least_bytes(&self) -> u64 {
        let cache = &self.conditional.cache;
        let known = self.sampler.longest_answer(&self.state).is_some();
        let tokens = if known { cache.capacity() } else { (self.tokens.len() + 1).min(cache.capacity()) };
        let guidance = self.unconditional.as_ref().map_or(0, |branch| branch.cache.bytes_of(branch.cache.capacity()));
        cache.bytes_of(tokens).saturating_add(guidance)
    }

    /// The tokens generated so far.
    pub(super) fn answer(&self) -> &[u32] {
        &self.tokens[self.stats.prompt_tokens..]
    }

    /// Whether the sequence has ended.
    pub(super) fn is_done(&self) -> bool {
        self.stop.is_some()
    }

    /// Ends the sequence, for it has failed.
    pub(super) fn fail(&mut self) {
        self.stop = Some(StopReason::Failed);
    }

    /// Ends the sequence as cancelled, unless it has ended. Others may have the same [`Cancel`], which is not used.
    pub(super) fn cancel(&mut self) {
        self.stop.get_or_insert(StopReason::Cancelled);
    }

    /// What the sequence has taken so far.
    pub(super) fn stats(&self) -> Stats {
        Stats { stop: self.stop.unwrap_or_default(), generated_tokens: self.answer().len(), ..self.stats.clone() }
    }

    /// Bytes of keys and values.
    pub(super) fn kv_bytes(&self) -> u64 {
        self.branches().map(|branch| branch.cache.bytes()).sum()
    }

    /// Bytes of keys and values of all tokens, run and pending, and of one more.
    pub(super) fn whole_bytes(&self) -> u64 {
        self.branches().map(|branch| branch.cache.bytes_of(branch.len + 1)).fold(0, u64::saturating_add)
    }

    fn branches(&self) -> impl Iterator<Item = &Branch> {
        std::iter::once(&self.conditional).chain(&self.unconditional)
    }

    /// Both branches, the conditional one first.
    pub(super) fn branches_mut(&mut self) -> impl Iterator<Item = &mut Branch> {
        std::iter::once(&mut self.conditional).chain(&mut self.unconditional)
    }

    /// What each branch runs in the next pass. While one runs tokens again, the other waits if it does not.
    pub(super) fn chunks(&self) -> [Option<Chunk>; 2] {
        let replaying = self.branches().any(Branch::is_replaying);
        let is_last = self.draws_next();
        let chunk = |branch: &Branch| {
            let chunk = branch.chunk(is_last);
            (chunk.len > 0 && replaying == branch.is_replaying()).then_some(chunk)
        };
        [chunk(&self.conditional), self.unconditional.as_ref().and_then(chunk)]
    }

    /// Bytes that the caches lack for the next pass.
    pub(super) fn growth(&self) -> u64 {
        let growth = |(branch, chunk): (&Branch, Option<Chunk>)| chunk.map_or(0, |chunk| branch.growth(chunk));
        self.branches().zip(self.chunks()).map(growth).fold(0, u64::saturating_add)
    }

    /// Takes memory for the keys and values of the next pass.
    ///
    /// # Errors
    /// [`Error::KvLimit`] where they would be more than `limit` bytes, [`Error::KvMemory`].
    pub(super) fn reserve(&mut self, limit: u64) -> Result<()> {
        let needed = self.next_kv_bytes();
        if needed > limit {
            return Err(Error::KvLimit { needed, limit });
        }
        let chunks = self.chunks();
        for (branch, chunk) in self.branches_mut().zip(chunks) {
            branch.cache.reserve(branch.cache.len() + chunk.map_or(0, |chunk| chunk.len))?;
        }
        Ok(())
    }

    /// Bytes of keys and values in the next pass.
    pub(super) fn next_kv_bytes(&self) -> u64 {
        self.kv_bytes().saturating_add(self.growth())
    }

    /// Whether the next pass runs all that is pending, and so gives the logits of a draw.
    pub(super) fn draws_next(&self) -> bool {
        self.branches().all(|branch| !branch.is_replaying() && branch.pending.len() <= PREFILL_CHUNK)
    }

    /// The range of ids of the candidates of the next draw: in an image, that of the image tokens.
    pub(super) fn candidate_range(&self, vocab_size: usize) -> Range<usize> {
        self.sampler.candidate_range(&self.state, vocab_size)
    }

    /// Gives the KV caches up. The tokens are run again before the sequence goes on, with the same results.
    pub(super) fn release(&mut self) {
        let tokens = &self.tokens;
        self.conditional.release(tokens);
        if let Some(branch) = &mut self.unconditional {
            branch.release(tokens);
        }
    }

    /// Rows of a pass: its branches.
    pub(super) fn n_rows(&self) -> usize {
        self.branches().count()
    }

    /// Whether the next token is in an image.
    pub(super) fn in_image(&self) -> bool {
        self.state.in_image()
    }

    /// Whether the number of drafts is the engine's to choose.
    pub(super) fn is_auto(&self) -> bool {
        self.speculator.setting() == Speculation::Auto
    }

    /// Adds drafts to the next pass, up to `places` of them but for those that are forced.
    pub(super) fn draft(&mut self, places: usize) {
        (self.places, self.drafted_in_image) = (places, self.in_image());
        self.speculator.drop_drafts();
        if places == 0 || self.stop.is_some() || !self.branches().all(Branch::can_draft) {
            return;
        }
        // The last place is that of the token which is drawn after all drafts.
        let left = self.limits.max_new_tokens - self.answer().len();
        let room = self.branches().map(Branch::room).fold(left, usize::min).saturating_sub(1);
        let drafts = self.speculator.draft(&self.sampler, &mut self.state, &self.tokens, places, room);
        self.conditional.push_drafts(drafts);
        if let Some(branch) = &mut self.unconditional {
            branch.push_drafts(drafts);
        }
    }

    /// Takes the drafts of the next pass back.
    pub(super) fn drop_drafts(&mut self) {
        self.speculator.drop_drafts();
        self.branches_mut().for_each(Branch::drop_drafts);
    }

    /// Drafts of the next pass.
    pub(super) fn n_drafts(&self) -> usize {
        self.conditional.n_drafts
    }

    /// Draws from the logits of a pass, `rows` being those after the tokens that were certain (0) and after each draft,
    /// and appends what is certain now: the drafts that were right, the next token, and those that are forced.
    ///
    /// # Errors
    /// Those of the sampler; the sequence cannot go on then.
    pub(super) fn draw<'r>(
        &mut self,
        rows: impl Fn(usize) -> (LogitsRow<'r>, Option<LogitsRow<'r>>),
        transformer: &Transformer,
    ) -> Result<()> {
        let Self { speculator, sampler, state, verified, .. } = self;
        speculator.verify(sampler, state, rows, collect(verified))?;
        self.append_verified(transformer);
        Ok(())
    }

    /// The next draw, if the device can make it.
    pub(super) fn plain_draw(&self) -> Option<PlainDraw> {
        self.sampler.plain_draw(&self.state)
    }

    /// The draws of the next pass after the tokens that are certain and after each draft, if the device can make them.
    pub(super) fn plain_draws(&self) -> impl Iterator<Item = PlainDraw> {
        let first = self.plain_draw();
        (0..=self.n_drafts()).filter_map(move |node| {
            let mut draw = first.clone()?;
            draw.position += node;
            Some(draw)
        })
    }

    /// [`Sequence::draw`] of the tokens that the device has drawn.
    pub(super) fn take_drawn(&mut self, drawn: &[u32], transformer: &Transformer) {
        let Self { speculator, sampler, state, verified, .. } = self;
        speculator.verify_drawn(sampler, state, drawn, collect(verified));
        self.stats.drawn_on_device += self.append_verified(transformer);
    }

    /// Appends the drafts that were right, the token after them, and what is forced then. Returns how many were drawn.
    fn append_verified(&mut self, transformer: &Transformer) -> usize {
        let drafts = self.speculator.drafts();
        let accepted = self.speculator.path().iter().filter(|&&index| drafts[index].kind != DraftKind::Forced).count();
        self.stats.drafts += self.n_drafts();
        self.stats.accepted_drafts += accepted;
        let verified = std::mem::take(&mut self.verified);
        let mut drawn = 0;
        for &token in &verified {
            // After the last code of an image comes what is forced, in a pass with drafts, too.
            let is_drawn = self.sampler.forced(&self.state).is_none();
            drawn += usize::from(is_drawn);
            self.stats.forced_tokens += usize::from(!is_drawn);
            self.append(token, transformer);
            if self.stop.is_some() {
                break;
            }
        }
        self.outcome =
            Some(Outcome { places: self.places, drafts: self.n_drafts(), drawn, in_image: self.drafted_in_image });
        let path = self.speculator.path();
        self.conditional.keep_drafts(path);
        if let Some(branch) = &mut self.unconditional {
            branch.keep_drafts(path);
        }
        self.verified = verified;
        self.append_forced(transformer);
        drawn
    }

    /// Appends a token to the sequence and to the branches that see it.
    fn append(&mut self, token: u32, transformer: &Transformer) {
        self.tokens.push(token);
        self.state.push(token);
        self.conditional.push(token);
        match (self.sampler.unconditional(&self.state), &mut self.unconditional) {
            (Some(_), Some(branch)) => branch.push(token),
            (Some(seen), None) => {
                // The branch sees the image from its start on, with positions of its own.
                let start = seen.start;
                let seen = &self.tokens[seen];
                let left = self.conditional.cache.capacity().saturating_sub(self.conditional.len);
                let capacity = match self.state.phase() {
                    Phase::Rows(image) => image.size().n_tokens().min(seen.len() + left),
                    _ => seen.len() + left,
                };
                self.unconditional = Some(Branch::new(transformer, seen, start, capacity));
            }
            (None, _) => self.unconditional = None,
        }
        self.stop = self.stop_after(token);
    }

    fn stop_after(&self, token: u32) -> Option<StopReason> {
        let limits = &self.limits;
        if token == self.state.vocabulary().turn_end() && !self.state.in_image() {
            Some(StopReason::TurnEnd)
        } else if limits.max_images.is_some_and(|max| self.state.answer_images() >= max) {
            Some(StopReason::MaxImages)
        } else if self.answer().len() >= limits.max_new_tokens {
            Some(StopReason::MaxNewTokens)
        } else if self.tokens.len() >= limits.context {
            Some(StopReason::ContextFull)
        } else {
            None
        }
    }

    /// Appends the tokens that need no pass, as the grammar leaves no choice.
    fn append_forced(&mut self, transformer: &Transformer) {
        while self.stop.is_none()
            && let Some(token) = self.sampler.forced(&self.state)
        {
            self.stats.forced_tokens += 1;
            self.append(token, transformer);
        }
    }

    /// Ends the sequence where it was cancelled, or its time is up.
    pub(super) fn check_deadline(&mut self, now: Duration) {
        if self.stop.is_some() {
        } else if self.limits.cancel.is_cancelled() {
            self.stop = Some(StopReason::Cancelled);
        } else if self.limits.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop = Some(StopReason::Deadline);
        }
    }
}

/// Collects the tokens that a pass makes certain, instead of those before.
fn collect(verified: &mut Vec<u32>) -> impl FnMut(u32) -> bool {
    verified.clear();
    |token| {
        verified.push(token);
        true
    }
}
