//! The trait of all sampling steps.

use std::fmt::Debug;

use crate::{Candidates, Result, SamplingOptions, StreamState};

/// One step of the pipeline: re-scores or drops candidates.
///
/// A step is a pure function of the candidates and the state: its output does not depend on what was sampled before. So
/// replay, batching and decoding of several tokens in a pass agree. One that is not says so by [`Step::is_pure`].
///
/// # Your own step
/// A bonus for some words, in ten lines:
/// ```
/// use lumina_sampling::{Candidates, Sampler, SamplingOptions, Step, StreamState};
///
/// #[derive(Debug)]
/// struct Bonus { tokens: Vec<u32>, logits: f32 }
///
/// impl Step for Bonus {
///     fn apply(&self, candidates: &mut Candidates, state: &StreamState) {
///         if state.in_image() { return }
///         for (token, logit) in candidates.iter_mut() {
///             if self.tokens.contains(&token) { *logit += self.logits }
///         }
///     }
/// }
///
/// # let vocabulary = std::sync::Arc::new(
/// #    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
/// # let state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
/// # let text = 20;
/// let options = SamplingOptions::default().greedy();
/// let mut sampler = Sampler::new(&vocabulary, &options)?.step_before(Bonus { tokens: vec![text], logits: 5.0 });
/// assert_eq!(sampler.sample(&[0.0; 32], None, &state)?, text);
/// # Ok::<(), lumina_sampling::Error>(())
/// ```
/// [`Sampler::step_before`](crate::Sampler::step_before) and [`Sampler::step_after`](crate::Sampler::step_after) say
/// where it runs.
pub trait Step: Debug + Send + Sync {
    /// Changes the logits of `candidates`, or drops some of them, for the token that comes after `state`.
    fn apply(&self, candidates: &mut Candidates, state: &StreamState);

    /// Whether the outcome depends on candidates and state alone. Default: yes. A step that counts its calls, or asks
    /// another program, says no: then [one token a pass](crate::speculation) is drawn.
    fn is_pure(&self) -> bool {
        true
    }
}

/// A step that [`SamplingOptions`] control.
pub(crate) trait BuiltIn: Step + Sized + 'static {
    /// Whether the step can change which candidate is the most likely. The others are left out where that one is
    /// chosen.
    const CHANGES_MOST_LIKELY: bool;

    /// The step that the options ask for; `None` where it would change nothing.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) where its option is out of range.
    fn from_options(options: &SamplingOptions) -> Result<Option<Self>>;
}
