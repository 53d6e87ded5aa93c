//! Classifier-free guidance.

/// Turns conditional logits into guided ones: `g · (cond − uncond) + uncond`, in `f32` and in this order.
///
/// Both slices hold the logits of the same tokens, `[n_tokens]`; where one is longer, its rest is left alone. A token
/// that the conditional branch rules out (minus infinity) stays ruled out.
///
/// Mirrors `LLMImageStartTriggeredUnbatchedClassifierFreeGuidanceLogitsProcessor`, to the last bit.
///
/// ```
/// let mut logits = [1.0, 2.0];
/// lumina_sampling::guide(&mut logits, &[0.5, 3.0], 4.0);
/// assert_eq!(logits, [2.5, -1.0]);
/// ```
pub fn guide(logits: &mut [f32], unconditional: &[f32], guidance_scale: f32) {
    for (logit, &unconditional) in logits.iter_mut().zip(unconditional) {
        let guided = guidance_scale * (*logit - unconditional) + unconditional;
        // Two infinities would make NaN of a token that both branches rule out.
        *logit = if *logit == f32::NEG_INFINITY { *logit } else { guided };
    }
}

#[cfg(test)]
mod tests {
    use super::guide;

    #[test]
    fn ruled_out_tokens_stay_so() {
        let out = f32::NEG_INFINITY;
        let mut logits = [out, out, f32::MIN];
        guide(&mut logits, &[out, 1.0, f32::MIN], 4.0);
        assert_eq!(logits, [out, out, f32::MIN]);
    }
}
