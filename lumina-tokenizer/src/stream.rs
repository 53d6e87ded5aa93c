//! The stream of tokens, decoded one token at a time.

use std::fmt;
use std::sync::Arc;

use lumina_core::layout::{Phase, Placement, Slot, StreamLayout};
use lumina_core::{CodeGrid, ImageSize, TokenRole, Vocabulary};

use crate::TextStream;

/// What a token adds to the stream.
#[derive(Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// More text.
    Text(String),
    /// A special token in text by its name, such as an image token outside of an image, or `<reserved00042>`. The
    /// original has it in the text, and so has [`UniRep::decode`](crate::UniRep::decode); a program for people leaves
    /// it out. A character that it breaks off comes with it, as U+FFFD.
    Special(String),
    /// An image has stated its size.
    ImageStarted {
        /// The size.
        size: ImageSize,
    },
    /// A row of an image is complete.
    Row {
        /// Its index, from 0 at the top.
        row: u32,
        /// Its codes, from left to right.
        codes: Vec<u32>,
    },
    /// An image is complete.
    Image(CodeGrid),
    /// An image is malformed. Its tokens up to the next image-end are skipped.
    Malformed(Box<MalformedImage>),
}

/// Decodes the stream token by token, in text and in images.
///
/// A token emits at most one [`StreamEvent`]. Mirrors `FlexARInferenceSolver.decode_ids` of the original; what it
/// accepts as an image is stated at [`StreamLayout::strict`].
///
/// ```
/// use lumina_tokenizer::{StreamEvent, UniRep};
///
/// let unirep = UniRep::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer"))?;
/// let image = lumina_core::CodeGrid::new(2, 2, vec![1, 2, 3, 4])?;
/// let mut stream = unirep.stream();
/// let tokens = unirep.encode_image(&image)?;
/// let events: Vec<StreamEvent> = tokens.into_iter().filter_map(|token| stream.push(token)).collect();
/// assert_eq!(events, [
///     StreamEvent::ImageStarted { size: image.size()? },
///     StreamEvent::Row { row: 0, codes: vec![1, 2] },
///     StreamEvent::Row { row: 1, codes: vec![3, 4] },
///     StreamEvent::Image(image),
/// ]);
/// assert_eq!(stream.finish(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct StreamDecoder {
    vocabulary: Arc<Vocabulary>,
    layout: StreamLayout,
    text: TextStream,
    /// The codes of the current image.
    codes: Vec<u32>,
}

/// An image that is cut off or not laid out as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedImage {
    /// Index in the stream of its image-start.
    pub start: usize,
    /// Index in the stream of the token that does not fit; where the stream ends, its length.
    pub position: usize,
    /// What should be there.
    pub expected: Slot,
    /// The token that is there; `None` where the stream ends.
    pub found: Option<u32>,
    /// The size, if the image states it.
    pub size: Option<ImageSize>,
    /// The complete rows before that place, if there are any.
    pub rows: Option<CodeGrid>,
}

impl StreamDecoder {
    pub(crate) fn new(text: TextStream, vocabulary: Arc<Vocabulary>) -> Self {
        Self { vocabulary, layout: StreamLayout::strict(), text, codes: Vec::new() }
    }

    /// Decodes a token. Returns what it adds, `None` where that is nothing yet.
    pub fn push(&mut self, token: u32) -> Option<StreamEvent> {
        let role = self.vocabulary.role(token);
        let before = self.layout;
        match self.layout.push(role) {
            Placement::Text => {
                let event = if self.text.is_special(token) { StreamEvent::Special } else { StreamEvent::Text };
                self.text.push(token).map(event)
            }
            Placement::Slot(slot) => self.fill(slot, role, &before),
            Placement::Misfit(expected) => Some(self.malformed(&before, expected, Some(token))),
            Placement::Outside => None,
        }
    }

    /// Ends the stream. Returns the text that was held back, or the image that was cut off.
    ///
    /// The decoder can be used again for another stream.
    pub fn finish(&mut self) -> Option<StreamEvent> {
        let layout = std::mem::replace(&mut self.layout, StreamLayout::strict());
        match layout.expected() {
            Some(expected) => Some(self.malformed(&layout, expected, None)),
            None => self.text.finish().map(StreamEvent::Text),
        }
    }

