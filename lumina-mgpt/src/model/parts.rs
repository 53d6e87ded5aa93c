//! The parts of an opened model.

use std::sync::Mutex;

use lumina_core::Limits;
use lumina_sampling::speculation::{Speculation, WindowChooser};
use lumina_tokenizer::UniRep;
use lumina_vq::ImageTokenizer;

use super::transformer::Transformer;
use crate::preset::Preset;
use crate::{Error, Result};

/// What turns a request into an answer: transformer and tokenizers.
pub(crate) struct ModelParts {
    pub(crate) transformer: Transformer,
    pub(crate) unirep: UniRep,
    pub(crate) image_tokenizer: Option<ImageTokenizer>,
    pub(crate) limits: Limits,
    pub(crate) preset: Preset,
    /// How many drafts pay.
    pub(crate) windows: Mutex<Windows>,
}

/// How many drafts of tokens pay on this device, as all requests so far have found: in images, and in text.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) image: WindowChooser,
    pub(crate) text: WindowChooser,
    /// Passes of each number of tokens, up to [`COLD_PASSES`].
    passes: Vec<u8>,
}

/// Passes of a number of tokens that are not measured: a GPU compiles kernels for the first, and records the second.
const COLD_PASSES: u8 = 2;

impl Default for Windows {
    fn default() -> Self {
        let chooser = || WindowChooser::new(Speculation::Auto);
        Self { image: chooser(), text: chooser(), passes: Vec::new() }
    }
}

impl Windows {
    /// Whether a pass of so many tokens takes the time that it will take again. Each is asked for once.
    pub(crate) fn is_warm(&mut self, tokens: usize) -> bool {
        if self.passes.len() <= tokens {
            self.passes.resize(tokens + 1, 0);
        }
        let before = self.passes[tokens];
        self.passes[tokens] = COLD_PASSES.min(before + 1);
        before == COLD_PASSES
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
