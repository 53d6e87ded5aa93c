//! What a checkpoint says of how it is used: the section `lumina` of its `generation_config.json`.

use std::path::Path;

use lumina_checkpoint::Checkpoint;
use lumina_core::{Cause, ImageSize};
use lumina_sampling::{Modality, SamplingOptions};
use lumina_tokenizer::{Task, TaskInput, TaskOutput};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::folder;
use crate::words::Words;
use crate::{Error, Result};

/// The sampling, sizes, tasks and words that a model was made for, which are the defaults of
/// [`Lumina`](crate::Lumina). What is not stated is as for the published models.
///
/// The section `lumina` of `generation_config.json`, an addition of this library: other programs pass it over.
///
/// ```
/// let preset: lumina_mgpt::Preset = serde_json::from_str(
///     r#"{ "target_size_px": 96, "guidance_scale": 1.5, "image_top_k": 5, "tasks": ["text_to_image", "captioning"]
/// }"#, )?;
/// assert_eq!(preset.target_size_px, Some(96));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Preset {
    /// The size that input images are resized to, about so many pixels a side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_size_px: Option<u32>,
    /// How strongly images follow the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f32>,
    /// Candidates kept in an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_top_k: Option<usize>,
    /// Candidates kept in text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_top_k: Option<usize>,
    /// The temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// The tasks that the model has learnt; others are refused. Without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Task>>,
    /// Tasks whose image comes after text that says what it shows ([`Modality::TextThenImage`]). Without it, none: the
    /// image comes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub described_tasks: Option<Vec<Task>>,
    /// Width and height in pixels of the images that the model has learnt; others are refused. Input images are resized
    /// to one of these sizes, unless [`target_size_px`](crate::LuminaBuilder::target_size_px) is set. Without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_sizes: Option<Vec<(u32, u32)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Words>,
}

/// The section of `generation_config.json`.
const SECTION: &str = "lumina";

/// What a model can state in its stream, which the sizes of a preset must respect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeLimits {
    /// The longest side that has a size token, in pixels.
    pub(crate) largest_px: u32,
    /// Tokens that a sequence can have.
    pub(crate) context: usize,
}

impl Preset {
    /// That of a checkpoint. GGUF files have none, but for the `generation_config.json` beside them.
    ///
    /// # Errors
    /// [`Error::GenerationConfig`] where the file is no JSON, [`Error::Preset`] where a value cannot be used.
    pub(crate) fn of_checkpoint(checkpoint: &Checkpoint, limits: SizeLimits) -> Result<Self> {
        let file = folder(checkpoint).join("generation_config.json");
        let Some(bytes) = checkpoint.document("generation_config.json")? else { return Ok(Self::default()) };
        Self::from_json(&bytes, &file, limits)
    }

