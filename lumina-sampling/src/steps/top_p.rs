//! Top-p (nucleus sampling).

use crate::options::check_range;
use crate::step::BuiltIn;
use crate::{Candidates, Result, SamplingOptions, Step, StreamState};

/// Keeps the smallest set of likeliest candidates whose probabilities sum to at least `p`, and all that tie with its
/// last.
///
/// Mirrors Hugging Face's `TopPLogitsWarper`, where of tied tokens the sort decides; here the same token is kept on
/// every machine. arXiv 1904.09751.
#[derive(Debug, Clone, Copy)]
pub struct TopP(
    /// The probability to cover, above 0 and up to 1.
    pub f32,
);

impl Step for TopP {
    fn apply(&self, candidates: &mut Candidates, _: &StreamState) {
        let sorted = candidates.descending();
        let Some(&highest) = sorted.first() else { return };
        // If the highest logit is infinite, it and its ties have all the probability.
        let weight = |logit: f32| if logit == highest { 1.0 } else { (f64::from(logit) - f64::from(highest)).exp() };
        let enough = f64::from(self.0) * sorted.iter().map(|&logit| weight(logit)).sum::<f64>();
        let mut covered = 0.0;
        let lowest_kept = sorted.iter().copied().find(|&logit| {
            covered += weight(logit);
            covered >= enough
        });
        if let Some(lowest_kept) = lowest_kept {
            candidates.retain(|_, logit| logit >= lowest_kept);
        }
    }
}

impl BuiltIn for TopP {
    const CHANGES_MOST_LIKELY: bool = false;

    fn from_options(options: &SamplingOptions) -> Result<Option<Self>> {
        if let Some(p) = options.top_p {
            check_range("top_p", p, p > 0.0 && p <= 1.0, "above 0 and up to 1")?;
        }
        Ok(options.top_p.map(Self))
    }
}

impl SamplingOptions {
    /// Sets [`top_p`](Self#structfield.top_p).
    #[must_use]
    pub fn top_p(self, top_p: f32) -> Self {
        Self { top_p: Some(top_p), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_vocabulary;

    #[test]
    fn the_likeliest_that_cover_p_stay() {
        let state = StreamState::new(small_vocabulary().into(), &[]);
        let row = [0.125f32, 0.5, 0.125, 0.25].map(f32::ln);
        for (p, kept) in [(0.4, &[1][..]), (0.7, &[1, 3]), (0.8, &[0, 1, 2, 3]), (1.0, &[0, 1, 2, 3])] {
            let mut candidates = Candidates::from_row(&row).unwrap();
            TopP(p).apply(&mut candidates, &state);
            assert_eq!(candidates.tokens(), kept, "{p}");
        }
    }
}
