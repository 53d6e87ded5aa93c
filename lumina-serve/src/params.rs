//! The fields of requests for images: which there are, and which values do something.

use lumina_mgpt::{GenerateOptions, ImageSize, Task};
use serde::Deserialize;

use crate::answer::random_seed;
use crate::app::App;
use crate::encode::Format;
use crate::error::{ApiError, ApiResult};
use crate::list::{List, TextOrList};

/// Fields of requests for images that are numbers or truth values, also in a form.
pub(crate) const NUMBERS: [&str; 12] = [
    "n",
    "output_compression",
    "stream",
    "partial_images",
    "row_events",
    "seed",
    "guidance_scale",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "deadline_ms",
];

/// A request for images. Those of OpenAI's fields that would change the result, and cannot, are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImageParams {
    pub(crate) prompt: Option<String>,
    pub(crate) model: Option<String>,
    n: Option<u32>,
    size: Option<String>,
    response_format: Option<String>,
    output_format: Option<Format>,
    output_compression: Option<u8>,
    pub(crate) stream: Option<bool>,
    partial_images: Option<u32>,
    quality: Option<String>,
    style: Option<String>,
    background: Option<String>,
    moderation: Option<String>,
    user: Option<String>,
    safety_identifier: Option<String>,
    // What OpenAI does not have.
    seed: Option<u64>,
    row_events: Option<bool>,
    deadline_ms: Option<u64>,
    guidance_scale: Option<f32>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    // Of edits alone.
    pub(crate) task: Option<String>,
    pub(crate) image: Option<TextOrList<String>>,
    pub(crate) images: Option<List<ImageReference>>,
    pub(crate) mask: Option<serde::de::IgnoredAny>,
    pub(crate) input_fidelity: Option<String>,
}

/// An image of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageReference {
    pub(crate) image_url: Option<String>,
    pub(crate) file_id: Option<String>,
}

/// What of a request for images is about the answer: how many, and how they are sent.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) n: u32,
    /// The size that is asked for; `None` for `auto`.
    pub(crate) size: Option<ImageSize>,
    pub(crate) format: Format,
    pub(crate) quality: u8,
    pub(crate) stream: bool,
    pub(crate) partial_images: u32,
    pub(crate) row_events: bool,
    /// That of the first image; each further one has the next.
    pub(crate) seed: u64,
    sampling: SamplingParams,
    deadline_ms: Option<u64>,
}

/// How tokens are drawn, as a request says it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SamplingParams {
    pub(crate) guidance_scale: Option<f32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) image_top_k: Option<usize>,
    pub(crate) text_top_k: Option<usize>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
}

impl SamplingParams {
    /// The options with these values in the place of theirs. A temperature of 0 means the likeliest token.
    pub(crate) fn apply(self, mut options: GenerateOptions) -> GenerateOptions {
        let sampling = &mut options.sampling;
        match self.temperature {
            Some(0.0) => sampling.greedy = true,
            Some(temperature) => sampling.temperature = temperature,
            None => {}
        }
        sampling.guidance_scale = self.guidance_scale.unwrap_or(sampling.guidance_scale);
        sampling.image_top_k = self.image_top_k.unwrap_or(sampling.image_top_k);
        sampling.text_top_k = self.text_top_k.unwrap_or(sampling.text_top_k);
        sampling.top_p = self.top_p.or(sampling.top_p);
        sampling.min_p = self.min_p.or(sampling.min_p);
        options
    }
}

