//! Classifier-free guidance.

/// Replaces conditional logits with guided ones: `g · (cond − uncond) + uncond`, in `f32` and in this order.
///
/// Both slices are the logits of the same tokens, `[n_tokens]`; if one is longer, its rest is ignored. A token that the
/// conditional branch excludes (minus infinity) stays excluded.
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
        // The difference of two infinities is NaN, for a token that both branches exclude.
        *logit = if *logit == f32::NEG_INFINITY { *logit } else { guided };
    }
}

#[cfg(test)]
mod tests {
    use super::guide;

    #[test]
    fn excluded_tokens_stay_excluded() {
        let out = f32::NEG_INFINITY;
        let mut logits = [out, out, f32::MIN];
        guide(&mut logits, &[out, 1.0, f32::MIN], 4.0);
        assert_eq!(logits, [out, out, f32::MIN]);
    }
}
