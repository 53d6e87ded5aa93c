//! The parts of an opened model.

use std::sync::Mutex;

use lumina_core::Limits;
use lumina_sampling::speculation::{Speculation, WindowChooser};
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
    /// How many drafts pay.
    pub(crate) windows: Mutex<Windows>,
}

/// How many drafts of tokens pay on this device, as all requests so far have found: in images, and in text.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) image: WindowChooser,
    pub(crate) text: WindowChooser,
}

impl Default for Windows {
    fn default() -> Self {
        Self { image: WindowChooser::new(Speculation::Auto), text: WindowChooser::new(Speculation::Auto) }
    }
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