impl ImageParams {
    /// Checks what all requests for images have in common.
    ///
    /// # Errors
    /// The field to change.
    pub(crate) fn plan(&self, app: &App) -> ApiResult<Plan> {
        app.check_model(self.model.as_deref())?;
        self.refuse_what_would_change_the_result()?;
        let (n, max_n) = (self.n.unwrap_or(1), app.options.max_n);
        if !(1..=max_n).contains(&n) {
            return Err(ApiError::bad("n", format!("`n` is {n}, expected 1 to {max_n}")));
        }
        let stream = self.stream.unwrap_or(false);
        for (name, given) in
            [("partial_images", self.partial_images.unwrap_or(0) > 0), ("row_events", self.row_events())]
        {
            if given && !stream {
                return Err(ApiError::bad(name, format!("`{name}` needs `\"stream\": true`")));
            }
        }
        let (format, quality) = (self.output_format.unwrap_or_default(), self.output_compression.unwrap_or(100));
        if quality > 100 || (quality < 100 && format != Format::Jpeg) {
            let message = format!(
                "`output_compression` is {quality}, expected 0 to 100 with `\"output_format\": \"jpeg\"`; \
                 png and webp are written without loss"
            );
            return Err(ApiError::bad("output_compression", message));
        }
        Ok(Plan {
            n,
            size: parse_size(self.size.as_deref())?,
            format,
            quality,
            stream,
            partial_images: self.partial_images.unwrap_or(0),
            row_events: self.row_events(),
            seed: self.seed.unwrap_or_else(random_seed),
            sampling: SamplingParams {
                guidance_scale: self.guidance_scale,
                temperature: self.temperature,
                image_top_k: self.top_k,
                text_top_k: None,
                top_p: self.top_p,
                min_p: self.min_p,
            },
            deadline_ms: self.deadline_ms,
        })
    }

    fn row_events(&self) -> bool {
        self.row_events.unwrap_or(false)
    }

    fn refuse_what_would_change_the_result(&self) -> ApiResult<()> {
        let refusals: [(&str, Option<&str>, &[&str], &str); 6] = [
            (
                "response_format",
                self.response_format.as_deref(),
                &["b64_json"],
                "nothing is stored, so there is no URL",
            ),
            ("quality", self.quality.as_deref(), &["auto", "standard"], "the model has one quality"),
            ("style", self.style.as_deref(), &[], "describe the style in the prompt"),
            ("background", self.background.as_deref(), &["auto", "opaque"], "images are opaque"),
            ("moderation", self.moderation.as_deref(), &["auto", "low"], "there is no moderation"),
            ("input_fidelity", self.input_fidelity.as_deref(), &["low"], "the model has one way to read an image"),
        ];
        for (name, value, accepted, why) in refusals {
            if let Some(value) = value.filter(|value| !accepted.contains(value)) {
                let value = value.escape_debug();
                let instead = match accepted {
                    [] => "leave it out".to_owned(),
                    accepted => format!("leave it out, or give {}", accepted.join(" or ")),
                };
                return Err(ApiError::bad(name, format!("`{name}` cannot be `{value}`: {why}; {instead}")));
            }
        }
        // Of use to those who bill or watch, which this server does not.
        let _ = (&self.user, &self.safety_identifier);
        Ok(())
    }
}

impl Plan {
    /// The options of the first image, from those of the model; `rows` is how many rows of codes it will have.
    pub(crate) fn apply(&self, options: GenerateOptions, rows: u32) -> GenerateOptions {
        let mut options = self.sampling.apply(options).sampling(|sampling| sampling.seed(self.seed));
        options.deadline_ms = self.deadline_ms.or(options.deadline_ms);
        options.preview_every_rows =
            (self.partial_images > 0).then(|| rows.div_ceil(self.partial_images.saturating_add(1)).max(1));
        options
    }
}

/// Reads the name of a task.
pub(crate) fn parse_task(name: &str) -> ApiResult<Task> {
    name.parse().map_err(|error: lumina_tokenizer::Error| ApiError::bad("task", error.to_string()))
}

/// Reads a size such as `96x96`; `None` for `auto`.
pub(crate) fn parse_size(size: Option<&str>) -> ApiResult<Option<ImageSize>> {
    let Some(size) = size.filter(|&size| size != "auto") else { return Ok(None) };
    let sides = size.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let Some((width, height)) = sides else {
        let message = format!("`size` is `{}`, expected WIDTHxHEIGHT, such as 96x96, or auto", size.escape_debug());
        return Err(ApiError::bad("size", message));
    };
    Ok(Some(ImageSize::new(width, height).map_err(lumina_mgpt::Error::from)?))
}
