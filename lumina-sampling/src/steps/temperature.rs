//! Temperature.

use crate::{Candidates, Step, StreamState};

/// Divides logits by the temperature: below 1 the likely tokens become likelier, above 1 chances even out.
///
/// Divides in `f32`, as the original does; multiplying by the inverse would round otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Temperature(
    /// The temperature, above 0.
    pub f32,
);

impl Step for Temperature {
    fn apply(&self, candidates: &mut Candidates, _: &StreamState) {
        for logit in candidates.logits_mut() {
            *logit /= self.0;
        }
    }
}
