//! Repetition penalty.

use crate::options::check_range;
use crate::step::BuiltIn;
use crate::{Candidates, Result, SamplingOptions, Step, StreamState};

/// In text, makes tokens that the text already contains less likely: their positive logits are divided by the penalty
/// and negative ones multiplied. Once a token, however often it occurred.
///
/// Mirrors Hugging Face's `RepetitionPenaltyLogitsProcessor`, with one deliberate difference: images, their layout and
/// the ends of turns neither count nor are penalised, since that would change the stream's grammar and not its style.
/// arXiv 1909.05858.
#[derive(Debug, Clone, Copy)]
pub struct RepetitionPenalty(
    /// The penalty, above 0; 1 changes nothing.
    pub f32,
);

impl Step for RepetitionPenalty {
    fn apply(&self, candidates: &mut Candidates, state: &StreamState) {
        if state.in_image() {
            return;
        }
        for (token, _) in state.text_tokens() {
            if let Some(logit) = candidates.get_mut(token) {
                *logit = if *logit < 0.0 { *logit * self.0 } else { *logit / self.0 };
            }
        }
    }
}

impl BuiltIn for RepetitionPenalty {
    const CHANGES_MOST_LIKELY: bool = true;

    fn from_options(options: &SamplingOptions) -> Result<Option<Self>> {
        if let Some(penalty) = options.repetition_penalty {
            let in_range = penalty > 0.0 && penalty.is_finite();
            check_range("repetition_penalty", penalty, in_range, "a finite number above 0")?;
        }
        Ok(options.repetition_penalty.map(Self))
    }
}

impl SamplingOptions {
    /// Sets [`repetition_penalty`](Self#structfield.repetition_penalty).
    #[must_use]
    pub fn repetition_penalty(self, repetition_penalty: f32) -> Self {
        Self { repetition_penalty: Some(repetition_penalty), ..self }
    }
}
