//! The options of a request.

use lumina_core::ImageSize;
use serde::{Deserialize, Serialize};

use crate::sampler::NamedStep;
use crate::step::BuiltIn;
use crate::{DrawRule, Error, MinP, Modality, RepetitionPenalty, Result, Speculation, Temperature, TopK, TopP};

/// Declares [`SamplingOptions`]: each option with its type and its default, and after the arrow the built-in step that
/// it controls. Steps run in the order of this table.
macro_rules! sampling_options {
    ($($(#[$attribute:meta])* $option:ident: $type:ty = $default:expr $(=> $step:ty)?,)+) => {
        /// How tokens are chosen: a plain value, to be cloned, stored and replayed. The default is the original's for
        /// text to image.
        ///
        /// Ranges are checked when a [`Sampler`](crate::Sampler) is built from it.
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
            $($(#[$attribute])* pub $option: $type,)+
        }

        impl Default for SamplingOptions {
            fn default() -> Self {
                Self { $($option: $default,)+ }
            }
        }

        impl SamplingOptions {
            /// The built-in steps that the options ask for, in the order in which they run.
            pub(crate) fn steps(&self) -> Result<Vec<NamedStep>> {
                let mut steps = Vec::new();
                $($(self.add_step::<$step>(&mut steps)?;)?)+
                Ok(steps)
            }
        }
    };
}

sampling_options! {
    /// The seed of all draws. Same seed, same rule of the draw, same model, same compute: same tokens.
    seed: u64 = 0,
    /// Which of several answers to the same request this is; each has its own draws.
    branch: u64 = 0,
    /// How seed and branch make the draws. Default: [`DrawRule::Race`].
    draw: DrawRule = DrawRule::Race,
    /// Whether to choose the most likely token at each position, without a draw. Default: no.
    greedy: bool = false,
    /// What the answer is made of.
    modality: Modality = Modality::Any,
    /// The size of the answer's images; `None` lets the model state it. With [`Modality::Any`] the answer then begins
    /// with an image; with [`Modality::Text`] it has no effect, as there are no images.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_size: Option<ImageSize> = None,
    /// How strongly images follow the prompt: finite; 1 is without guidance, and saves its pass. Default 4.
    guidance_scale: f32 = 4.0,
    /// How much less likely tokens become that the text already contains, above 0. Default: no less.
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f32> = None => RepetitionPenalty,
    /// Candidates kept in an image, at least 1. Default 2000.
    image_top_k: usize = 2000 => TopK,
    /// Candidates kept in text, at least 1. Default 10.
    text_top_k: usize = 10,
    /// From 1e-6. Default 1.
    temperature: f32 = 1.0 => Temperature,
    /// The probability that the kept candidates cover, above 0 and up to 1. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32> = None => TopP,
    /// The lowest probability of a candidate that is kept, as a fraction of the highest, 0 to 1. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32> = None => MinP,
    /// How many tokens a pass may try: the same tokens in less time. Default: as many as pay.
    speculation: Speculation = Speculation::Auto,
}

impl SamplingOptions {
    /// Whether images are drawn with top-k and temperature alone.
    pub(crate) fn has_plain_draws(&self) -> bool {
        !self.greedy && self.repetition_penalty.is_none() && self.top_p.is_none() && self.min_p.is_none()
    }

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
    /// Sets [`draw`](Self#structfield.draw).
    #[must_use]
    pub fn draw(self, draw: DrawRule) -> Self {
        Self { draw, ..self }
    }
    /// Chooses the most likely token at each position.
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
    /// Sets [`guidance_scale`](Self#structfield.guidance_scale).
    #[must_use]
    pub fn guidance_scale(self, guidance_scale: f32) -> Self {
        Self { guidance_scale, ..self }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Option`], which names field, value and range.
    pub fn validate(&self) -> Result<()> {
        let finite = self.guidance_scale.is_finite();
        check_range("guidance_scale", self.guidance_scale, finite, "a finite number")?;
        self.speculation.validate()?;
        self.steps().map(drop)
    }

    /// Adds the step if the options ask for it.
    fn add_step<S: BuiltIn>(&self, steps: &mut Vec<NamedStep>) -> Result<()> {
        if let Some(step) = S::from_options(self)?
            && (S::CHANGES_MOST_LIKELY || !self.greedy)
        {
            steps.push(NamedStep::new(step));
        }
        Ok(())
    }
}

/// Fails with [`Error::Option`] unless `in_range`, which callers write so that it is false for NaN.
pub(crate) fn check_range(
    field: &'static str,
    value: impl ToString,
    in_range: bool,
    range: &'static str,
) -> Result<()> {
    if in_range { Ok(()) } else { Err(Error::Option { field, value: value.to_string(), range }) }
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
        assert!(json.contains(r#""draw":"race""#), "{json}");
        let unknown = serde_json::from_str::<SamplingOptions>(r#"{"draw": "inverse"}"#).unwrap_err().to_string();
        assert!(unknown.contains("inverse") && unknown.contains("race"), "{unknown}");
        assert!(serde_json::from_str::<SamplingOptions>(r#"{"topp": 1}"#).unwrap_err().to_string().contains("topp"));
    }
}