    fn from_json(bytes: &[u8], file: &Path, limits: SizeLimits) -> Result<Self> {
        let refuse = |key: &str, value: String, expected: String| {
            let (file, key) = (file.to_owned(), key.to_owned());
            Error::Preset { file, key, value, expected }
        };
        let of_section = |key: &str| format!("`{key}` in the section `{SECTION}`");
        let document: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::GenerationConfig { file: file.to_owned(), source: Cause::new(&error) })?;
        let Value::Object(mut document) = document else {
            return Err(refuse("the file", document.to_string(), "an object, as in {}".to_owned()));
        };
        let section = match document.remove(SECTION) {
            None => return Ok(Self::default()),
            Some(Value::Object(section)) => section,
            Some(other) => {
                let key = format!("the section `{SECTION}`");
                return Err(refuse(&key, other.to_string(), "an object, as in {\"target_size_px\": 512}".to_owned()));
            }
        };
        // Key by key, so that an error names it.
        for (key, value) in &section {
            let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
            if let Err(error) = serde_json::from_value::<Self>(alone) {
                let cause = error.to_string();
                let expected = match cause.strip_prefix("unknown field ").and_then(|rest| rest.split_once("expected "))
                {
                    Some((_, keys)) => format!("another key: {keys}"),
                    None => format!("another value ({})", Cause::new(&error)),
                };
                return Err(refuse(&of_section(key), value.to_string(), expected));
            }
        }
        let shown = |key: &str| section.get(key).unwrap_or(&Value::Null).to_string();
        let preset: Self = serde_json::from_value(Value::Object(section.clone()))
            .map_err(|error| Error::GenerationConfig { file: file.to_owned(), source: Cause::new(&error) })?;
        match preset.apply(SamplingOptions::default(), None).validate() {
            Err(lumina_sampling::Error::Option { field, value, range }) => {
                // What comes after it is about options that a preset does not have.
                let range = range.split(';').next().unwrap_or(range);
                return Err(refuse(&of_section(field), value, range.to_owned()));
            }
            other => other?,
        }
        preset.check(limits).map_err(|(key, expected)| refuse(&of_section(key), shown(key), expected))?;
        Ok(preset)
    }

    /// Checks what can be checked without the weights. An error is a key and what its value can be.
    fn check(&self, limits: SizeLimits) -> std::result::Result<(), (&'static str, String)> {
        if let Some(Err(error)) = self.target_size_px.map(lumina_core::crop_sizes) {
            return Err(("target_size_px", format!("another size ({error})")));
        }
        if self.tasks.as_ref().is_some_and(Vec::is_empty) {
            return Err(("tasks", "at least one task".to_owned()));
        }
        let described = self.described_tasks.as_deref().unwrap_or_default();
        if let Some(task) = described.iter().find(|task| task.spec().output != TaskOutput::Image) {
            return Err(("described_tasks", format!("tasks that draw one image, which `{task}` does not")));
        }
        let Some(sizes) = &self.image_sizes else { return Ok(()) };
        let SizeLimits { largest_px, context } = limits;
        let refuse = |expected: String| Err(("image_sizes", expected));
        if sizes.is_empty() {
            return refuse("at least one size, as in [[512, 512]]".to_owned());
        }
        for &(width, height) in sizes {
            match ImageSize::new(width, height) {
                Err(error) => return refuse(format!("sizes in pixels that images can have ({error})")),
                Ok(size) if width.max(height) > largest_px => {
                    return refuse(format!(
                        "sizes up to {largest_px} pixels a side, as the tokenizer has size tokens, not {size}"
                    ));
                }
                Ok(size) if size.n_tokens() >= context => {
                    let tokens = size.n_tokens();
                    return refuse(format!("sizes that fit the model's {context} tokens; {size} takes {tokens}"));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The sizes of images that the model has learnt, where it states them.
    pub fn sizes(&self) -> Option<Vec<ImageSize>> {
        let sizes = self.image_sizes.as_ref()?;
        Some(sizes.iter().filter_map(|&(width, height)| ImageSize::new(width, height).ok()).collect())
    }

    /// The words that the model has learnt, where it states them. Models of many words do not.
    pub fn words(&self) -> Option<&Words> {
        self.words.as_ref()
    }

    /// States the words that the model has learnt, key `words`: all that users may say, such as [`Words::of`] the
    /// captions, instructions and questions of the training data. Without a word nothing is stated.
    #[must_use]
    pub fn with_words(self, words: Words) -> Self {
        Self { words: Some(words).filter(|words| !words.is_empty()), ..self }
    }

    /// One line that names the words of a text that the model has not learnt and those that it knows, of either the
    /// first ones where there are many. `None` where it knows all, or does not state its words.
    ///
    /// ```
    /// # use lumina_mgpt::{Preset, Words};
    /// let preset = Preset::default().with_words(Words::of(["a red circle", "a blue square"]));
    /// assert_eq!(
    ///     preset.word_warning("a red dragon").as_deref(),
    ///     Some("this model has not learnt \"dragon\"; it knows: a, blue, circle, red, square")
    /// );
    /// assert_eq!(preset.word_warning("a red circle"), None);
    /// ```
    pub fn word_warning(&self, text: &str) -> Option<String> {
        self.words.as_ref()?.warning(text)
    }

    /// A task's sampling, or that of a conversation, with what is stated here.
    pub(crate) fn apply(&self, mut sampling: SamplingOptions, task: Option<Task>) -> SamplingOptions {
        let described = self.described_tasks.as_deref().unwrap_or_default();
        if task.is_some_and(|task| described.contains(&task)) {
            sampling.modality = Modality::TextThenImage;
        }
        if let Some(scale) = self.guidance_scale {
            sampling.guidance_scale = scale;
        }
        if let Some(k) = self.image_top_k {
            sampling.image_top_k = k;
        }
        if let Some(k) = self.text_top_k {
            sampling.text_top_k = k;
        }
        if let Some(temperature) = self.temperature {
            sampling.temperature = temperature;
        }
        sampling
    }

    /// Checks that the model has learnt a task, at the size that is asked for, and that it has all of its input.
    ///
    /// # Errors
    /// [`Error::UnknownTask`], [`Error::UnknownSize`] and [`lumina_tokenizer::Error::TaskInput`].
    pub(crate) fn check_input(&self, task: Task, input: &TaskInput) -> Result<()> {
        self.check_task(task)?;
        if let Some(size) = input.size {
            self.check_size(size)?;
        }
        Ok(task.check(input)?)
    }

    fn check_task(&self, task: Task) -> Result<()> {
        match &self.tasks {
            Some(tasks) if !tasks.contains(&task) => Err(Error::UnknownTask {
                task: task.spec().name,
                known: tasks.iter().map(|task| task.spec().name).collect::<Vec<_>>().join(", "),
            }),
            _ => Ok(()),
        }
    }

    /// Checks that the model has learnt to draw images of a size.
    ///
    /// # Errors
    /// [`Error::UnknownSize`].
    pub fn check_size(&self, size: ImageSize) -> Result<()> {
        match &self.image_sizes {
            Some(sizes) if !sizes.contains(&(size.width_px(), size.height_px())) => {
                let names: Vec<String> = sizes.iter().map(|(width, height)| format!("{width}x{height}")).collect();
                Err(Error::UnknownSize { size, known: names.join(", ") })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(json: &str) -> Result<Preset> {
        let limits = SizeLimits { largest_px: 1024, context: 4096 };
        Preset::from_json(json.as_bytes(), "generation_config.json".as_ref(), limits)
    }

    #[test]
    fn what_other_programs_write_states_nothing() {
        let json = r#"{ "_from_model_config": true, "eos_token_id": [2, 8710], "temperature": 0.7, "top_k": 50 }"#;
        assert_eq!(preset(json).unwrap(), Preset::default());
        let sampling = SamplingOptions::default().seed(3);
        assert_eq!(Preset::default().apply(sampling.clone(), Some(Task::Editing)), sampling);
    }

    #[test]
    fn tasks_and_sizes_that_are_not_stated_are_refused() {
        let json = r#"{ "lumina": { "tasks": ["depth_estimation"], "image_sizes": [[96, 96], [64, 128]] } }"#;
        let preset = preset(json).unwrap();
        assert!(preset.check_task(Task::DepthEstimation).is_ok());
        let message = preset.check_task(Task::Editing).unwrap_err().to_string();
        assert!(message.contains("`editing`") && message.contains("depth_estimation"), "{message}");
        assert!(preset.check_size(ImageSize::new(64, 128).unwrap()).is_ok());
        let message = preset.check_size(ImageSize::new(128, 64).unwrap()).unwrap_err().to_string();
        assert!(message.contains("128x64") && message.contains("96x96, 64x128"), "{message}");
    }

    #[test]
    fn an_image_comes_after_text_in_the_tasks_that_are_stated() {
        let preset = preset(r#"{ "lumina": { "described_tasks": ["editing"] } }"#).unwrap();
        let modality = |task: Option<Task>| {
            let options = SamplingOptions::default().modality(Modality::Image);
            preset.apply(options, task).modality
        };
        assert_eq!(modality(Some(Task::Editing)), Modality::TextThenImage);
        assert_eq!(modality(Some(Task::TextToImage)), Modality::Image);
        assert_eq!(modality(None), Modality::Image);
    }

    #[test]
    fn words_are_stated_or_nothing_is_said_of_them() {
        let stated = preset(r#"{ "lumina": { "words": ["red", "Circle", "a"] } }"#).unwrap();
        assert_eq!(stated.words().unwrap().iter().collect::<Vec<_>>(), ["a", "circle", "red"]);
        let warning = stated.word_warning("A red dragon").unwrap();
        assert_eq!(warning, "this model has not learnt \"dragon\"; it knows: a, circle, red");
        assert_eq!(stated.word_warning("a RED circle"), None);
        let written = serde_json::json!({ "lumina": Preset::default().with_words(Words::of(["a red circle"])) });
        assert_eq!(preset(&written.to_string()).unwrap(), stated);

        for nothing in [Preset::default(), Preset::default().with_words(Words::of([""]))] {
            assert_eq!((nothing.words(), nothing.word_warning("a dragon")), (None, None));
            assert_eq!(serde_json::to_string(&nothing).unwrap(), "{}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_by_file_key_and_value() {
        for (json, says) in [
            ("[]", &["the file is `[]`", "object"][..]),
            (r#"{ "lumina": [] }"#, &["section `lumina` is `[]`", "object"]),
            (r#"{ "lumina": null }"#, &["section `lumina` is `null`", "object"]),
            (r#"{ "lumina": { "guidance": 4 } }"#, &["`guidance` in", "`4`", "another key", "`guidance_scale`"]),
            (r#"{ "lumina": { "image_top_k": "many" } }"#, &["`image_top_k`", "`\"many\"`"]),
            (r#"{ "lumina": { "temperature": -1 } }"#, &["`temperature`", "-1", "a finite number"]),
            (r#"{ "lumina": { "target_size_px": 3 } }"#, &["`target_size_px`", "`3`"]),
            (r#"{ "lumina": { "tasks": [] } }"#, &["`tasks`", "`[]`", "at least one task"]),
            (r#"{ "lumina": { "tasks": ["painting"] } }"#, &["`tasks`", "painting", "text_to_image"]),
            (r#"{ "lumina": { "described_tasks": ["editing", "captioning"] } }"#, &["`captioning`", "draw one image"]),
            (r#"{ "lumina": { "image_sizes": [] } }"#, &["`image_sizes`", "`[]`", "at least one size"]),
            (r#"{ "lumina": { "image_sizes": [[96, 96], [1, 2]] } }"#, &["`image_sizes`", "[1,2]", "32"]),
            (r#"{ "lumina": { "image_sizes": [[96, 2048]] } }"#, &["`image_sizes`", "[96,2048]", "1024"]),
            (r#"{ "lumina": { "image_sizes": [[1024, 1024]] } }"#, &["`image_sizes`", "4164", "4096"]),
            (r#"{ "lumina": { "words": [] } }"#, &["`words`", "`[]`", "at least one word"]),
            (r#"{ "lumina": { "words": "red" } }"#, &["`words`", "`\"red\"`", "sequence"]),
            (r#"{ "lumina": { "words": ["red", 2] } }"#, &["`words`", "string"]),
            (r#"{ "lumina": { "words": ["sky blue"] } }"#, &["`words`", "letters, digits", "`sky blue`"]),
        ] {
            let error = preset(json).unwrap_err().to_string();
            for part in ["generation_config.json: ", "correct it or remove it"].iter().chain(says) {
                assert!(error.contains(part), "{json}: {error}: {part}");
            }
        }
        let error = preset("{").unwrap_err();
        assert!(error.to_string().starts_with("generation_config.json: not a JSON file"), "{error}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("line 1"), "{error:?}");
    }
}
