//! Min-p.

use crate::{Candidates, Step, StreamState};

/// Keeps the candidates that are at least `p` times as likely as the likeliest.
///
/// Mirrors Hugging Face's `MinPLogitsWarper`. arXiv 2407.01082.
#[derive(Debug, Clone, Copy)]
pub struct MinP(
    /// The share of the highest probability, 0 to 1.
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
