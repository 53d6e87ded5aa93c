//! The stream of tokens, decoded one token at a time.

use std::fmt;
use std::sync::Arc;

use lumina_core::{CodeGrid, ImageSize, Vocabulary};

use crate::TextStream;

/// What a token adds to the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// More text.
    Text(String),
    /// An image has stated its size.
    ImageStarted {
        /// The size.
        size: ImageSize,
    },
    /// A row of an image is whole.
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
/// A token gives at most one [`Event`]. Mirrors `FlexARInferenceSolver.decode_ids` of the original, and like it
/// - takes everything from image-start to the next image-end as one image,
/// - ignores a second image-start right after the first,
/// - does not look at which token stands in the place of a row-end.
///
/// ```
/// use lumina_tokenizer::{Event, UniRep};
///
/// let unirep = UniRep::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer"))?;
/// let image = lumina_core::CodeGrid::new(2, 2, vec![1, 2, 3, 4])?;
/// let mut stream = unirep.stream();
/// let events: Vec<Event> = unirep.encode_image(&image)?.into_iter().filter_map(|token| stream.push(token)).collect();
/// assert_eq!(events, [
///     Event::ImageStarted { size: image.size()? },
///     Event::Row { row: 0, codes: vec![1, 2] },
///     Event::Row { row: 1, codes: vec![3, 4] },
///     Event::Image(image),
/// ]);
/// assert_eq!(stream.finish(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    vocabulary: Arc<Vocabulary>,
    text: TextStream,
    state: State,
    /// Number of tokens taken.
    position: usize,
}

#[derive(Debug, Clone)]
enum State {
    Text,
    Image(Run),
    /// In a malformed image that has been reported.
    Skipping,
}

/// An image as far as it has come.
#[derive(Debug, Clone)]
struct Run {
    start: usize,
    expected: Expected,
    height_cells: u32,
    size: Option<ImageSize>,
    codes: Vec<u32>,
}

/// What an image's layout asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The size token of its height.
    Height,
    /// The size token of its width.
    Width,
    /// An image token.
    Code {
        /// Its row.
        row: u32,
        /// Its column.
        column: u32,
    },
    /// The row-end after a row.
    RowEnd {
        /// The row.
        row: u32,
    },
    /// The image-end.
    ImageEnd,
}

/// A run of image tokens that is cut off or not laid out as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedImage {
    /// Index in the stream of its image-start.
    pub start: usize,
    /// Index in the stream of the token that does not fit; where the stream ends, its length.
    pub position: usize,
    /// What should be there.
    pub expected: Expected,
    /// What is there; `None` where the stream ends.
    pub found: Option<u32>,
    /// The size that it states, if it came so far.
    pub size: Option<ImageSize>,
    /// The rows before that are whole, if there are any.
    pub rows: Option<CodeGrid>,
}

impl StreamDecoder {
    pub(crate) fn new(text: TextStream, vocabulary: Arc<Vocabulary>) -> Self {
        Self { vocabulary, text, state: State::Text, position: 0 }
    }

    /// Takes a token; gives what it adds, if that is anything yet.
    pub fn push(&mut self, token: u32) -> Option<Event> {
        let position = self.position;
        self.position += 1;
        let is_end = token == self.vocabulary.image_end();
        match &mut self.state {
            State::Text if token == self.vocabulary.image_start() => {
                self.state = State::Image(Run::new(position));
                // No character goes on behind an image.
                self.text.finish().map(Event::Text)
            }
            State::Text => self.text.push(token).map(Event::Text),
            State::Image(run) => match run.push(token, position, &self.vocabulary) {
                Ok(event) => {
                    if matches!(event, Some(Event::Image(_))) {
                        self.state = State::Text;
                    }
                    event
                }
                Err(malformed) => {
                    self.state = if is_end { State::Text } else { State::Skipping };
                    Some(Event::Malformed(malformed))
                }
            },
            State::Skipping => {
                if is_end {
                    self.state = State::Text;
                }
                None
            }
        }
    }

    /// Ends the stream: gives the text that was held back, or the image that was cut off.
    ///
    /// The decoder can be used again for another stream.
    pub fn finish(&mut self) -> Option<Event> {
        let length = std::mem::take(&mut self.position);
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.text.finish().map(Event::Text),
            State::Image(mut run) => Some(Event::Malformed(run.malformed(None, length))),
            State::Skipping => None,
        }
    }
}

impl Run {
    fn new(start: usize) -> Self {
        Self { start, expected: Expected::Height, height_cells: 0, size: None, codes: Vec::new() }
    }

    fn push(
        &mut self,
        token: u32,
        position: usize,
        vocabulary: &Vocabulary,
    ) -> Result<Option<Event>, Box<MalformedImage>> {
        let is_end = token == vocabulary.image_end();
        let columns = self.columns();
        let step = match self.expected {
            Expected::Height if token == vocabulary.image_start() && position == self.start + 1 => {
                Some((Expected::Height, None))
            }
            Expected::Height => vocabulary.cells_of_token(token).map(|cells| {
                self.height_cells = cells;
                (Expected::Width, None)
            }),
            Expected::Width => vocabulary
                .cells_of_token(token)
                .and_then(|cells| ImageSize::from_cells(cells, self.height_cells).ok())
                .map(|size| {
                    self.size = Some(size);
                    (Expected::Code { row: 0, column: 0 }, Some(Event::ImageStarted { size }))
                }),
            Expected::Code { row, column } => vocabulary.code_of_token(token).map(|code| {
                self.codes.push(code);
                if column + 1 < columns {
                    return (Expected::Code { row, column: column + 1 }, None);
                }
                let codes = self.codes[self.codes.len() - columns as usize..].to_vec();
                (Expected::RowEnd { row }, Some(Event::Row { row, codes }))
            }),
            Expected::RowEnd { row } if row + 1 < self.rows() => {
                (!is_end).then_some((Expected::Code { row: row + 1, column: 0 }, None))
            }
            Expected::RowEnd { .. } => (!is_end).then_some((Expected::ImageEnd, None)),
            Expected::ImageEnd if is_end => {
                self.take_rows().map(|image| (Expected::ImageEnd, Some(Event::Image(image))))
            }
            Expected::ImageEnd => None,
        };
        let (expected, event) = step.ok_or_else(|| self.malformed(Some(token), position))?;
        self.expected = expected;
        Ok(event)
    }

    fn rows(&self) -> u32 {
        self.size.map_or(0, ImageSize::latent_rows)
    }

    fn columns(&self) -> u32 {
        self.size.map_or(0, ImageSize::latent_columns)
    }

    /// The rows that are whole, of which there are none before the size.
    fn take_rows(&mut self) -> Option<CodeGrid> {
        let rows = self.codes.len().checked_div(self.columns() as usize)?;
        let mut codes = std::mem::take(&mut self.codes);
        codes.truncate(rows * self.columns() as usize);
        CodeGrid::new(u32::try_from(rows).ok()?, self.columns(), codes).ok()
    }

    fn malformed(&mut self, found: Option<u32>, position: usize) -> Box<MalformedImage> {
        let rows = self.take_rows();
        Box::new(MalformedImage { start: self.start, position, expected: self.expected, found, size: self.size, rows })
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Height => write!(f, "the size token of its height"),
            Self::Width => write!(f, "the size token of its width"),
            Self::Code { row, column } => write!(f, "the image token of row {row}, column {column}"),
            Self::RowEnd { row } => write!(f, "the end of row {row}"),
            Self::ImageEnd => write!(f, "the image's end"),
        }
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
