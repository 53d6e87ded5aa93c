//! Which tokens can come next.

use std::sync::Arc;

use lumina_core::layout::{Phase, Slot};
use lumina_core::{CELL_PX, ImageSize, Vocabulary};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, StreamState};

/// What an answer is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// Text and images as the model likes. With an image size fixed by the caller the answer begins with an image.
    #[default]
    Any,
    /// Text alone: the tokens of images are never drawn.
    Text,
    /// One image alone: it begins at once, and the turn ends after it.
    Image,
}

/// The rules of the stream: which tokens can come after a state.
///
/// | state | can come |
/// | --- | --- |
/// | text | anything ([`Modality`] and a fixed size restrict it) |
/// | height or width due | the fixed size's token; a size token ([`Modality::Image`]); else anything, as in the original |
/// | row or image complete | row-end, image-end: the only choice |
/// | elsewhere in the rows | an image token |
/// | malformed | anything, as in the original |
///
/// Mirrors `inference_solver.py::MultiModalLogitsProcessor`. There image tokens are the ids 4 to 8195; here they go by
/// name. Fixed sizes and modalities are additions.
///
/// ```
/// use lumina_sampling::{Allowed, Grammar, Modality, StreamState};
/// # let vocabulary = std::sync::Arc::new(include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
/// let grammar = Grammar::new(&vocabulary, Modality::Image, None)?;
/// let state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
/// assert_eq!(grammar.allowed(&state), Allowed::One(vocabulary.image_start()));
/// # Ok::<(), lumina_sampling::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Grammar {
    modality: Modality,
    fixed_size: Option<SizeTokens>,
    /// Ascending.
    image_tokens: Arc<[u32]>,
    /// Ascending.
    size_tokens: Arc<[u32]>,
    /// What text cannot contain, ascending.
    not_text: Arc<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct SizeTokens {
    height: u32,
    width: u32,
}

/// The tokens that can come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// This token alone.
    One(u32),
    /// These tokens, ascending.
    Only(&'a [u32]),
    /// Every token of the vocabulary but these, ascending.
    AllBut(&'a [u32]),
}

impl Grammar {
    /// The rules for an answer of `modality`, whose images have `image_size` where it is given.
    ///
    /// # Errors
    /// [`Error::ImageSize`] where the vocabulary has no token for a side.
    pub fn new(vocabulary: &Vocabulary, modality: Modality, image_size: Option<ImageSize>) -> Result<Self> {
        let ascending = |mut tokens: Vec<u32>| -> Arc<[u32]> {
            tokens.sort_unstable();
            tokens.into()
        };
        let size_tokens = vocabulary.size_tokens();
        let fixed_size = image_size.map(|size| {
            let tokens = vocabulary.size_token(size.height_cells()).zip(vocabulary.size_token(size.width_cells()));
            let largest_px = size_tokens.len() as u32 * CELL_PX;
            tokens.map(|(height, width)| SizeTokens { height, width }).ok_or(Error::ImageSize { size, largest_px })
        });
        let layout = [
            vocabulary.bos(),
            vocabulary.image_start(),
            vocabulary.image_end(),
            vocabulary.row_end(),
            vocabulary.placeholder(),
        ];
        Ok(Self {
            modality,
            fixed_size: fixed_size.transpose()?,
            not_text: ascending([&layout, vocabulary.image_tokens(), size_tokens].concat()),
            image_tokens: ascending(vocabulary.image_tokens().to_vec()),
            size_tokens: ascending(size_tokens.to_vec()),
        })
    }

    /// The tokens that can come after `state`.
    pub fn allowed(&self, state: &StreamState) -> Allowed<'_> {
        let vocabulary = state.vocabulary();
        match (state.phase(), self.modality) {
            (Phase::Rows(image), _) => match image.expected() {
                Slot::RowEnd { .. } => Allowed::One(vocabulary.row_end()),
                Slot::ImageEnd => Allowed::One(vocabulary.image_end()),
                _ => Allowed::Only(&self.image_tokens),
            },
            (_, Modality::Text) => Allowed::AllBut(&self.not_text),
            (Phase::Height, _) => self.size(|size| size.height),
            (Phase::Width { .. }, _) => self.size(|size| size.width),
            (Phase::Text, Modality::Image) if state.answer_images() > 0 => Allowed::One(vocabulary.turn_end()),
            (Phase::Text, Modality::Image) => Allowed::One(vocabulary.image_start()),
            (Phase::Text, Modality::Any) if self.fixed_size.is_some() && state.answer_len() == 0 => {
                Allowed::One(vocabulary.image_start())
            }
            (Phase::Text | Phase::Malformed, _) => Allowed::AllBut(&[]),
        }
    }

    fn size(&self, side: impl Fn(SizeTokens) -> u32) -> Allowed<'_> {
        match (self.fixed_size, self.modality) {
            (Some(size), _) => Allowed::One(side(size)),
            (None, Modality::Image) => Allowed::Only(&self.size_tokens),
            (None, _) => Allowed::AllBut(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_vocabulary;

    #[test]
    fn a_fixed_size_forces_the_image_up_to_its_rows() {
        let vocabulary = Arc::new(small_vocabulary());
        let size = ImageSize::new(64, 32).unwrap();
        for modality in [Modality::Any, Modality::Image] {
            let grammar = Grammar::new(&vocabulary, modality, Some(size)).unwrap();
            let mut state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
            let mut forced = Vec::new();
            while let Allowed::One(token) = grammar.allowed(&state) {
                forced.push(token);
                state.push(token);
            }
            assert_eq!(
                forced,
                [vocabulary.image_start(), vocabulary.size_token(1).unwrap(), vocabulary.size_token(2).unwrap()]
            );
            let Phase::Rows(image) = state.phase() else { panic!("in the rows") };
            assert_eq!(image.size(), size);
        }
    }

    #[test]
    fn a_size_without_tokens_is_an_error() {
        let size = ImageSize::new(32, 32 * 1000).unwrap();
        let error = Grammar::new(&small_vocabulary(), Modality::Any, Some(size)).unwrap_err().to_string();
        assert!(error.contains("32x32000") && error.contains("96 pixels"), "{error}");
    }

    #[test]
    fn text_alone_leaves_the_end_of_the_turn() {
        let vocabulary = Arc::new(small_vocabulary());
        let grammar = Grammar::new(&vocabulary, Modality::Text, None).unwrap();
        let Allowed::AllBut(not_text) = grammar.allowed(&StreamState::new(vocabulary.clone(), &[])) else {
            panic!("text is free")
        };
        assert!(!not_text.contains(&vocabulary.turn_end()));
        assert!(not_text.is_sorted());
        let controls = (0..100).filter(|&token| vocabulary.is_control(token) && token != vocabulary.turn_end());
        assert_eq!(not_text, controls.collect::<Vec<_>>());
    }
}
