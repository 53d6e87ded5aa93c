//! Where the stream is after its tokens so far.

use std::collections::HashMap;
use std::sync::Arc;

use lumina_core::Vocabulary;
use lumina_core::layout::{Phase, Placement, StreamLayout};

/// Where a stream is after its tokens so far, kept token by token and never computed from the whole stream again.
///
/// It has the layout by [`StreamLayout::counting`], and the tokens of the text. The [`Grammar`](crate::Grammar) and the
/// [`Sampler`](crate::Sampler) derive from it what is allowed next.
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
/// let Phase::Rows(image) = state.phase() else { panic!("both sizes are known") };
/// assert_eq!((image.size().width_px(), image.size().height_px()), (64, 32));
/// assert_eq!((image.row(), image.column()), (0, 0));
/// ```
///
/// # Drafted tokens
/// [`StreamState::snapshot`] and [`StreamState::rollback`] go back to an earlier point of the same stream, as methods
/// that draft several tokens and accept some of them need. A snapshot is a `Copy` value of less than 100 bytes. A
/// rollback takes time in proportion to the text tokens that it removes, and allocates nothing.
///
/// ```
/// # use std::sync::Arc;
/// # use lumina_sampling::StreamState;
/// # let vocabulary = Arc::new(include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
/// # let mut state = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
/// # let (drafted, accepted) = ([20, 21, 22], 1);
/// let mut points = vec![state.snapshot()];
/// for token in drafted {
///     state.push(token);
///     points.push(state.snapshot());
/// }
/// state.rollback(points[accepted]);
/// assert_eq!(state.len(), 1 + accepted);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StreamState {
    vocabulary: Arc<Vocabulary>,
    layout: StreamLayout,
    /// The layout after the prompt.
    prompt: StreamLayout,
    /// How often each text token occurred.
    text_counts: HashMap<u32, u32>,
    /// The text tokens in their order, by which [`StreamState::rollback`] undoes the counts.
    text: Vec<u32>,
}

/// A point in a stream for [`StreamState::rollback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    layout: StreamLayout,
    n_text: usize,
}

impl StreamState {
    /// The state after `prompt`. What is pushed from here on is the answer.
    pub fn new(vocabulary: Arc<Vocabulary>, prompt: &[u32]) -> Self {
        let layout = StreamLayout::counting();
        let mut state = Self { vocabulary, layout, prompt: layout, text_counts: HashMap::new(), text: Vec::new() };
        for &token in prompt {
            state.push(token);
        }
        state.prompt = state.layout;
        state
    }

    /// Adds the next token of the stream. Any token is accepted, whatever the grammar says.
    pub fn push(&mut self, token: u32) {
        let role = self.vocabulary.role(token);
        if self.layout.push(role) == Placement::Text && !role.is_control() {
            *self.text_counts.entry(token).or_default() += 1;
            self.text.push(token);
        }
    }

    /// The point where the stream is now. Constant time, no heap.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { layout: self.layout, n_text: self.text.len() }
    }

    /// Removes the tokens that were pushed since `snapshot`. The snapshot must be of this state, and of tokens that are
    /// still in the stream.
    pub fn rollback(&mut self, snapshot: Snapshot) {
        self.layout = snapshot.layout;
        for token in self.text.drain(snapshot.n_text.min(self.text.len())..) {
            match self.text_counts.get_mut(&token) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.text_counts.remove(&token)),
            }
        }
    }

    /// The roles of the stream's tokens.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
    /// Where the stream is in its layout.
    pub fn layout(&self) -> StreamLayout {
        self.layout
    }
    /// Tokens so far, which is the position of the next one.
    #[expect(clippy::len_without_is_empty, reason = "a position; emptiness means nothing here")]
    pub fn len(&self) -> usize {
        self.layout.len()
    }
    /// Tokens since the prompt.
    pub fn answer_len(&self) -> usize {
        self.len() - self.prompt.len()
    }
    /// Images ended since the prompt.
    pub fn answer_images(&self) -> usize {
        self.layout.image_ends() - self.prompt.image_ends()
    }
    /// What the next token belongs to.
    pub fn phase(&self) -> Phase {
        self.layout.phase()
    }
    /// Whether the stream has exactly one more image-start than image-ends.
    pub fn in_image(&self) -> bool {
        self.layout.in_image()
    }
    /// The distinct tokens of text so far, prompt included, and how often each occurred; in no particular order.
    /// Tokens with a role in the layout (images, the ends of turns) are not among them.
    pub fn text_tokens(&self) -> impl Iterator<Item = (u32, u32)> {
        self.text_counts.iter().map(|(&token, &count)| (token, count))
    }
}

impl std::fmt::Debug for StreamState {
    /// Where the stream is, without its tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamState")
            .field("layout", &self.layout)
            .field("text_tokens", &self.text.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use lumina_core::layout::Slot;

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
                let code = Slot::Code { row: row as u32, column: column as u32 };
                assert_eq!((image.row(), image.column(), image.expected()), (row, column, code));
                tokens.push(v.image_tokens()[0]);
            }
            let Phase::Rows(image) = after(&tokens).phase() else { panic!("in the rows") };
            assert_eq!((image.start(), image.expected()), (1, Slot::RowEnd { row: row as u32 }));
            tokens.push(v.row_end());
        }
        let Phase::Rows(image) = after(&tokens).phase() else { panic!("in the rows") };
        assert_eq!(image.expected(), Slot::ImageEnd);
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
