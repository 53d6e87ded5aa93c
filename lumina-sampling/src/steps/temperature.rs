//! Temperature.

use crate::options::check_range;
use crate::step::BuiltIn;
use crate::{Candidates, Result, SamplingOptions, Step, StreamState};

/// Divides logits by the temperature: below 1 the likely tokens become likelier, above 1 probabilities even out.
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

impl BuiltIn for Temperature {
    const CHANGES_MOST_LIKELY: bool = false;

    fn from_options(options: &SamplingOptions) -> Result<Option<Self>> {
        let temperature = options.temperature;
        check_range(
            "temperature",
            temperature,
            // Below that, dividing logits by it overflows.
            (1e-6..=f32::MAX).contains(&temperature),
            "a finite number from 1e-6; use `greedy` to take the most likely token",
        )?;
        Ok((temperature != 1.0).then_some(Self(temperature)))
    }
}

impl SamplingOptions {
    /// Sets [`temperature`](Self#structfield.temperature).
    #[must_use]
    pub fn temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }
}
