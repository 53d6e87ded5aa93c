//! Top-k.

use crate::options::check_range;
use crate::step::BuiltIn;
use crate::{Candidates, Result, SamplingOptions, Step, StreamState};

/// Keeps the k candidates with the highest logits, and all that tie with the k-th. Images and text each have a k.
///
/// Mirrors `inference_solver.py::InterleavedTopKLogitsWarper`; it runs before temperature, as there.
#[derive(Debug, Clone, Copy)]
pub struct TopK {
    /// k in an image, at least 1.
    pub image: usize,
    /// k in text, at least 1.
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

impl BuiltIn for TopK {
    const CHANGES_MOST_LIKELY: bool = false;

    fn from_options(options: &SamplingOptions) -> Result<Option<Self>> {
        let (image, text) = (options.image_top_k, options.text_top_k);
        for (field, k) in [("image_top_k", image), ("text_top_k", text)] {
            check_range(field, k, k > 0, "at least 1; a k as large as the vocabulary keeps every token")?;
        }
        Ok(Some(Self { image, text }))
    }
}

impl SamplingOptions {
    /// Sets [`image_top_k`](Self#structfield.image_top_k).
    #[must_use]
    pub fn image_top_k(self, image_top_k: usize) -> Self {
        Self { image_top_k, ..self }
    }
    /// Sets [`text_top_k`](Self#structfield.text_top_k).
    #[must_use]
    pub fn text_top_k(self, text_top_k: usize) -> Self {
        Self { text_top_k, ..self }
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
