//! Min-p.

use crate::options::check_range;
use crate::step::BuiltIn;
use crate::{Candidates, Result, SamplingOptions, Step, StreamState};

/// Keeps the candidates that are at least `p` times as likely as the most likely one.
///
/// Mirrors Hugging Face's `MinPLogitsWarper`. arXiv 2407.01082.
#[derive(Debug, Clone, Copy)]
pub struct MinP(
    /// The lowest probability that is kept, as a fraction of the highest, 0 to 1.
    pub f32,
);

impl Step for MinP {
    fn apply(&self, candidates: &mut Candidates, _: &StreamState) {
        let highest = candidates.highest();
        let margin = f64::from(self.0).ln();
        // Equality first: the difference of two infinities is NaN.
        candidates.retain(|_, logit| logit == highest || f64::from(logit) - f64::from(highest) >= margin);
    }
}

impl BuiltIn for MinP {
    const CHANGES_MOST_LIKELY: bool = false;

    fn from_options(options: &SamplingOptions) -> Result<Option<Self>> {
        if let Some(p) = options.min_p {
            check_range("min_p", p, (0.0..=1.0).contains(&p), "0 to 1")?;
        }
        Ok(options.min_p.map(Self))
    }
}

impl SamplingOptions {
    /// Sets [`min_p`](Self#structfield.min_p).
    #[must_use]
    pub fn min_p(self, min_p: f32) -> Self {
        Self { min_p: Some(min_p), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_vocabulary;

    #[test]
    fn what_is_likely_enough_stays() {
        let state = StreamState::new(small_vocabulary().into(), &[]);
        let row = [0.125f32, 0.5, 0.125, 0.25].map(f32::ln);
        for (p, kept) in [(1.0, &[1][..]), (0.4, &[1, 3]), (0.2, &[0, 1, 2, 3]), (0.0, &[0, 1, 2, 3])] {
            let mut candidates = Candidates::from_row(&row).unwrap();
            MinP(p).apply(&mut candidates, &state);
            assert_eq!(candidates.tokens(), kept, "{p}");
        }
    }
}
