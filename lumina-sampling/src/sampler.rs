//! The whole pipeline.

use std::any::type_name;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use lumina_core::layout::Phase;
use lumina_core::{Vocabulary, unwind};

use crate::{
    Allowed, Candidates, DrawKey, DrawRule, Error, Grammar, LogitsRow, Result, SamplingOptions, Step, StreamState,
};

/// Chooses tokens: what a generation loop calls.
///
/// The [crate's documentation](crate) describes the pipeline. A token depends on the options, the state and its logits
/// only; between calls a sampler keeps nothing but buffers. It is cheap to clone, so each thread can have one.
///
/// ```
/// use lumina_sampling::{Sampler, SamplingOptions, StreamState};
/// # let vocabulary = std::sync::Arc::new(
/// #    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
/// let mut sampler = Sampler::new(&vocabulary, &SamplingOptions::default().seed(7))?;
/// let mut state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
/// let logits: Vec<f32> = (0..32).map(|token| token as f32 / 10.0).collect();
/// let token = sampler.sample(&logits, None, &state)?;
/// assert!(token >= 22, "top-k for text is 10");
/// state.push(token);
/// # Ok::<(), lumina_sampling::Error>(())
/// ```
#[derive(Clone)]
pub struct Sampler {
    grammar: Grammar,
    guidance_scale: f32,
    choice: Choice,
    steps: Vec<NamedStep>,
    /// How many of the steps were added by [`Sampler::step_before`].
    n_before: usize,
    /// `None` where there are other steps than top-k and temperature.
    plain: Option<Plain>,
    candidates: Candidates,
}

/// A step, and the type that its errors name.
#[derive(Clone)]
pub(crate) struct NamedStep {
    name: &'static str,
    step: Arc<dyn Step>,
}

impl NamedStep {
    pub(crate) fn new<S: Step + 'static>(step: S) -> Self {
        Self { name: type_name::<S>(), step: Arc::new(step) }
    }
}

/// A draw among consecutive ids that depends on the logits by guidance, top-k and temperature alone: one that a device
/// can make, with the result of [`Sampler::sample`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PlainDraw {
    /// The ids, all of which are allowed.
    pub ids: Range<usize>,
    /// The guidance scale; `None` where guidance does not apply.
    pub guidance_scale: Option<f32>,
    /// Candidates that are kept, with all that tie with the last.
    pub top_k: usize,
    /// The temperature.
    pub temperature: f32,
    /// Seed and branch of the noise.
    pub key: DrawKey,
    /// Index in the stream of the token to be drawn.
    pub position: usize,
}

