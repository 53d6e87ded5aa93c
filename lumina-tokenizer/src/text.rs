//! Text to token ids and back: the byte-level BPE tokenizer of a checkpoint's `tokenizer.json`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lumina_core::{Cause, Limits, Vocabulary};
use tokenizers::{AddedToken, NormalizedString, Normalizer, Tokenizer};

use crate::tokenizer_file::{TokenizerFile, build};
use crate::{Error, Result, TextStream};

/// How names of special tokens in a text, such as `"<reserved08706>"`, are encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Specials {
    /// As plain text: no text can become a special token. For text that users type. Words that were added to the
    /// vocabulary (`"special": false` in the file) are tokens all the same, unless their name has a role in the stream.
    #[default]
    Plain,
    /// As the tokens that they name, as in the original. For text that the caller trusts.
    Parse,
}

/// The text tokenizer of a checkpoint: byte-level BPE with special tokens.
///
/// Cloning is cheap, and threads may share one. Mirrors `model/tokenizer.py::Tokenizer` of the original.
///
/// ```
/// use lumina_tokenizer::{Specials, TextTokenizer};
///
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer");
/// let tokenizer = TextTokenizer::open(folder)?;
/// let turn_end = tokenizer.vocabulary()?.turn_end();
///
/// assert_eq!(tokenizer.encode("<reserved08706>", Specials::Parse)?, [turn_end]);
/// let plain = tokenizer.encode("<reserved08706>", Specials::Plain)?;
/// assert!(!plain.contains(&turn_end));
/// assert_eq!(tokenizer.decode(&plain), "<reserved08706>");
/// # Ok::<(), lumina_tokenizer::Error>(())
/// ```
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    file: PathBuf,
    /// As in the file, with `<|image|>`.
    full: Encoder,
    /// The same BPE without special tokens, which it therefore cannot produce.
    plain: Encoder,
    /// Names that are text rather than bytes.
    texts: HashSet<String>,
    /// The tokens that the latter lacks.
    specials: HashSet<u32>,
    /// The most bytes of text that a token stands for, unless it is unbounded.
    max_token_bytes: u64,
    /// Whether a token can stand for a text of any length.
    has_unbounded_token: bool,
}

/// A tokenizer, and the bytes of text that it would leave out.
struct Encoder {
    tokenizer: Tokenizer,
    missing_bytes: Vec<u8>,
}

