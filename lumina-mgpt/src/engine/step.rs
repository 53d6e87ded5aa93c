//! The one generation loop: any number of requests, each with one or two rows in every pass.
//!
//! A pass runs what each row has pending: a chunk of its prompt, or the tokens since the last draw. So prompts are
//! prefilled in chunks beside rows that already decode; a token that the grammar forces has no pass of its own but
//! waits for the next drawn one; and under guidance the unconditional branch, which sees the current image alone, is
//! a second row of the same pass.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lumina_core::Vocabulary;
use lumina_sampling::{Allowed, Modality, Phase, Sampler, SamplingOptions, StreamState};
use smallvec::SmallVec;

use crate::event::{Stats, StopReason, peak_resident_bytes};
use crate::kv_cache::KvCache;
use crate::logits::Logits;
use crate::request::{Cancel, GenerateOptions};
use crate::transformer::{PLACES, Row, Transformer};
use crate::{Error, Result};

/// Tokens of a prompt that one pass takes. It bounds the table of attention scores, and a prompt is cut at multiples of
/// it, alone and in a batch alike.
const PREFILL_CHUNK: usize = 256;

/// A sequence: its keys and values, and the tokens that they lack.
struct Branch {
    cache: KvCache,
    pending: Vec<u32>,
    /// Tokens run and pending.
    len: usize,
}

impl Branch {
    fn new(transformer: &Transformer, tokens: &[u32], capacity: usize) -> Self {
        Self { cache: transformer.new_cache(capacity), pending: tokens.to_vec(), len: tokens.len() }
    }

    fn push(&mut self, token: u32) {
        self.pending.push(token);
        self.len += 1;
    }

    /// How many tokens the next pass runs. Where the job's other branch has more to run than a pass takes, one token
    /// is kept back, so that both give their logits in the same pass.
    fn share(&self, last_pass: bool) -> usize {
        match self.pending.len() {
            pending if pending > PREFILL_CHUNK => PREFILL_CHUNK,
            pending if last_pass => pending,
            pending => pending - 1,
        }
    }
}

/// A request on its way: what it is to become, and how far it is.
pub(crate) struct Job {
    sampler: Sampler,
    state: StreamState,
    /// Prompt and answer.
    stream: Vec<u32>,
    conditional: Branch,
    unconditional: Option<Branch>,
    limits: Limits,
    stats: Stats,
    stop: Option<StopReason>,
}

/// When a job ends at the latest.
struct Limits {
    max_new_tokens: usize,
    context: usize,
    max_images: Option<usize>,
    deadline: Option<Instant>,
    cancel: Cancel,
}

impl Job {
    /// A job that continues `prompt`.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::Option`].
    pub(crate) fn new(
        transformer: &Transformer,
        vocabulary: &Arc<Vocabulary>,
        prompt: Vec<u32>,
        sampler: Sampler,
        options: &GenerateOptions,
        cancel: Cancel,
    ) -> Result<Self> {
        options.check()?;
        let context = transformer.architecture().max_positions();
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(Error::PromptTooLong { tokens: prompt.len(), context });
        }
        let state = StreamState::new(vocabulary.clone(), &prompt);
        let by_its_rules = longest_answer(&options.sampling, state.phase());
        let longest = by_its_rules.min(options.max_new_tokens).min(context - prompt.len());
        let mut job = Self {
            state,
            conditional: Branch::new(transformer, &prompt, prompt.len() + longest),
            unconditional: None,
            limits: Limits {
                max_new_tokens: options.max_new_tokens,
                context,
                max_images: options.max_images,
                deadline: options.deadline_ms.map(|ms| Instant::now() + Duration::from_millis(ms)),
                cancel,
            },
            stats: Stats { prompt_tokens: prompt.len(), ..Stats::default() },
            stop: None,
            sampler,
            stream: prompt,
        };
        job.stats.kv_cache_bytes = job.conditional.cache.bytes();
        job.take_forced(transformer);
        Ok(job)
    }

    /// The tokens generated so far.
    pub(crate) fn answer(&self) -> &[u32] {
        &self.stream[self.stats.prompt_tokens..]
    }

    /// Whether the job has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.stop.is_some()
    }

    /// Ends the job, for it has failed.
    pub(crate) fn abandon(&mut self) {
        self.stop = Some(StopReason::Failed);
    }

    /// Time that was spent on turning codes into pictures.
    pub(crate) fn add_image_decode(&mut self, time: Duration) {
        self.stats.image_decode += time;
    }

    /// What the job has taken so far.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            stop: self.stop.unwrap_or_default(),
            generated_tokens: self.answer().len(),
            peak_resident_bytes: peak_resident_bytes(),
            ..self.stats.clone()
        }
    }

    /// Adds a token to the stream and to the branches that see it.
    fn accept(&mut self, token: u32, transformer: &Transformer) {
        self.stream.push(token);
        self.state.push(token);
        self.conditional.push(token);
        match (self.sampler.unconditional(&self.state), &mut self.unconditional) {
            (Some(_), Some(branch)) => branch.push(token),
            (Some(seen), None) => {
                // The branch sees the image from its start on, with positions of its own.
                let seen = &self.stream[seen];
                let left = self.conditional.cache.capacity().saturating_sub(self.conditional.len);
                let capacity = match self.state.phase() {
                    Phase::Rows(image) => image.size().n_tokens().min(seen.len() + left),
                    _ => seen.len() + left,
                };
                let branch = Branch::new(transformer, seen, capacity);
                let bytes = self.conditional.cache.bytes() + branch.cache.bytes();
                self.stats.kv_cache_bytes = self.stats.kv_cache_bytes.max(bytes);
                self.unconditional = Some(branch);
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
        } else if self.stream.len() >= limits.context {
            Some(StopReason::ContextFull)
        } else {
            None
        }
    }

    /// Takes the tokens that need no pass, for nothing else can come.
    fn take_forced(&mut self, transformer: &Transformer) {
        while self.stop.is_none()
            && let Some(token) = self.sampler.forced(&self.state)
        {
            self.stats.forced_tokens += 1;
            self.accept(token, transformer);
        }
    }

    /// Whether the next pass runs all that the job has pending, and so gives the logits of a draw.
    fn draws_next(&self) -> bool {
        let mut branches = std::iter::once(&self.conditional).chain(&self.unconditional);
        branches.all(|branch| branch.pending.len() <= PREFILL_CHUNK)
    }

    /// The range of ids of the tokens that the next draw decides between: inside an image, that of the image tokens.
    fn can_come(&self, vocab_size: usize) -> Range<usize> {
        match self.sampler.allowed(&self.state) {
            Allowed::One(token) => token as usize..token as usize + 1,
            Allowed::Only(tokens) => match (tokens.first(), tokens.last()) {
                (Some(&first), Some(&last)) => first as usize..last as usize + 1,
                _ => 0..vocab_size,
            },
            Allowed::AllBut(_) => 0..vocab_size,
        }
    }

    /// Ends the job where its caller wants it to end now.
    fn look_at_the_clock(&mut self) {
        if self.limits.cancel.is_cancelled() {
            self.stop = Some(StopReason::Cancelled);
        } else if self.limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.stop = Some(StopReason::Deadline);
        }
    }
}

