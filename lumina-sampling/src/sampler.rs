//! The pipeline, put together.

use std::ops::Range;
use std::sync::Arc;

use lumina_core::Vocabulary;
use lumina_core::layout::Phase;

use crate::{
    Allowed, Candidates, DrawKey, Error, Grammar, LogitsRow, MinP, RepetitionPenalty, Result, SamplingOptions, Step,
    StreamState, Temperature, TopK, TopP,
};

/// Chooses tokens: what the loop of a generating program calls.
///
/// The steps of its pipeline and their order are in the [crate's documentation](crate). A token depends on the options,
/// the state and its logits alone; what a sampler keeps between calls is memory to be used again. Samplers are cheap to
/// clone, so each thread can have one.
///
/// ```
/// use lumina_sampling::{Sampler, SamplingOptions, StreamState};
/// # let vocabulary = std::sync::Arc::new(include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
/// let mut sampler = Sampler::new(&vocabulary, &SamplingOptions::default().seed(7))?;
/// let mut state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
/// let logits: Vec<f32> = (0..32).map(|token| token as f32 / 10.0).collect();
/// let token = sampler.sample(&logits, None, &state)?;
/// assert!(token >= 22, "top-k for text is 10");
/// state.push(token);
/// # Ok::<(), lumina_sampling::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    grammar: Grammar,
    guidance_scale: f32,
    choice: Choice,
    steps: Vec<Arc<dyn Step>>,
    /// How many of the steps came by [`Sampler::step_before`].
    n_before: usize,
    candidates: Candidates,
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    MostLikely,
    Draw(DrawKey),
}

impl Sampler {
    /// The pipeline that the options ask for.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::ImageSize`] where an option is out of range.
    pub fn new(vocabulary: &Vocabulary, options: &SamplingOptions) -> Result<Self> {
        options.validate()?;
        let mut steps: Vec<Arc<dyn Step>> = Vec::new();
        if let Some(penalty) = options.repetition_penalty {
            steps.push(Arc::new(RepetitionPenalty(penalty)));
        }
        let choice = if options.greedy {
            // None of the steps below changes which candidate is the most likely.
            Choice::MostLikely
        } else {
            steps.push(Arc::new(TopK { image: options.image_top_k, text: options.text_top_k }));
            if options.temperature != 1.0 {
                steps.push(Arc::new(Temperature(options.temperature)));
            }
            if let Some(p) = options.top_p {
                steps.push(Arc::new(TopP(p)));
            }
            if let Some(p) = options.min_p {
                steps.push(Arc::new(MinP(p)));
            }
            Choice::Draw(DrawKey { seed: options.seed, branch: options.branch })
        };
        Ok(Self {
            grammar: Grammar::new(vocabulary, options.modality, options.image_size)?,
            guidance_scale: options.guidance_scale,
            choice,
            steps,
            n_before: 0,
            candidates: Candidates::default(),
        })
    }

    /// Adds a step of your own ahead of the built-in ones, after those added here before: it sees every token that the
    /// grammar allows, with its guided logit. The place to raise or lower what the model prefers.
    #[must_use]
    pub fn step_before(mut self, step: impl Step + 'static) -> Self {
        self.steps.insert(self.n_before, Arc::new(step));
        self.n_before += 1;
        self
    }

    /// Adds a step of your own after all others: it sees the tokens between which the draw will decide, with their
    /// logits after temperature. The place for another rule of truncation.
    #[must_use]
    pub fn step_after(mut self, step: impl Step + 'static) -> Self {
        self.steps.push(Arc::new(step));
        self
    }

    /// The next token, where there is no choice: append it to the stream with no pass of the model.
    pub fn forced(&self, state: &StreamState) -> Option<u32> {
        match self.allowed(state) {
            Allowed::One(token) => Some(token),
            Allowed::Only(_) | Allowed::AllBut(_) => None,
        }
    }

    /// The tokens that can come after `state`, before any step: a model need not compute the logits of others.
    pub fn allowed(&self, state: &StreamState) -> Allowed<'_> {
        self.grammar.allowed(state)
    }

    /// The part of the stream that the unconditional branch must have seen before the next token is drawn, where
    /// guidance applies: the image so far, from its image-start on. Positions in that branch count from 0 at the range's
    /// start.
    ///
    /// The branch is fed what it has not seen yet; a range that starts elsewhere is another image, for which it begins
    /// anew. Guidance applies in an image once both its sizes are there, unless its scale is 1.
    pub fn unconditional(&self, state: &StreamState) -> Option<Range<usize>> {
        match state.phase() {
            Phase::Rows(image) if self.guidance_scale != 1.0 => Some(image.start()..state.len()),
            _ => None,
        }
    }

    /// The candidates for the token after `state`, as all steps leave them: the distribution from which
    /// [`Sampler::sample`] draws.
    ///
    /// `logits` and `unconditional` are rows of the two branches, for the same ids: the whole vocabulary, or the
    /// part of it that holds the [allowed](Sampler::allowed) tokens, as [`LogitsRow`] states. The logits of tokens that
    /// the grammar excludes are not read. `unconditional` is needed where [`Sampler::unconditional`] names a range, and
    /// ignored elsewhere.
    ///
    /// # Errors
    /// [`Error::ShortRow`], [`Error::RowsDiffer`], [`Error::NoUnconditional`], [`Error::NanLogit`].
    pub fn candidates<'a>(
        &mut self,
        logits: impl Into<LogitsRow<'a>>,
        unconditional: Option<LogitsRow<'a>>,
        state: &StreamState,
    ) -> Result<&mut Candidates> {
        let logits = logits.into();
        let guidance = match (self.unconditional(state), unconditional) {
            (None, _) => None,
            (Some(_), None) => return Err(Error::NoUnconditional { position: state.len() }),
            (Some(_), Some(row)) if row.ids() != logits.ids() => {
                return Err(Error::RowsDiffer { conditional: logits.ids(), unconditional: row.ids() });
            }
            (Some(_), Some(row)) => Some((row, self.guidance_scale)),
        };
        self.candidates.load(state.len(), self.grammar.allowed(state), logits, guidance)?;
        for step in &self.steps {
            step.apply(&mut self.candidates, state);
        }
        Ok(&mut self.candidates)
    }

    /// The token after `state`. Where it is [forced](Sampler::forced), the logits are not read.
    ///
    /// The draw depends on the seed, the branch and the position `state.len()`, not on what was sampled before.
    ///
    /// # Errors
    /// Those of [`Sampler::candidates`], and [`Error::NothingLeft`].
    pub fn sample<'a>(
        &mut self,
        logits: impl Into<LogitsRow<'a>>,
        unconditional: Option<LogitsRow<'a>>,
        state: &StreamState,
    ) -> Result<u32> {
        if let Some(token) = self.forced(state) {
            return Ok(token);
        }
        let choice = self.choice;
        let candidates = self.candidates(logits, unconditional, state)?;
        match choice {
            Choice::MostLikely => candidates.most_likely(),
            Choice::Draw(key) => candidates.draw(key.uniform(state.len(), 0)),
        }
    }
}
