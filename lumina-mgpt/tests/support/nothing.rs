//! A sampling step that changes nothing.

use std::sync::Arc;

use lumina_mgpt::{AdaptSampler, Candidates, Step, StreamState};

/// Does nothing, but that the sampler has a step of its own.
#[derive(Debug)]
struct Nothing;

impl Step for Nothing {
    fn apply(&self, _: &mut Candidates, _: &StreamState) {}
}

/// With it the processor draws, whatever computes the logits.
pub(crate) fn on_processor() -> AdaptSampler {
    Arc::new(|sampler| sampler.step_after(Nothing))
}
