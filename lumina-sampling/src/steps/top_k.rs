//! Top-k.

use crate::{Candidates, Step, StreamState};

/// Keeps the k candidates with the highest logits, and all that tie with the k-th; in images and in text each its own
/// k, at least 1.
///
/// Mirrors `inference_solver.py::InterleavedTopKLogitsWarper`; it runs before temperature, as there.
#[derive(Debug, Clone, Copy)]
pub struct TopK {
    /// k where the stream is in an image.
    pub image: usize,
    /// k elsewhere.
    pub text: usize,
}

impl Step for TopK {
    fn apply(&self, candidates: &mut Candidates, state: &StreamState) {
        let k = if state.in_image() { self.image } else { self.text };
        if k < candidates.len()
            && let Some(kth) = candidates.nth_highest(k)
        {
            candidates.retain(|_, logit| logit >= kth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_vocabulary;

    #[test]
    fn ties_with_the_kth_stay() {
        let state = StreamState::new(small_vocabulary().into(), &[]);
        let row = [0.125f32, 0.5, 0.125, 0.25].map(f32::ln);
        for (k, kept) in [(1, &[1][..]), (2, &[1, 3]), (3, &[0, 1, 2, 3]), (9, &[0, 1, 2, 3])] {
            let mut candidates = Candidates::from_row(&row).unwrap();
            TopK { image: 1, text: k }.apply(&mut candidates, &state);
            assert_eq!(candidates.tokens(), kept, "{k}");
        }
    }
}
