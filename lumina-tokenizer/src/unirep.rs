//! Images as tokens, in the layout that the paper calls UniRep.

use std::path::Path;
use std::sync::Arc;

use lumina_core::layout::Slot;
use lumina_core::{CELL_PX, CodeGrid, Vocabulary};

use crate::{Content, Error, MalformedImage, Part, Result, StreamDecoder, StreamEvent, TextTokenizer};

/// The whole tokenizer: text and images to one stream of tokens and back.
///
/// The layout of an image is documented in [`lumina_core::layout`] (arXiv 2408.02657, "Uni-Rep"). Cloning is cheap, and
/// threads may share one.
///
/// ```
/// use lumina_core::CodeGrid;
/// use lumina_tokenizer::{Malformed, UniRep};
///
/// let unirep = UniRep::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer"))?;
/// let image = CodeGrid::new(2, 4, vec![7, 6, 5, 4, 3, 2, 1, 0])?;
/// let tokens = unirep.encode_image(&image)?;
/// assert_eq!(tokens.len(), image.size()?.n_tokens());
///
/// let decoded = unirep.decode(&tokens, Malformed::Error)?;
/// assert_eq!(decoded.text(), "<|image|>");
/// assert_eq!(decoded.images().collect::<Vec<_>>(), [&image]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct UniRep {
    text: TextTokenizer,
    vocabulary: Arc<Vocabulary>,
}

/// What decoding does with an image that is cut off or does not follow the layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// Fail with [`Error::Malformed`].
    #[default]
    Error,
    /// Go on, and report the image as [`Segment::Partial`] with its complete rows.
    Partial,
}

/// A decoded stream: text and images in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The segments. No two texts follow each other.
    pub segments: Vec<Segment>,
}

/// A part of a decoded stream.
#[derive(Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text; special tokens outside an image appear as their names.
    Text(String),
    /// A complete image.
    Image(CodeGrid),
    /// A malformed image, which includes all tokens up to the next image-end.
    Partial(Box<MalformedImage>),
}

impl Decoded {
    /// The text, with `<|image|>` in the place of each complete image.
    pub fn text(&self) -> String {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Text(text) => text.as_str(),
                Segment::Image(_) => Vocabulary::PLACEHOLDER,
                Segment::Partial(_) => "",
            })
            .collect()
    }

    /// The complete images.
    pub fn images(&self) -> impl Iterator<Item = &CodeGrid> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Image(image) => Some(image),
            _ => None,
        })
    }

    /// The malformed images.
    pub fn malformed(&self) -> impl Iterator<Item = &MalformedImage> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Partial(image) => Some(image.as_ref()),
            _ => None,
        })
    }
}

/// A decoded answer as a turn of the conversation. Malformed images are left out.
impl From<Decoded> for Content {
    fn from(decoded: Decoded) -> Self {
        let part = |segment| match segment {
            Segment::Text(text) => Some(Part::Text(text)),
            Segment::Image(image) => Some(Part::Image(image)),
            Segment::Partial(_) => None,
        };
        Self(decoded.segments.into_iter().filter_map(part).collect())
    }
}

impl UniRep {
    /// Opens `tokenizer.json`: the file itself, or the folder that holds it.
    ///
    /// # Errors
    /// Those of [`TextTokenizer::open`] and [`TextTokenizer::vocabulary`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(TextTokenizer::open(path)?)
    }

    /// The tokenizer on top of a text tokenizer.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] where it lacks a token that the stream needs.
    pub fn new(text: TextTokenizer) -> Result<Self> {
        let vocabulary = Arc::new(text.vocabulary()?);
        Ok(Self { text, vocabulary })
    }

    /// The text tokenizer.
    pub fn text(&self) -> &TextTokenizer {
        &self.text
    }

    /// Which token has which role.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// The tokens of an image, from image-start to image-end.
    ///
    /// # Errors
    /// [`Error::Core`] where a side is no multiple of 32 pixels, [`Error::SizeToken`] where the image is too
    /// large, [`Error::Code`] where a code has no token.
    pub fn encode_image(&self, image: &CodeGrid) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        self.append_image(&mut tokens, image)?;
        Ok(tokens)
    }

    /// Appends the tokens of an image.
    pub(crate) fn append_image(&self, tokens: &mut Vec<u32>, image: &CodeGrid) -> Result<()> {
        let size = image.size()?;
        let vocabulary = &self.vocabulary;
        let largest_px = vocabulary.size_tokens().len() as u32 * CELL_PX;
        let size_token = |cells| vocabulary.size_token(cells).ok_or(Error::SizeToken { size, cells, largest_px });
        let mut codes = image.codes().iter();
        tokens.reserve(size.n_tokens());
        for slot in size.slots() {
            tokens.push(match slot {
                Slot::ImageStart => vocabulary.image_start(),
                Slot::Height => size_token(size.height_cells())?,
                Slot::Width => size_token(size.width_cells())?,
                Slot::Code { row, column } => {
                    let code = *codes.next().expect("a grid has a code for each of its slots");
                    let no_token = || Error::Code { code, row, column, n_codes: vocabulary.n_codes() };
                    vocabulary.token_of_code(code).ok_or_else(no_token)?
                }
                Slot::RowEnd { .. } => vocabulary.row_end(),
                Slot::ImageEnd => vocabulary.image_end(),
            });
        }
        Ok(())
    }

    /// The text and images in a stream of tokens.
    ///
    /// Mirrors `FlexARInferenceSolver.decode_ids` of the original, which fails or never returns where this reports
    /// a [`MalformedImage`], and silently drops an image without an end. An image of zero rows or columns, which it
    /// passes on to a VQ decoder that cannot decode it, is malformed here.
    ///
    /// # Errors
    /// [`Error::Malformed`] at the first malformed image, with [`Malformed::Error`].
    pub fn decode(&self, tokens: &[u32], malformed: Malformed) -> Result<Decoded> {
        let mut stream = self.stream();
        let mut decoded = Decoded::default();
        for &token in tokens {
            decoded.add(stream.push(token), malformed)?;
        }
        decoded.add(stream.finish(), malformed)?;
        Ok(decoded)
    }

    /// A decoder of tokens one by one.
    pub fn stream(&self) -> StreamDecoder {
        StreamDecoder::new(self.text.stream(), self.vocabulary.clone())
    }
}

impl Decoded {
    fn add(&mut self, event: Option<StreamEvent>, malformed: Malformed) -> Result<()> {
        match (event, self.segments.last_mut()) {
            (Some(StreamEvent::Text(piece) | StreamEvent::Special(piece)), Some(Segment::Text(text))) => {
                text.push_str(&piece);
            }
            (Some(StreamEvent::Text(piece) | StreamEvent::Special(piece)), _) => {
                self.segments.push(Segment::Text(piece))
            }
            (Some(StreamEvent::Image(image)), _) => self.segments.push(Segment::Image(image)),
            (Some(StreamEvent::Malformed(image)), _) => match malformed {
                Malformed::Error => return Err(Error::Malformed(image)),
                Malformed::Partial => self.segments.push(Segment::Partial(image)),
            },
            (Some(StreamEvent::ImageStarted { .. } | StreamEvent::Row { .. }) | None, _) => {}
        }
        Ok(())
    }
}

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Segment {
    /// The length of a text, and the size of an image.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text(<{} bytes>)", text.len()),
            Self::Image(codes) => f.debug_tuple("Image").field(codes).finish(),
            Self::Partial(malformed) => f.debug_tuple("Partial").field(malformed).finish(),
        }
    }
}
