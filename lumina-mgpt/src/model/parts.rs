//! The parts of an opened model.

use std::sync::Mutex;

use lumina_core::Limits;
use lumina_sampling::speculation::WindowChooser;
use lumina_tokenizer::UniRep;
use lumina_vq::ImageTokenizer;

use super::transformer::Transformer;
use crate::{Error, Result};

/// What turns a request into an answer: transformer and tokenizers.
pub(crate) struct ModelParts {
    pub(crate) transformer: Transformer,
    pub(crate) unirep: UniRep,
    pub(crate) image_tokenizer: Option<ImageTokenizer>,
    pub(crate) limits: Limits,
    /// How many drafts pay here, as all requests so far have found.
    pub(crate) windows: Mutex<WindowChooser>,
}

impl ModelParts {
    /// The image tokenizer.
    ///
    /// # Errors
    /// [`Error::NoImageTokenizer`] where there is none.
    pub(crate) fn image_tokenizer(&self) -> Result<&ImageTokenizer> {
        self.image_tokenizer.as_ref().ok_or(Error::NoImageTokenizer)
    }
}