impl TextTokenizer {
    /// Opens `tokenizer.json`: the file itself, or the folder that contains it.
    ///
    /// A file without `<|image|>` gets it as its next free id, as the original adds it. The model must be a byte-level
    /// BPE. Around it these parts are read, in a sequence or alone, and others are refused:
    ///
    /// - `normalizer`: null, `NFC`, `NFD`, `NFKC`, `NFKD`, `Lowercase`, and once each `Prepend` and `Replace` of short
    ///   literal texts.
    /// - `pre_tokenizer`: `ByteLevel`, required, and `Split`, `Digits` and `Punctuation`, which must not
    ///   remove text. A `Split` takes a short literal text, a pattern of a published tokenizer, or a regular expression
    ///   without look-around in which nothing comes after an unbounded repetition.
    /// - `added_tokens` may take the whitespace next to them away (`lstrip`, `rstrip`), as in the original.
    /// - `post_processor`, `truncation` and `padding` are not used, as in the original.
    ///
    /// # Errors
    /// [`Error::Core`] where the file cannot be read, [`Error::Json`], [`Error::Unsupported`],
    /// [`Error::TokenizerPart`], [`Error::TokenizerSize`], [`Error::Tokenizer`], [`Error::DuplicateId`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let description = TokenizerFile::parse(&lumina_core::file::read_document(&file)?, &file)?;
        Self::of(description, file)
    }

    /// The tokenizer of a `tokenizer.json` in memory; errors name it `file`.
    ///
    /// # Errors
    /// As [`TextTokenizer::open`].
    pub fn from_json(json: &[u8], file: impl Into<PathBuf>) -> Result<Self> {
        let file = file.into();
        let description = TokenizerFile::parse(json, &file)?;
        Self::of(description, file)
    }

    fn of(mut description: TokenizerFile, file: PathBuf) -> Result<Self> {
        let missing_bytes = description.missing_bytes();
        let mut full = Encoder { tokenizer: build(&description.to_json()?, &file)?, missing_bytes };
        full.tokenizer.add_tokens(&[AddedToken::from(Vocabulary::PLACEHOLDER, false)]);
        let ids = full.tokenizer.get_vocab(true);
        check_unique(&ids, &file)?;
        let texts = description.added_texts();
        let longest = ids.keys().map(|name| bytes_of(name, &texts).len() as u64).max().unwrap_or(1);
        let max_token_bytes = longest.saturating_mul(description.max_ratio());
        let has_unbounded_token = description.has_unbounded_token();
        if description.has_unknown_token() {
            // As in the original, what is unknown is that token.
            full.missing_bytes.clear();
        }
        description.remove_specials(&ids);
        let (missing_bytes, json) = (description.missing_bytes(), description.to_json()?);
        // A large vocabulary takes hundreds of megabytes in each of its forms.
        drop(description);
        let mut specials: HashSet<u32> = ids.into_values().collect();
        let plain = Encoder { tokenizer: build(&json, &file)?, missing_bytes };
        specials.retain(|&id| plain.tokenizer.id_to_token(id).is_none());
        specials.shrink_to_fit();
        let inner = Inner { file, full, plain, texts, specials, max_token_bytes, has_unbounded_token };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The tokens of a text, without `<s>`. The text has at most
    /// [`Limits::message_bytes`](lumina_core::Limits::message_bytes) by default.
    ///
    /// # Errors
    /// Those of [`TextTokenizer::encode_up_to`].
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>> {
        self.encode_up_to(text, specials, Limits::default().message_bytes)
    }

    /// The tokens of a text that has at most `limit` bytes, before and after it is normalized, without `<s>`. Encoding
    /// takes up to 600 times as much memory.
    ///
    /// # Errors
    /// [`Error::TextTooLong`]; [`Error::NoToken`] where the vocabulary lacks a byte of the text, which would be left
    /// out; [`Error::Encode`].
    pub fn encode_up_to(&self, text: &str, specials: Specials, limit: u64) -> Result<Vec<u32>> {
        let check = |bytes: usize| {
            let bytes = bytes as u64;
            if bytes > limit { Err(Error::TextTooLong { bytes, limit }) } else { Ok(()) }
        };
        check(text.len())?;
        let encoder = match specials {
            Specials::Plain => &self.inner.plain,
            Specials::Parse => &self.inner.full,
        };
        let failed = |error: tokenizers::Error| Error::Encode { length: text.len(), source: Cause::new(&error) };
        // A character can become eighteen.
        let normalized = encoder.normalize(text).map_err(failed)?;
        check(normalized.len())?;
        let encoding = encoder.tokenizer.encode_fast(text, false).map_err(failed)?;
        let ids = encoding.get_ids().to_vec();
        match self.lost_byte(encoder, &normalized, &ids) {
            Some(byte) => Err(Error::NoToken { file: self.inner.file.clone(), byte }),
            None => Ok(ids),
        }
    }

    /// A byte of the normalized text that its tokens lack.
    fn lost_byte(&self, encoder: &Encoder, normalized: &str, ids: &[u32]) -> Option<u8> {
        if encoder.missing_bytes.is_empty() {
            return None;
        }
        let encoded: Vec<u8> = ids.iter().filter_map(|&id| self.bytes(id)).flatten().collect();
        let count = |bytes: &[u8], byte: u8| bytes.iter().filter(|&&other| other == byte).count();
        let lost = |&byte: &u8| count(&encoded, byte) < count(normalized.as_bytes(), byte);
        encoder.missing_bytes.iter().copied().find(lost)
    }

    /// The most bytes of text that `tokens` tokens can stand for: that many of the vocabulary's longest, which a
    /// normalizer may have shortened. A longer text need not be encoded to know that it does not fit.
    ///
    /// Where a token takes any amount of whitespace away (`lstrip`, `rstrip`) or stands for any number of unknown
    /// bytes, it is at least [`Limits::message_bytes`](lumina_core::Limits::message_bytes), which texts are held to
    /// there.
    pub fn max_text_bytes(&self, tokens: usize) -> u64 {
        let bytes = self.inner.max_token_bytes.saturating_mul(tokens as u64);
        if self.inner.has_unbounded_token { bytes.max(Limits::default().message_bytes) } else { bytes }
    }

    /// The text of tokens. Special tokens appear as their names, ids that the tokenizer lacks are skipped, and bytes
    /// that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.bytes(id)).flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder of tokens one by one.
    pub fn stream(&self) -> TextStream {
        TextStream::new(self.clone())
    }

    /// The bytes of a token, which need not be whole characters.
    pub(crate) fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.name_of(id).map(|name| bytes_of(&name, &self.inner.texts))
    }

    /// The id of a token, by its name in the file.
    pub fn id_of(&self, name: &str) -> Option<u32> {
        self.inner.full.tokenizer.token_to_id(name)
    }

    /// The name of a token in the file.
    pub fn name_of(&self, id: u32) -> Option<String> {
        self.inner.full.tokenizer.id_to_token(id)
    }

    /// Whether a token is special: one that no text becomes with [`Specials::Plain`], such as an image token or
    /// `<reserved00042>`. [`TextTokenizer::decode`] gives its name.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.specials.contains(&id)
    }

    /// The number of tokens, including `<|image|>`.
    pub fn n_tokens(&self) -> usize {
        self.inner.full.tokenizer.get_vocab_size(true)
    }

    /// The file that the tokenizer was read from.
    pub fn file(&self) -> &Path {
        &self.inner.file
    }

    /// Which token has which role in the stream, by the names in the file.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] where the file lacks a token that the stream needs.
    pub fn vocabulary(&self) -> Result<Vocabulary> {
        let tokens = self.inner.full.tokenizer.get_vocab(true);
        Vocabulary::from_tokens(tokens.iter().map(|(name, &id)| (name.as_str(), id)))
            .map_err(|reason| Error::Vocabulary { file: self.inner.file.clone(), reason: Box::new(reason) })
    }

    /// Checks that a model with `vocab_size` rows of embedding has one for every token; `<|image|>` needs none.
    ///
    /// # Errors
    /// [`Error::VocabularySize`] with the largest id.
    pub fn check_fits(&self, vocab_size: usize) -> Result<()> {
        let tokens = self.inner.full.tokenizer.get_vocab(true);
        let largest = tokens.into_iter().filter(|(name, _)| name != Vocabulary::PLACEHOLDER).max_by_key(|&(_, id)| id);
        match largest {
            Some((name, id)) if id as usize >= vocab_size => {
                Err(Error::VocabularySize { file: self.inner.file.clone(), name, id, vocab_size })
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("TextTokenizer");
        debug.field("file", &self.inner.file).field("n_tokens", &self.n_tokens()).finish()
    }
}

impl Encoder {
    /// The text as it is split into words.
    fn normalize<'t>(&self, text: &'t str) -> tokenizers::Result<Cow<'t, str>> {
        let Some(normalizer) = self.tokenizer.get_normalizer() else { return Ok(Cow::Borrowed(text)) };
        let mut normalized = NormalizedString::from(text);
        normalizer.normalize(&mut normalized)?;
        Ok(Cow::Owned(normalized.get().to_owned()))
    }
}

