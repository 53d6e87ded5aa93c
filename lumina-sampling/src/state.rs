//! What the tokens so far say about the next one.

use std::collections::HashMap;
use std::sync::Arc;

use lumina_core::{ImageSize, Vocabulary};

/// Where a stream stands after its tokens so far, kept token by token and never rescanned.
///
/// It states facts only; what follows from them is the [`Grammar`](crate::Grammar)'s and the
/// [`Sampler`](crate::Sampler)'s to say. Cloning it is cheap (it holds no copy of the stream), so a caller that tries
/// several tokens ahead keeps one state for each.
///
/// As in the original, a stream is *in an image* while it has exactly one more image-start than image-ends, and in an
/// image only the number of tokens counts, not what they are.
///
/// ```
/// use std::sync::Arc;
/// use lumina_sampling::{Phase, StreamState};
/// # let vocabulary = Arc::new(include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
///
/// let mut state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
/// assert_eq!(state.phase(), Phase::Text);
/// for token in [vocabulary.image_start(), vocabulary.size_token(1).unwrap(), vocabulary.size_token(2).unwrap()] {
///     state.push(token);
/// }
/// let Phase::Rows(image) = state.phase() else { panic!("both sizes are there") };
/// assert_eq!((image.size().width_px(), image.size().height_px()), (64, 32));
/// assert_eq!((image.row(), image.column()), (0, 0));
/// ```
#[derive(Debug, Clone)]
pub struct StreamState {
    vocabulary: Arc<Vocabulary>,
    len: usize,
    prompt_len: usize,
    /// Image-starts minus image-ends.
    open_images: i64,
    image_start: usize,
    phase: Phase,
    answer_images: usize,
    text_counts: HashMap<u32, u32>,
}

/// The part of the stream that the next token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Text.
    Text,
    /// An image was begun; its height is due.
    Height,
    /// An image's height is there; its width is due.
    Width {
        /// The height, in cells of 32 pixels.
        height_cells: u32,
    },
    /// Both sizes are there: rows of image tokens.
    Rows(ImageProgress),
    /// Image-starts and image-ends do not match, or something else stands where a size was due: what a correct decoder
    /// never makes. (The original takes any token where a size is due for one, by its id.) Ends when the numbers of image-starts and image-ends are equal again.
    Malformed,
}

/// How far an image has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageProgress {
    start: usize,
    size: ImageSize,
    n_tokens: usize,
}

/// What an image needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// An image token.
    Code,
    /// The end of a row.
    RowEnd,
    /// The end of the image.
    ImageEnd,
}

impl ImageProgress {
    /// Index in the stream of the image-start token.
    pub fn start(self) -> usize {
        self.start
    }
    /// The size that the stream stated.
    pub fn size(self) -> ImageSize {
        self.size
    }
    /// The row that the next token belongs to; the number of complete rows.
    pub fn row(self) -> usize {
        self.n_tokens / self.row_tokens()
    }
    /// The column of the next image token; the number of columns where the row-end is due.
    pub fn column(self) -> usize {
        self.n_tokens % self.row_tokens()
    }
    /// What comes next. Past the last row, where image-end was due and something else came, rows go on, as in the
    /// original.
    pub fn due(self) -> Due {
        if self.column() == self.size.latent_columns() as usize {
            Due::RowEnd
        } else if self.n_tokens == self.row_tokens() * self.size.latent_rows() as usize {
            Due::ImageEnd
        } else {
            Due::Code
        }
    }

    /// Tokens in a row with its row-end.
    fn row_tokens(self) -> usize {
        self.size.latent_columns() as usize + 1
    }
}

impl StreamState {
    /// The state after `prompt`. What is pushed from here on is the answer.
    pub fn new(vocabulary: Arc<Vocabulary>, prompt: &[u32]) -> Self {
        let mut state = Self {
            vocabulary,
            len: 0,
            prompt_len: prompt.len(),
            open_images: 0,
            image_start: 0,
            phase: Phase::Text,
            answer_images: 0,
            text_counts: HashMap::new(),
        };
        for &token in prompt {
            state.push(token);
        }
        state
    }

    /// Takes the next token of the stream into account. Any token is accepted, whatever the grammar says.
    pub fn push(&mut self, token: u32) {
        if token == self.vocabulary.image_start() {
            self.open_images += 1;
            self.image_start = self.len;
            self.phase = match self.open_images {
                0 => Phase::Text,
                1 => Phase::Height,
                _ => Phase::Malformed,
            };
        } else if token == self.vocabulary.image_end() {
            self.open_images -= 1;
            self.phase = if self.open_images == 0 { Phase::Text } else { Phase::Malformed };
            self.answer_images += usize::from(self.len >= self.prompt_len);
        } else {
            self.phase = self.phase_after(token);
            if self.phase == Phase::Text && !self.vocabulary.is_control(token) {
                *self.text_counts.entry(token).or_default() += 1;
            }
        }
        self.len += 1;
    }

