//! A request, as a value: it can be stored, serialised, and asked again.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lumina_core::ImageSize;
use lumina_sampling::{Modality, SamplingOptions};
use lumina_tokenizer::{Conversation, Malformed, Part, Task, TaskInput, TaskOutput};

use crate::{Error, Result};

/// What to answer, and options for the answer.
///
/// The same request on the same model and compute target gives the same tokens, streamed or not; also in any batch,
/// unless the transformer computes in Burn's tensors ([`Compute::in_tensors`](crate::Compute::in_tensors)). Their
/// products may round otherwise for another number of rows, which can tip the balance between two tokens that are all
/// but equal.
/// Images are stored as codes, so it is small.
///
/// A request can be read from what a client sends (serde): names of special tokens in its texts are plain text,
/// whatever it says ([`Conversation`]), and keys that are not known, such as a misspelt limit, are errors. Options that
/// are left out are those of the task in the original ([`GenerateOptions::of_task`]);
/// [`Lumina::read_request`](crate::Lumina::read_request) takes the model's.
///
/// ```
/// use lumina_mgpt::Request;
/// let request: Request = serde_json::from_str(
///     r#"{ "task": "text_to_image", "prompt": "a red circle", "size": [768, 512],
///          "options": { "sampling": { "seed": 7 } } }"#,
/// )?;
/// assert_eq!(request.options.sampling.guidance_scale, 4.0);
/// let chat: Request = serde_json::from_str(
///     r#"{ "conversation": { "turns": [{ "role": "human", "content": "Hello" }] } }"#,
/// )?;
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// What to answer.
    pub prompt: Prompt,
    /// How to answer.
    pub options: GenerateOptions,
}

/// What a [`Request`] asks: a conversation whose last turn is the human's, or a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// The conversation to continue.
    Conversation(Conversation),
    /// A task by its name, whose prompt [`Task::prompt`] makes.
    Task(Task, TaskInput),
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Conversation(Conversation::default())
    }
}

impl Prompt {
    /// The conversation that the model is given.
    ///
    /// # Errors
    /// [`lumina_tokenizer::Error::TaskInput`] where the task takes more input, or less, and [`Error::EmptyPrompt`]
    /// where the last turn of a conversation says nothing.
    pub fn conversation(&self) -> Result<Cow<'_, Conversation>> {
        let is_empty = |part: &Part| matches!(part, Part::Text(text) if text.trim().is_empty());
        Ok(match self {
            Self::Conversation(Conversation { turns, .. })
                if turns.last().is_some_and(|turn| turn.content.0.iter().all(is_empty)) =>
            {
                return Err(Error::EmptyPrompt);
            }
            Self::Conversation(conversation) => Cow::Borrowed(conversation),
            Self::Task(task, input) => Cow::Owned(Conversation::new().human(task.prompt(input.clone())?)),
        })
    }
}

impl From<Conversation> for Prompt {
    fn from(conversation: Conversation) -> Self {
        Self::Conversation(conversation)
    }
}

impl Request {
    /// A request to continue a conversation, with the default options.
    pub fn new(conversation: Conversation) -> Self {
        Self { prompt: conversation.into(), options: GenerateOptions::default() }
    }

    /// A request for a task, with the options of the original.
    pub fn task(task: Task, input: TaskInput) -> Self {
        let options = GenerateOptions::of_task(task, input.size);
        Self { prompt: Prompt::Task(task, input), options }
    }

    /// Changes the options.
    #[must_use]
    pub fn with(self, change: impl FnOnce(GenerateOptions) -> GenerateOptions) -> Self {
        Self { options: change(self.options), ..self }
    }
}

/// How an answer is generated, and when it ends at the latest.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateOptions {
    /// How tokens are drawn: seed, guidance scale, top-k, temperature, modality.
    pub sampling: SamplingOptions,
    /// The most tokens to generate, those that the grammar forces included; at least 1.
    pub max_new_tokens: usize,
    /// Ends the answer after this many images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_images: Option<usize>,
    /// Ends the answer after this many milliseconds, with what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Emits a partial image each time that this many rows are complete, but for the last ones, after which the image
    /// comes. Each costs a decode of these rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_every_rows: Option<u32>,
    /// How an image that is cut off or malformed is reported: as an error, or with its complete rows.
    pub malformed: Malformed,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            sampling: SamplingOptions::default(),
            max_new_tokens: 8192,
            max_images: None,
            deadline_ms: None,
            preview_every_rows: None,
            malformed: Malformed::Partial,
        }
    }
}

impl GenerateOptions {
    /// The options of the original for a task, for an image of this size if it is given.
    pub fn of_task(task: Task, size: Option<ImageSize>) -> Self {
        let spec = task.spec();
        let modality = match spec.output {
            TaskOutput::Text => Modality::Text,
            TaskOutput::Image => Modality::Image,
            TaskOutput::Any => Modality::Any,
        };
        let sampling = SamplingOptions::default()
            .guidance_scale(spec.defaults.guidance_scale)
            .image_top_k(spec.defaults.image_top_k)
            .text_top_k(spec.defaults.text_top_k)
            .temperature(spec.defaults.temperature)
            .modality(modality);
        let sampling = size.into_iter().fold(sampling, SamplingOptions::image_size);
        Self { sampling, max_new_tokens: spec.defaults.max_new_tokens, ..Self::default() }
    }

    /// Those of [`GenerateOptions::of_task`], or the defaults where there is no task.
    pub(crate) fn of(task: Option<(Task, Option<ImageSize>)>) -> Self {
        task.map_or_else(Self::default, |(task, size)| Self::of_task(task, size))
    }

    /// Changes [`sampling`](Self#structfield.sampling).
    #[must_use]
    pub fn sampling(self, change: impl FnOnce(SamplingOptions) -> SamplingOptions) -> Self {
        Self { sampling: change(self.sampling), ..self }
    }
    /// Sets [`max_new_tokens`](Self#structfield.max_new_tokens).
    #[must_use]
    pub fn max_new_tokens(self, max_new_tokens: usize) -> Self {
        Self { max_new_tokens, ..self }
    }
    /// Sets [`max_images`](Self#structfield.max_images).
    #[must_use]
    pub fn max_images(self, max_images: usize) -> Self {
        Self { max_images: Some(max_images), ..self }
    }
    /// Sets [`deadline_ms`](Self#structfield.deadline_ms).
    #[must_use]
    pub fn deadline_ms(self, deadline_ms: u64) -> Self {
        Self { deadline_ms: Some(deadline_ms), ..self }
    }
    /// Sets [`preview_every_rows`](Self#structfield.preview_every_rows).
    #[must_use]
    pub fn preview_every_rows(self, rows: u32) -> Self {
        Self { preview_every_rows: Some(rows), ..self }
    }
    /// Sets [`malformed`](Self#structfield.malformed).
    #[must_use]
    pub fn malformed(self, malformed: Malformed) -> Self {
        Self { malformed, ..self }
    }

    /// Checks what the sampler does not check itself.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |field, value: String, expected| Err(Error::Option { field, value, expected });
        match self {
            Self { max_new_tokens: 0, .. } => refuse("max_new_tokens", "0".to_owned(), "at least 1"),
            Self { max_images: Some(0), .. } => {
                refuse("max_images", "0".to_owned(), "at least 1, or none for no limit")
            }
            Self { preview_every_rows: Some(0), .. } => {
                refuse("preview_every_rows", "0".to_owned(), "at least 1, or none for no previews")
            }
            _ => Ok(()),
        }
    }
}

/// Stops a generation from another thread; clones stop the same one.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A token that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the generation before its next pass; what has been generated is kept.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has been used.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
