//! What a caller chooses.

use lumina_core::ImageSize;
use serde::{Deserialize, Serialize};

use crate::{Error, Modality, Result};

/// How tokens are chosen: a plain value, to be cloned, stored and replayed. The default is the original's for
/// text to image.
///
/// Ranges are checked when a [`Sampler`](crate::Sampler) is made of it.
///
/// ```
/// use lumina_sampling::SamplingOptions;
/// let labelling = SamplingOptions::default().guidance_scale(1.0).image_top_k(200).seed(7);
/// assert_eq!(labelling.temperature, 1.0);
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingOptions {
    /// The seed of all draws. Same seed, same model, same compute: same tokens.
    pub seed: u64,
    /// Which of several answers to the same request this is; each has draws of its own.
    pub branch: u64,
    /// How strongly images follow the prompt: finite; 1 is without guidance, and saves its pass. Default 4.
    pub guidance_scale: f32,
    /// Candidates kept in an image, at least 1. Default 2000.
    pub image_top_k: usize,
    /// Candidates kept in text, at least 1. Default 10.
    pub text_top_k: usize,
    /// From 1e-6. Default 1.
    pub temperature: f32,
    /// The probability that the kept candidates cover, above 0 and up to 1. Default: all.
    pub top_p: Option<f32>,
    /// The least share of the highest probability that a candidate must have, 0 to 1. Default: none.
    pub min_p: Option<f32>,
    /// What makes words less likely that the text already contains, above 0. Default: nothing.
    pub repetition_penalty: Option<f32>,
    /// Whether to take the most likely token at each position, with no draw. Default: no.
    pub greedy: bool,
    /// What the answer is made of.
    pub modality: Modality,
    /// The size of the answer's images; without it the model states it. With [`Modality::Any`] the answer then begins
    /// with an image; with [`Modality::Text`] it has no effect, as there are no images.
    pub image_size: Option<ImageSize>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            branch: 0,
            guidance_scale: 4.0,
            image_top_k: 2000,
            text_top_k: 10,
            temperature: 1.0,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            greedy: false,
            modality: Modality::Any,
            image_size: None,
        }
    }
}

impl SamplingOptions {
    /// Sets [`seed`](Self#structfield.seed).
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
    /// Sets [`branch`](Self#structfield.branch).
    #[must_use]
    pub fn branch(self, branch: u64) -> Self {
        Self { branch, ..self }
    }
    /// Sets [`guidance_scale`](Self#structfield.guidance_scale).
    #[must_use]
    pub fn guidance_scale(self, guidance_scale: f32) -> Self {
        Self { guidance_scale, ..self }
    }
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
    /// Sets [`temperature`](Self#structfield.temperature).
    #[must_use]
    pub fn temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }
    /// Sets [`top_p`](Self#structfield.top_p).
    #[must_use]
    pub fn top_p(self, top_p: f32) -> Self {
        Self { top_p: Some(top_p), ..self }
    }
    /// Sets [`min_p`](Self#structfield.min_p).
    #[must_use]
    pub fn min_p(self, min_p: f32) -> Self {
        Self { min_p: Some(min_p), ..self }
    }
    /// Sets [`repetition_penalty`](Self#structfield.repetition_penalty).
    #[must_use]
    pub fn repetition_penalty(self, repetition_penalty: f32) -> Self {
        Self { repetition_penalty: Some(repetition_penalty), ..self }
    }
    /// Takes the most likely token at each position.
    #[must_use]
    pub fn greedy(self) -> Self {
        Self { greedy: true, ..self }
    }
    /// Sets [`modality`](Self#structfield.modality).
    #[must_use]
    pub fn modality(self, modality: Modality) -> Self {
        Self { modality, ..self }
    }
    /// Sets [`image_size`](Self#structfield.image_size).
    #[must_use]
    pub fn image_size(self, image_size: ImageSize) -> Self {
        Self { image_size: Some(image_size), ..self }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Option`], which names field, value and range.
    pub fn validate(&self) -> Result<()> {
        // The comparisons are false for NaN.
        let check = |field, value: &dyn ToString, in_range: bool, range| {
            if in_range { Ok(()) } else { Err(Error::Option { field, value: value.to_string(), range }) }
        };
        let at_least_one = "at least 1; a k as large as the vocabulary keeps every token";
        check("guidance_scale", &self.guidance_scale, self.guidance_scale.is_finite(), "a finite number")?;
        check("image_top_k", &self.image_top_k, self.image_top_k > 0, at_least_one)?;
        check("text_top_k", &self.text_top_k, self.text_top_k > 0, at_least_one)?;
        check(
            "temperature",
            &self.temperature,
            // Below that, dividing logits by it overflows.
            (1e-6..=f32::MAX).contains(&self.temperature),
            "a finite number from 1e-6; use `greedy` to take the most likely token",
        )?;
        if let Some(top_p) = self.top_p {
            check("top_p", &top_p, top_p > 0.0 && top_p <= 1.0, "above 0 and up to 1")?;
        }
        if let Some(min_p) = self.min_p {
            check("min_p", &min_p, (0.0..=1.0).contains(&min_p), "0 to 1")?;
        }
        if let Some(penalty) = self.repetition_penalty {
            check("repetition_penalty", &penalty, penalty > 0.0 && penalty.is_finite(), "a finite number above 0")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::SamplingOptions;

    #[test]
    fn what_is_out_of_range_is_named() {
        let ok = SamplingOptions::default;
        for (options, field, value) in [
            (ok().guidance_scale(f32::NAN), "guidance_scale", "NaN"),
            (ok().guidance_scale(f32::INFINITY), "guidance_scale", "inf"),
            (ok().image_top_k(0), "image_top_k", "0"),
            (ok().text_top_k(0), "text_top_k", "0"),
            (ok().temperature(0.0), "temperature", "0"),
            (ok().temperature(-1.0), "temperature", "-1"),
            (ok().temperature(f32::NAN), "temperature", "NaN"),
            (ok().temperature(f32::INFINITY), "temperature", "inf"),
            (ok().top_p(0.0), "top_p", "0"),
            (ok().top_p(1.5), "top_p", "1.5"),
            (ok().top_p(f32::NAN), "top_p", "NaN"),
            (ok().min_p(-0.5), "min_p", "-0.5"),
            (ok().min_p(f32::NAN), "min_p", "NaN"),
            (ok().repetition_penalty(0.0), "repetition_penalty", "0"),
            (ok().repetition_penalty(f32::INFINITY), "repetition_penalty", "inf"),
        ] {
            let message = options.validate().unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}` is {value}, but must be ")), "{message}");
        }
        assert!(ok().temperature(0.0).validate().unwrap_err().to_string().contains("use `greedy`"));
        assert_eq!(ok().validate(), Ok(()));
    }

    #[test]
    fn options_are_stored_and_read_back() {
        let size = lumina_core::ImageSize::new(512, 768).unwrap();
        let options = SamplingOptions::default().seed(u64::MAX).top_p(0.9).greedy().image_size(size);
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<SamplingOptions>(&json).unwrap(), options);
        assert_eq!(serde_json::from_str::<SamplingOptions>("{}").unwrap(), SamplingOptions::default());
        assert!(serde_json::from_str::<SamplingOptions>(r#"{"topp": 1}"#).unwrap_err().to_string().contains("topp"));
    }
}