    /// The phase after a token that neither begins nor ends an image.
    fn phase_after(&self, token: u32) -> Phase {
        let cells = || self.vocabulary.cells_of_token(token);
        match self.phase {
            Phase::Height => cells().map_or(Phase::Malformed, |height_cells| Phase::Width { height_cells }),
            Phase::Width { height_cells } => cells()
                .and_then(|width_cells| ImageSize::from_cells(width_cells, height_cells).ok())
                .map_or(Phase::Malformed, |size| {
                    Phase::Rows(ImageProgress { start: self.image_start, size, n_tokens: 0 })
                }),
            Phase::Rows(image) => Phase::Rows(ImageProgress { n_tokens: image.n_tokens + 1, ..image }),
            phase @ (Phase::Text | Phase::Malformed) => phase,
        }
    }

    /// The roles of the stream's tokens.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
    /// Tokens so far, which is the position of the next one.
    #[expect(clippy::len_without_is_empty, reason = "a position; emptiness means nothing here")]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Tokens since the prompt.
    pub fn answer_len(&self) -> usize {
        self.len - self.prompt_len
    }
    /// Images ended since the prompt.
    pub fn answer_images(&self) -> usize {
        self.answer_images
    }
    /// What the next token belongs to.
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// Whether the stream has exactly one more image-start than image-ends.
    pub fn in_image(&self) -> bool {
        self.open_images == 1
    }
    /// The distinct tokens of text so far, prompt included, and how often each occurred; in no particular order.
    /// Tokens with a role in the layout (images, the ends of turns) are not among them.
    pub fn text_tokens(&self) -> impl Iterator<Item = (u32, u32)> {
        self.text_counts.iter().map(|(&token, &count)| (token, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_vocabulary;

    /// The phase after a prompt of `<s>` and these tokens.
    fn after(tokens: &[u32]) -> StreamState {
        let vocabulary = Arc::new(small_vocabulary());
        let mut state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
        tokens.iter().for_each(|&token| state.push(token));
        state
    }

    #[test]
    fn an_image_is_followed_row_by_row() {
        let v = small_vocabulary();
        let size = v.size_token(1).unwrap();
        let mut tokens = vec![v.image_start(), size, size];
        for row in 0..2 {
            for column in 0..2 {
                let Phase::Rows(image) = after(&tokens).phase() else { panic!("in the rows") };
                assert_eq!((image.row(), image.column(), image.due()), (row, column, Due::Code));
                tokens.push(v.image_tokens()[0]);
            }
            let Phase::Rows(image) = after(&tokens).phase() else { panic!("in the rows") };
            assert_eq!((image.start(), image.due()), (1, Due::RowEnd));
            tokens.push(v.row_end());
        }
        let Phase::Rows(image) = after(&tokens).phase() else { panic!("in the rows") };
        assert_eq!(image.due(), Due::ImageEnd);
        tokens.push(v.image_end());
        let state = after(&tokens);
        assert_eq!((state.phase(), state.answer_images(), state.answer_len()), (Phase::Text, 1, tokens.len()));
    }

    #[test]
    fn malformed_streams_end_when_starts_and_ends_match() {
        let v = small_vocabulary();
        let (start, end, size, code) = (v.image_start(), v.image_end(), v.size_token(1).unwrap(), v.image_tokens()[0]);
        for (tokens, phase, in_image) in [
            (vec![end], Phase::Malformed, false),
            (vec![end, start], Phase::Text, false),
            (vec![start, start], Phase::Malformed, false),
            (vec![start, size, size, code, start, end], Phase::Malformed, true),
            (vec![start, size, size, code, start, end, end], Phase::Text, false),
            (vec![start, code], Phase::Malformed, true),
            (vec![start, size, code, code, end], Phase::Text, false),
            (vec![start, size, size, end], Phase::Text, false),
        ] {
            let state = after(&tokens);
            assert_eq!((state.phase(), state.in_image()), (phase, in_image), "{tokens:?}");
        }
    }

    #[test]
    fn only_text_is_counted() {
        let v = small_vocabulary();
        let size = v.size_token(1).unwrap();
        let text = (0..).find(|&token| !v.is_control(token) && token != v.pad()).unwrap();
        let state = after(&[text, v.image_start(), size, size, text, v.image_end(), text, v.turn_end()]);
        assert_eq!(state.text_tokens().collect::<Vec<_>>(), [(text, 2)]);
    }
}
