//! Which tokens are allowed next.

use std::sync::Arc;

use lumina_core::layout::{Phase, Slot};
use lumina_core::{CELL_PX, ImageSize, Vocabulary};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, StreamState};

/// What an answer is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// Text and images, as the model chooses. With a fixed image size the answer begins with an image.
    #[default]
    Any,
    /// Text only: the tokens of images are never drawn.
    Text,
    /// One image only: it begins at once, and the turn ends after it.
    Image,
    /// Text, which may be empty, and then one image, after which the turn ends.
    TextThenImage,
}

impl Modality {
    /// Whether an answer has exactly one image, after which the turn ends.
    pub const fn is_one_image(self) -> bool {
        matches!(self, Self::Image | Self::TextThenImage)
    }
}

/// The rules of the stream: which tokens are allowed after a state.
///
/// | phase | allowed |
/// | --- | --- |
/// | text | any ([`Modality`] and a fixed size restrict it) |
/// | height or width expected | the fixed size's; size tokens for modalities of one image; else any, as in the original |
/// | row or image complete | row-end or image-end only |
/// | elsewhere in the rows | image tokens |
/// | malformed | any, as in the original |
///
/// Mirrors `inference_solver.py::MultiModalLogitsProcessor`. There image tokens are the ids 4 to 8195; here they are
/// found by name. Fixed sizes and modalities are additions.
///
/// ```
/// use lumina_sampling::{Allowed, Grammar, Modality, StreamState};
/// # let vocabulary = std::sync::Arc::new(
/// #    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
/// let grammar = Grammar::new(&vocabulary, Modality::Image, None)?;
/// let state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
/// assert_eq!(grammar.allowed(&state), Allowed::One(vocabulary.image_start()));
/// # Ok::<(), lumina_sampling::Error>(())
/// ```
#[derive(Clone)]
pub struct Grammar {
    modality: Modality,
    fixed_size: Option<FixedSize>,
    /// Ascending.
    image_tokens: Arc<[u32]>,
    /// Ascending.
    size_tokens: Arc<[u32]>,
    /// The tokens that text cannot contain, ascending.
    not_text: Arc<[u32]>,
    /// Those that text before an image cannot contain, ascending: as the others, but the image may begin, and the turn
    /// may not end.
    not_before_image: Arc<[u32]>,
}

/// A size and the tokens that state it.
#[derive(Debug, Clone, Copy)]
struct FixedSize {
    size: ImageSize,
    height: u32,
    width: u32,
}

/// The tokens that are allowed next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// This token only.
    One(u32),
    /// Only these tokens, ascending.
    Only(&'a [u32]),
    /// Every token of the vocabulary but these, ascending.
    AllBut(&'a [u32]),
}

impl Grammar {
    /// The rules for an answer of `modality`, whose images have `image_size` if it is given.
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
            tokens.map(|(height, width)| FixedSize { size, height, width }).ok_or(Error::ImageSize { size, largest_px })
        });
        let layout = [
            vocabulary.bos(),
            vocabulary.image_start(),
            vocabulary.image_end(),
            vocabulary.row_end(),
            vocabulary.placeholder(),
        ];
        let not_text = ascending([&layout, vocabulary.image_tokens(), size_tokens].concat());
        let no_image = not_text.iter().copied().filter(|&token| token != vocabulary.image_start());
        Ok(Self {
            modality,
            fixed_size: fixed_size.transpose()?,
            not_before_image: ascending(no_image.chain([vocabulary.turn_end()]).collect()),
            not_text,
            image_tokens: ascending(vocabulary.image_tokens().to_vec()),
            size_tokens: ascending(size_tokens.to_vec()),
        })
    }

    /// The tokens that are allowed after `state`.
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
            (Phase::Text, modality) if modality.is_one_image() && state.answer_images() > 0 => {
                Allowed::One(vocabulary.turn_end())
            }
            (Phase::Text, Modality::Image) => Allowed::One(vocabulary.image_start()),
            (Phase::Text, Modality::TextThenImage) => Allowed::AllBut(&self.not_before_image),
            (Phase::Text, Modality::Any) if self.fixed_size.is_some() && state.answer_len() == 0 => {
                Allowed::One(vocabulary.image_start())
            }
            (Phase::Text | Phase::Malformed, _) => Allowed::AllBut(&[]),
        }
    }

    /// The most tokens that can come after `state`, the end of the turn included; `None` where there is no limit.
    pub fn longest_answer(&self, state: &StreamState) -> Option<usize> {
        const TURN_END: usize = 1;
        match (self.modality, state.phase()) {
            (modality, Phase::Text) if modality.is_one_image() && state.answer_images() > 0 => Some(TURN_END),
            (Modality::Image, Phase::Text) => self.fixed_size.map(|fixed| fixed.size.n_tokens() + TURN_END),
            (modality, Phase::Rows(image)) if modality.is_one_image() => {
                image.remaining().map(|remaining| remaining + TURN_END)
            }
            _ => None,
        }
    }

    /// The tokens that state a side of an image.
    fn size(&self, side: impl Fn(FixedSize) -> u32) -> Allowed<'_> {
        match (self.fixed_size, self.modality) {
            (Some(size), _) => Allowed::One(side(size)),
            (None, modality) if modality.is_one_image() => Allowed::Only(&self.size_tokens),
            (None, _) => Allowed::AllBut(&[]),
        }
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar")
            .field("modality", &self.modality)
            .field("fixed_size", &self.fixed_size)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Allowed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(token) => write!(f, "One({token})"),
            Self::Only(tokens) => write!(f, "Only(<{} tokens>)", tokens.len()),
            Self::AllBut(tokens) => write!(f, "AllBut(<{} tokens>)", tokens.len()),
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

    #[test]
    fn text_before_an_image_ends_with_the_image_and_the_turn_after_it() {
        let vocabulary = Arc::new(small_vocabulary());
        let grammar = Grammar::new(&vocabulary, Modality::TextThenImage, None).unwrap();
        let mut state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
        for _ in 0..3 {
            let Allowed::AllBut(excluded) = grammar.allowed(&state) else { panic!("text is free") };
            assert!(excluded.is_sorted());
            let controls = (0..100).filter(|&token| vocabulary.is_control(token) && token != vocabulary.image_start());
            assert_eq!(excluded, controls.collect::<Vec<_>>(), "the turn's end among them");
            assert_eq!(grammar.longest_answer(&state), None);
            let text = (0..100).find(|&token| !vocabulary.is_control(token));
            state.push(text.unwrap());
        }
        let size = vocabulary.size_token(1).unwrap();
        for token in [vocabulary.image_start(), size, size] {
            assert!(!matches!(grammar.allowed(&state), Allowed::One(_)));
            state.push(token);
        }
        let longest = grammar.longest_answer(&state).unwrap();
        let rest = (1..=longest).rev().map(|left| {
            assert_eq!(grammar.longest_answer(&state), Some(left));
            let next = match grammar.allowed(&state) {
                Allowed::One(token) => token,
                Allowed::Only(tokens) => tokens[0],
                Allowed::AllBut(_) => panic!("an image has begun"),
            };
            state.push(next);
            next
        });
        assert_eq!(rest.last(), Some(vocabulary.turn_end()));
    }
}
