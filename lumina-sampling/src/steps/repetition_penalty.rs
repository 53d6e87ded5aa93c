//! Repetition penalty.

use crate::{Candidates, Step, StreamState};

/// In text, makes tokens that the text already contains less likely: their positive logits are divided by the penalty
/// and negative ones multiplied. Once a token, however often it occurred.
///
/// Mirrors Hugging Face's `RepetitionPenaltyLogitsProcessor`, with one deliberate difference: images, their layout and
/// the ends of turns neither count nor suffer, since a penalty on them would bend the stream's grammar, not its style.
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