/// The most tokens that an answer to a prompt which ends in `phase` can have by its own rules.
fn longest_answer(sampling: &SamplingOptions, phase: Phase) -> usize {
    match (sampling.modality, sampling.image_size, phase) {
        (Modality::Image, Some(size), Phase::Text) => size.n_tokens() + 1,
        _ => usize::MAX,
    }
}

/// One pass for all jobs that have not ended: each gets a drawn token and the forced ones behind it, or another chunk
/// of its prompt behind it.
///
/// # Errors
/// [`Error::Compute`] where the device fails; the jobs are then of no further use. An error of one job's draw is
/// returned beside the job's index and ends that job alone.
pub(crate) fn pass(transformer: &Transformer, jobs: &mut [Job]) -> Result<Vec<(usize, Error)>> {
    let started = Instant::now();
    let mut rows: SmallVec<[Row<'_>; PLACES]> = SmallVec::new();
    // For each row that ends in a draw: its job, and the place of its last token in the pass.
    let mut draws: SmallVec<[(usize, usize); PLACES]> = SmallVec::new();
    // What the draws decide between: one product with the head serves all of them.
    let mut can_come: Option<Range<usize>> = None;
    let mut taken: SmallVec<[(usize, bool, usize); PLACES]> = SmallVec::new();
    let mut n_tokens = 0;
    for (index, job) in jobs.iter_mut().enumerate() {
        if !job.is_done() {
            job.look_at_the_clock();
        }
        if job.is_done() {
            continue;
        }
        let draws_next = job.draws_next();
        if draws_next {
            let own = job.can_come(transformer.architecture().vocab_size());
            can_come = Some(match can_come {
                Some(others) => others.start.min(own.start)..others.end.max(own.end),
                None => own,
            });
        }
        for (is_guide, branch) in std::iter::once(&mut job.conditional).chain(&mut job.unconditional).enumerate() {
            let share = branch.share(draws_next);
            if share == 0 {
                continue;
            }
            n_tokens += share;
            if draws_next {
                draws.push((index, n_tokens - 1));
            }
            taken.push((index, is_guide == 1, share));
            rows.push(Row {
                tokens: &branch.pending[..share],
                cache: Some(&mut branch.cache),
                planned_len: branch.len,
            });
        }
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let positions: SmallVec<[usize; PLACES]> = draws.iter().map(|&(_, position)| position).collect();
    let logits = transformer.compute().in_pool(|| {
        let hidden = transformer.forward(&mut rows)?;
        can_come.map(|tokens| transformer.logits_among(&hidden, &positions, tokens)).transpose()
    })?;
    // The rows borrow the jobs.
    drop(rows);
    let pass_time = started.elapsed();

    for (index, is_guide, share) in taken {
        let job = &mut jobs[index];
        let branch = if is_guide { job.unconditional.as_mut() } else { Some(&mut job.conditional) };
        branch.expect("the pass ran this branch").pending.drain(..share);
        if !is_guide {
            job.stats.passes += 1;
            let phase = if job.answer().len() == job.stats.forced_tokens {
                &mut job.stats.prefill
            } else {
                &mut job.stats.decode
            };
            *phase += pass_time;
        }
    }

    let mut failed = Vec::new();
    let logits = logits.iter().flat_map(Logits::rows);
    let mut logits = draws.iter().map(|&(index, _)| index).zip(logits).peekable();
    while let Some((index, conditional)) = logits.next() {
        let unconditional = logits.next_if(|(next, _)| *next == index).map(|(_, logits)| logits);
        let job = &mut jobs[index];
        let started = Instant::now();
        let drawn = job.sampler.sample(conditional, unconditional.map(Into::into), &job.state);
        job.stats.sampling += started.elapsed();
        match drawn {
            Ok(token) => {
                job.accept(token, transformer);
                job.take_forced(transformer);
            }
            Err(error) => {
                job.abandon();
                failed.push((index, error.into()));
            }
        }
    }
    Ok(failed)
}