    /// Decodes a token that fits its place in an image.
    fn fill(&mut self, slot: Slot, role: TokenRole, before: &StreamLayout) -> Option<StreamEvent> {
        match (slot, role) {
            (Slot::ImageStart, _) => {
                self.codes.clear();
                // A character cannot go on after an image.
                self.text.finish().map(StreamEvent::Text)
            }
            (Slot::Width, _) => size_of(&self.layout).map(|size| StreamEvent::ImageStarted { size }),
            (Slot::Code { row, column }, TokenRole::Code(code)) => {
                self.codes.push(code);
                let columns = size_of(before)?.latent_columns();
                let first = self.codes.len().saturating_sub(columns as usize);
                (column + 1 == columns).then(|| StreamEvent::Row { row, codes: self.codes[first..].to_vec() })
            }
            (Slot::ImageEnd, _) => self.take_rows(before).map(StreamEvent::Image),
            _ => None,
        }
    }

    /// The complete rows, of which there are none before the size is known.
    fn take_rows(&mut self, layout: &StreamLayout) -> Option<CodeGrid> {
        let columns = size_of(layout)?.latent_columns();
        let rows = self.codes.len() / columns as usize;
        let mut codes = std::mem::take(&mut self.codes);
        codes.truncate(rows * columns as usize);
        CodeGrid::new(u32::try_from(rows).ok()?, columns, codes).ok()
    }

    /// Reports the image that `layout` is in.
    fn malformed(&mut self, layout: &StreamLayout, expected: Slot, found: Option<u32>) -> StreamEvent {
        StreamEvent::Malformed(Box::new(MalformedImage {
            start: layout.image_start().unwrap_or_default(),
            position: layout.len(),
            expected,
            found,
            size: size_of(layout),
            rows: self.take_rows(layout),
        }))
    }
}

/// The size of the image that a stream is in the rows of.
fn size_of(layout: &StreamLayout) -> Option<ImageSize> {
    match layout.phase() {
        Phase::Rows(image) => Some(image.size()),
        _ => None,
    }
}

impl fmt::Display for MalformedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, position, expected, .. } = self;
        write!(
            f,
            "the image that starts at token {start} is malformed: expected {expected} at token {position}, found "
        )?;
        match self.found {
            Some(token) => write!(f, "token {token}"),
            None => write!(f, "the end of the stream"),
        }
    }
}

impl std::error::Error for MalformedImage {}

impl std::fmt::Debug for StreamEvent {
    /// The length of a text, and the size of a row or an image.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text(<{} bytes>)", text.len()),
            Self::Special(name) => write!(f, "Special({name:?})"),
            Self::ImageStarted { size } => f.debug_struct("ImageStarted").field("size", size).finish(),
            Self::Row { row, codes } => write!(f, "Row({row}, <{} codes>)", codes.len()),
            Self::Image(codes) => f.debug_tuple("Image").field(codes).finish(),
            Self::Malformed(malformed) => f.debug_tuple("Malformed").field(malformed).finish(),
        }
    }
}

impl std::fmt::Debug for StreamDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamDecoder").field("layout", &self.layout).field("text", &self.text).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Malformed, Specials, UniRep};

    /// Special tokens in text are told from it, and the whole text has them, as the original's.
    #[test]
    fn special_tokens_in_text_are_events_of_their_own() {
        let unirep = UniRep::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer")).unwrap();
        let encode = |text| unirep.text().encode(text, Specials::Plain).unwrap();
        let names = ["IMGIMGBZ", "<reserved08800>", "</s>"];
        let mut tokens = encode("a dog");
        tokens.extend(names.map(|name| unirep.text().id_of(name).unwrap()));
        // A character that a special token breaks off.
        let character = encode("世界");
        tokens.extend(&character[..1]);
        tokens.extend(unirep.text().id_of(names[0]));
        tokens.extend(&character);
        let is_special = |&token: &u32| unirep.text().is_special(token);
        assert_eq!(tokens.iter().filter(|token| is_special(token)).count(), 4);
        let mut stream = unirep.stream();
        let (mut plain, mut specials, mut whole) = (String::new(), Vec::new(), String::new());
        for event in tokens.iter().filter_map(|&token| stream.push(token)) {
            match event {
                StreamEvent::Text(text) => {
                    plain += &text;
                    whole += &text;
                }
                StreamEvent::Special(name) => {
                    whole += &name;
                    specials.push(name);
                }
                other => unreachable!("{other:?}"),
            }
        }
        whole.extend(stream.finish().map(|event| match event {
            StreamEvent::Text(text) => text,
            other => unreachable!("{other:?}"),
        }));
        assert_eq!(specials[..3], names);
        assert!(specials.len() == 4 && specials[3].ends_with(names[0]), "{specials:?}");
        assert!(plain.starts_with("a dog") && plain.ends_with("世界"), "{plain}");
        assert!(!plain.contains("IMG") && !plain.contains('<'), "{plain}");
        assert_eq!(whole, unirep.decode(&tokens, Malformed::Error).unwrap().text());
        // Spelt out by a user it is text.
        assert!(!encode("IMGIMGBZ").iter().any(is_special));
    }
}