/// The options of draws that are plain in images.
#[derive(Debug, Clone, Copy)]
struct Plain {
    top_k: usize,
    temperature: f32,
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
        let choice = if options.greedy {
            Choice::MostLikely
        } else {
            match options.draw {
                DrawRule::Race => Choice::Draw(DrawKey { seed: options.seed, branch: options.branch }),
            }
        };
        Ok(Self {
            grammar: Grammar::new(vocabulary, options.modality, options.image_size)?,
            guidance_scale: options.guidance_scale,
            choice,
            steps: options.steps()?,
            n_before: 0,
            plain: options
                .has_plain_draws()
                .then_some(Plain { top_k: options.image_top_k, temperature: options.temperature }),
            candidates: Candidates::default(),
        })
    }

    /// Adds a step before the built-in ones, after those that this function added earlier. It sees every token that the
    /// grammar allows, with its guided logit: the place to change what the model prefers.
    #[must_use]
    pub fn step_before(mut self, step: impl Step + 'static) -> Self {
        self.steps.insert(self.n_before, NamedStep::new(step));
        self.n_before += 1;
        self.plain = None;
        self
    }

    /// Adds a step after all others. It sees the candidates of the draw, with their logits after temperature: the place
    /// for another rule of truncation.
    #[must_use]
    pub fn step_after(mut self, step: impl Step + 'static) -> Self {
        self.steps.push(NamedStep::new(step));
        self.plain = None;
        self
    }

    /// The key of the draws; none where the most likely token is chosen.
    pub(crate) fn key(&self) -> Option<DrawKey> {
        match self.choice {
            Choice::MostLikely => None,
            Choice::Draw(key) => Some(key),
        }
    }

    /// What the last draw was from.
    pub(crate) fn last_candidates(&mut self) -> &mut Candidates {
        &mut self.candidates
    }

    /// Whether all steps are [pure](Step::is_pure): only then can positions be sampled that may come to nothing, as
    /// [several tokens a pass](crate::speculation) need.
    pub fn is_pure(&self) -> bool {
        self.steps.iter().all(|named| named.step.is_pure())
    }

    /// The next token if only one is allowed: append it to the stream without a pass of the model.
    pub fn forced(&self, state: &StreamState) -> Option<u32> {
        match self.allowed(state) {
            Allowed::One(token) => Some(token),
            Allowed::Only(_) | Allowed::AllBut(_) => None,
        }
    }

    /// The tokens that can come after `state`, before any step.
    pub fn allowed(&self, state: &StreamState) -> Allowed<'_> {
        self.grammar.allowed(state)
    }

    /// The range of ids whose logits the next draw needs, of a vocabulary of `vocab_size` tokens: in an image, that of
    /// the image tokens. A model that computes these alone passes them to [`Sampler::sample`] as a [`LogitsRow`].
    pub fn candidate_range(&self, state: &StreamState, vocab_size: usize) -> Range<usize> {
        match self.allowed(state) {
            Allowed::One(token) => token as usize..token as usize + 1,
            Allowed::Only(tokens) => match (tokens.first(), tokens.last()) {
                (Some(&first), Some(&last)) => first as usize..last as usize + 1,
                _ => 0..vocab_size,
            },
            Allowed::AllBut(_) => 0..vocab_size,
        }
    }

    /// The most tokens that can come after `state`, the end of the turn included; `None` where the grammar sets no
    /// limit.
    pub fn longest_answer(&self, state: &StreamState) -> Option<usize> {
        self.grammar.longest_answer(state)
    }

    /// The part of the stream that the unconditional branch must have seen before the next token is drawn: the image so
    /// far, from its image-start on. `None` where guidance does not apply: outside images, before both sizes are known,
    /// and with a scale of 1.
    ///
    /// Positions in that branch count from 0 at the range's start. The branch is fed the tokens that it has not seen
    /// yet. A range with another start is another image, for which the branch begins anew.
    pub fn unconditional(&self, state: &StreamState) -> Option<Range<usize>> {
        match state.phase() {
            Phase::Rows(image) if self.guidance_scale != 1.0 => Some(image.start()..state.len()),
            _ => None,
        }
    }

    /// The draw of the token after `state`, if it is in an image and no other steps have a say than top-k and
    /// temperature: then a device can make it.
    pub fn plain_draw(&self, state: &StreamState) -> Option<PlainDraw> {
        let (Some(Plain { top_k, temperature }), Choice::Draw(key)) = (self.plain, self.choice) else { return None };
        let Allowed::Only(tokens) = self.allowed(state) else { return None };
        let (&first, &last) = (tokens.first()?, tokens.last()?);
        // Ascending, so the range holds no other.
        let is_range = (last - first) as usize + 1 == tokens.len();
        if !state.in_image() || !is_range {
            return None;
        }
        let guidance_scale = self.unconditional(state).map(|_| self.guidance_scale);
        let ids = first as usize..last as usize + 1;
        Some(PlainDraw { ids, guidance_scale, top_k, temperature, key, position: state.len() })
    }

    /// The candidates for the token after `state`, after all steps: the distribution from which [`Sampler::sample`]
    /// draws.
    ///
    /// `logits` and `unconditional` are rows of the two branches, for the same ids: the whole vocabulary, or the
    /// part of it that holds the [allowed](Sampler::allowed) tokens, as [`LogitsRow`] states. The logits of tokens that
    /// the grammar excludes are not read. `unconditional` is needed where [`Sampler::unconditional`] names a range, and
    /// ignored elsewhere.
    ///
    /// # Errors
    /// [`Error::ShortRow`], [`Error::RowsDiffer`], [`Error::NoUnconditional`], [`Error::NanLogit`],
    /// [`Error::StepPanicked`].
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
        for NamedStep { name, step } in &self.steps {
            // A step may come from the program. The next draw loads the candidates anew.
            unwind::catch(|| step.apply(&mut self.candidates, state))
                .map_err(|message| Error::StepPanicked { step: name, message })?;
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
            Choice::Draw(key) => candidates.draw(key),
        }
    }
}

impl fmt::Debug for Sampler {
    /// The pipeline. The candidates of the last draw are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<&str> = self.steps.iter().map(|step| step.name).collect();
        f.debug_struct("Sampler")
            .field("guidance_scale", &self.guidance_scale)
            .field("choice", &self.choice)
            .field("steps", &steps)
            .finish_non_exhaustive()
    }
}