/// The bytes of the token with this name; `texts` are the names that are text.
fn bytes_of(name: &str, texts: &HashSet<String>) -> Vec<u8> {
    // A name with a character outside the byte alphabet does not encode bytes, but is the text itself.
    let bytes: Option<Vec<u8>> = if texts.contains(name) { None } else { name.chars().map(byte_of_char).collect() };
    bytes.unwrap_or_else(|| name.as_bytes().to_vec())
}

/// Checks that each id has one name. With two names text with the one would decode to the other.
fn check_unique(ids: &HashMap<String, u32>, file: &Path) -> Result<()> {
    let mut tokens: Vec<(u32, &str)> = ids.iter().map(|(name, &id)| (id, name.as_str())).collect();
    tokens.sort_unstable();
    for pair in tokens.windows(2) {
        if let &[(id, first), (other, second)] = pair
            && id == other
        {
            let (first, second) = (first.to_owned(), second.to_owned());
            return Err(Error::DuplicateId { file: file.to_owned(), id, first, second });
        }
    }
    Ok(())
}

/// The byte that a character of a byte-level token encodes: printable bytes encode themselves, the others are numbered
/// from U+0100 in order. Mirrors `bytes_to_unicode` of GPT-2's `encoder.py`.
pub(crate) fn byte_of_char(character: char) -> Option<u8> {
    let point = u32::from(character);
    let byte = match point {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => point,
        0x100..=0x120 => point - 0x100,
        0x121..=0x142 => point - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_that_of_the_tokenizers_crate() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.into_iter().filter_map(byte_of_char).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!((0..0x11_0000).filter_map(char::from_u32).filter_map(byte_of_char).count(), 256);
    }

    #[test]
    fn it_can_be_shared() {
        fn shared<T: Send + Sync + Clone>() {}
        shared::<TextTokenizer>();
    }
}
