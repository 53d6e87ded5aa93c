//! Text, decoded one token at a time.

use crate::TextTokenizer;

/// Decodes tokens one by one into text that never breaks a character.
///
/// The pieces, with that of [`finish`](Self::finish), are exactly [`TextTokenizer::decode`] of all the tokens.
///
/// ```
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer");
/// let tokenizer = lumina_tokenizer::TextTokenizer::open(folder)?;
/// let mut stream = tokenizer.stream();
/// let mut text = String::new();
/// for id in tokenizer.encode("世界", Default::default())? {
///     text.extend(stream.push(id));
/// }
/// text.extend(stream.finish());
/// assert_eq!(text, "世界");
/// # Ok::<(), lumina_tokenizer::Error>(())
/// ```
#[derive(Clone)]
pub struct TextStream {
    tokenizer: TextTokenizer,
    /// The first bytes of an incomplete character, at most three.
    pending: Vec<u8>,
}

impl TextStream {
    pub(crate) fn new(tokenizer: TextTokenizer) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// Decodes a token. Returns the text that is complete, `None` where there is none yet.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.pending.extend(self.tokenizer.bytes(id)?);
        let tail = self.pending.split_off(self.pending.len() - unfinished(&self.pending));
        let piece = text(std::mem::replace(&mut self.pending, tail));
        (!piece.is_empty()).then_some(piece)
    }

    /// Whether a token is special: see [`TextTokenizer::is_special`].
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.tokenizer.is_special(id)
    }

    /// Ends the text. Returns an incomplete character as U+FFFD. The stream can be used again.
    pub fn finish(&mut self) -> Option<String> {
        let piece = text(std::mem::take(&mut self.pending));
        (!piece.is_empty()).then_some(piece)
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The number of bytes at the end that are the beginning of a character which may still be completed.
///
/// They begin with a lead byte, where UTF-8 decoding restarts whatever came before, so a cut there does not change the
/// text.
fn unfinished(bytes: &[u8]) -> usize {
    let begins_character = |end: &[u8]| {
        std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=bytes.len().min(3)).find(|length| begins_character(&bytes[bytes.len() - length..])).unwrap_or(0)
}

impl std::fmt::Debug for TextStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextStream")
            .field("tokenizer", &self.tokenizer)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_completed_is_held_back() {
        let held = |bytes: &[u8]| unfinished(bytes);
        assert_eq!(held(b""), 0);
        assert_eq!(held(b"a"), 0);
        assert_eq!(held("é".as_bytes()), 0);
        assert_eq!(held(b"a\xC3"), 1);
        assert_eq!(held(b"\xF0\x9F\x98"), 3);
        assert_eq!(held(b"\xE4\xE4\xBD"), 2);
        // Neither a lone continuation nor an overlong lead can become a character.
        assert_eq!(held(b"\xBD"), 0);
        assert_eq!(held(b"\xC0"), 0);
        assert_eq!(held(b"\xED\xA0"), 0);
    }
}
