//! A request, as a value: it can be stored, serialised, and asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lumina_sampling::SamplingOptions;
use lumina_tokenizer::{Conversation, Malformed};

use crate::{Error, Result};

/// A conversation whose last turn is the human's, and options for its answer.
///
/// The same request on the same model and compute target gives the same tokens, streamed or not; also in any batch,
/// unless the transformer computes in Burn's tensors ([`Compute::in_tensors`](crate::Compute::in_tensors)). Their
/// products may round otherwise for another number of rows, which can tip the balance between two tokens that are all
/// but equal.
/// Images are stored as codes, so it is small.
///
/// A request can be read from what a client sends (serde): names of special tokens in its texts are plain text,
/// whatever it says ([`Conversation`]), and keys that are not known, such as a misspelt limit, are errors.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The conversation to continue.
    pub conversation: Conversation,
    /// How to answer.
    #[serde(default)]
    pub options: GenerateOptions,
}

impl Request {
    /// A request with the default options.
    pub fn new(conversation: Conversation) -> Self {
        Self { conversation, options: GenerateOptions::default() }
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
    pub max_images: Option<usize>,
    /// Ends the answer after this many milliseconds, with what is there.
    pub deadline_ms: Option<u64>,
    /// Emits a partial image each time that this many rows are complete. Each costs a decode of these rows.
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
