//! Conversations of text and images, and their tokens and labels.

use lumina_core::{CodeGrid, Limits};

use crate::{Error, Result, Specials, UniRep};

/// The label of a token that training does not predict.
pub const IGNORED: i64 = -100;

/// Turns of a human and the assistant, the human first.
///
/// If the last turn is the human's, the conversation is a prompt, to which the model generates the answer. The
/// assistant's turns are what training learns.
///
/// ```
/// use lumina_tokenizer::{Conversation, Part, UniRep};
///
/// let unirep = UniRep::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer"))?;
/// let image = lumina_core::CodeGrid::new(2, 2, vec![1, 2, 3, 4])?;
/// let prompt = Conversation::new().human([Part::from("What is in "), image.into(), "?".into()]);
/// let tokens = unirep.encode(&prompt)?.tokens;
/// assert_eq!(tokens.first(), Some(&unirep.vocabulary().bos()));
/// assert_eq!(tokens.last(), Some(&unirep.vocabulary().turn_end()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A conversation that is read (serde), for example from a request of a client, has its texts as plain text: only the
/// program can say that it trusts them. `specials` other than `plain` and unknown keys are errors.
///
/// ```
/// use lumina_tokenizer::Conversation;
/// let read = serde_json::from_str::<Conversation>;
/// assert!(read(r#"{"turns": [{"role": "human", "content": "Hello"}]}"#).is_ok());
/// let error = read(r#"{"turns": [], "specials": "parse"}"#).unwrap_err().to_string();
/// assert!(error.contains("`specials` cannot be `parse` here"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// The turns, in order.
    pub turns: Vec<Turn>,
    /// How names of special tokens in the texts are encoded.
    #[serde(default, deserialize_with = "plain", skip_serializing_if = "is_plain")]
    pub specials: Specials,
}

fn is_plain(specials: &Specials) -> bool {
    *specials == Specials::Plain
}

/// Reads [`Specials`] from elsewhere, where special tokens of a text could end turns.
fn plain<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Specials, D::Error> {
    match serde::Deserialize::deserialize(deserializer)? {
        Specials::Plain => Ok(Specials::Plain),
        Specials::Parse => Err(serde::de::Error::custom(
            "`specials` cannot be `parse` here, as special tokens of a text can end turns; a program that trusts the \
             texts calls `Conversation::specials` after reading",
        )),
    }
}

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Whose turn it is.
    pub role: Role,
    /// Its text and images.
    pub content: Content,
}

/// A participant of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The human, who asks.
    Human,
    /// The model, which answers.
    #[serde(alias = "gpt")]
    Assistant,
}

impl Role {
    /// The role of a turn, counted from 0.
    pub(crate) fn of_turn(index: usize) -> Self {
        if index.is_multiple_of(2) { Self::Human } else { Self::Assistant }
    }

    /// Its name in error messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Assistant => "assistant",
        }
    }
}

/// Text and images in order.
///
/// Converts from a text, an image, or a list of [`Part`]s. With serde it is a list of parts, or a string where it is
/// text alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content(pub Vec<Part>);

impl serde::Serialize for Content {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [Part::Text(text)] => serializer.serialize_str(text),
            parts => parts.serialize(serializer),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// Reads either form, with the errors of its parts: an untagged enum would say that neither fits.
struct ContentVisitor;

impl<'de> serde::de::Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text, or a list of {\"text\": …} and {\"image\": …}")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Content, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> std::result::Result<Content, E> {
        Ok(text.into())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, parts: A) -> std::result::Result<Content, A::Error> {
        serde::Deserialize::deserialize(serde::de::value::SeqAccessDeserializer::new(parts)).map(Content)
    }
}

/// A piece of a turn.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Text. Consecutive texts are joined.
    Text(String),
    /// An image.
    Image(CodeGrid),
}

impl From<&str> for Part {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Part {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<CodeGrid> for Part {
    fn from(image: CodeGrid) -> Self {
        Self::Image(image)
    }
}
impl<P: Into<Part>> From<P> for Content {
    fn from(part: P) -> Self {
        Self(vec![part.into()])
    }
}
impl<const N: usize> From<[Part; N]> for Content {
    fn from(parts: [Part; N]) -> Self {
        Self(parts.into())
    }
}
impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Self(parts)
    }
}

impl Conversation {
    /// A conversation without turns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a turn of the human.
    #[must_use]
    pub fn human(self, content: impl Into<Content>) -> Self {
        self.turn(Role::Human, content)
    }

    /// Adds a turn of the assistant.
    #[must_use]
    pub fn assistant(self, content: impl Into<Content>) -> Self {
        self.turn(Role::Assistant, content)
    }

    /// Sets how names of special tokens in the texts are encoded.
    #[must_use]
    pub fn specials(mut self, specials: Specials) -> Self {
        self.specials = specials;
        self
    }

    fn turn(mut self, role: Role, content: impl Into<Content>) -> Self {
        self.turns.push(Turn { role, content: content.into() });
        self
    }
}

/// The tokens of a conversation, and their labels for training.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens, from `<s>` on.
    pub tokens: Vec<u32>,
    /// One label per token: the token if it is the assistant's, else [`IGNORED`]. Not shifted.
    pub labels: Vec<i64>,
}

impl Encoded {
    /// Returns itself, if training can learn from it.
    ///
    /// # Errors
    /// [`Error::NothingToPredict`] where every label is ignored.
    pub fn for_training(self) -> Result<Self> {
        if self.labels.iter().all(|&label| label == IGNORED) { Err(Error::NothingToPredict) } else { Ok(self) }
    }
}

impl UniRep {
    /// The tokens and labels of a conversation: `<s>`, then each turn followed by the token that ends a turn.
    ///
    /// Mirrors `FlexARItemProcessor.process_item` of the original.
    ///
    /// # Errors
    /// [`Error::EmptyConversation`], [`Error::Role`], those of [`UniRep::encode_image`] and
    /// [`TextTokenizer::encode`](crate::TextTokenizer::encode), and [`Error::Placeholders`] where a text with
    /// [`Specials::Parse`] contains the placeholder, for which there is no image.
    pub fn encode(&self, conversation: &Conversation) -> Result<Encoded> {
        self.encode_up_to(conversation, Limits::default().message_bytes)
    }

    /// [`UniRep::encode`] for a model whose context holds `context` tokens: texts that cannot fit are not encoded, and
    /// there is no other limit to them. What fits by its bytes can still have more tokens.
    ///
    /// # Errors
    /// [`Error::ConversationTooLong`], and those of [`UniRep::encode`].
    pub fn encode_within(&self, conversation: &Conversation, context: usize) -> Result<Encoded> {
        let length = |part: &Part| match part {
            Part::Text(text) => text.len() as u64,
            Part::Image(_) => 0,
        };
        let bytes = conversation.turns.iter().flat_map(|turn| &turn.content.0).map(length).sum();
        let limit = self.text().max_text_bytes(context);
        if bytes > limit {
            return Err(Error::ConversationTooLong { bytes, limit, context });
        }
        self.encode_up_to(conversation, limit)
    }

    /// Encodes texts of at most `limit` bytes each.
    fn encode_up_to(&self, conversation: &Conversation, limit: u64) -> Result<Encoded> {
        let encode = |text: &str| self.text().encode_up_to(text, conversation.specials, limit);
        let mut images = Vec::new();
        let mut turns = Vec::with_capacity(conversation.turns.len());
        for (index, turn) in conversation.turns.iter().enumerate() {
            let expected = Role::of_turn(index);
            if turn.role != expected {
                let found = turn.role.name().to_owned();
                return Err(Error::Role { turn: index, found, expected: expected.name() });
            }
            let mut tokens = Vec::new();
            let mut text = String::new();
            for part in &turn.content.0 {
                match part {
                    Part::Text(more) => text.push_str(more),
                    Part::Image(image) => {
                        tokens.extend(encode(&std::mem::take(&mut text))?);
                        tokens.push(self.vocabulary().placeholder());
                        images.push(image);
                    }
                }
            }
            tokens.extend(encode(&text)?);
            tokens.push(self.vocabulary().turn_end());
            turns.push(tokens);
        }
        self.assemble(&turns, &images)
    }

    /// Joins the tokens of turns and replaces placeholders by images. Even turns are the human's, odd ones the
    /// assistant's.
    pub(crate) fn assemble(&self, turns: &[Vec<u32>], images: &[&CodeGrid]) -> Result<Encoded> {
        if turns.is_empty() {
            return Err(Error::EmptyConversation);
        }
        let placeholder = self.vocabulary().placeholder();
        let placeholders = turns.iter().flatten().filter(|&&token| token == placeholder).count();
        if placeholders != images.len() {
            return Err(Error::Placeholders { placeholders, images: images.len() });
        }
        let mut images = images.iter();
        let mut encoded = Encoded { tokens: vec![self.vocabulary().bos()], labels: vec![IGNORED] };
        for (index, turn) in turns.iter().enumerate() {
            let begin = encoded.tokens.len();
            for &token in turn {
                match images.as_slice().first() {
                    Some(image) if token == placeholder => {
                        self.append_image(&mut encoded.tokens, image)?;
                        images.next();
                    }
                    _ => encoded.tokens.push(token),
                }
            }
            let turn_tokens = &encoded.tokens[begin..];
            match Role::of_turn(index) {
                Role::Human => encoded.labels.extend(turn_tokens.iter().map(|_| IGNORED)),
                Role::Assistant => encoded.labels.extend(turn_tokens.iter().map(|&token| i64::from(token))),
            }
        }
        Ok(encoded)
    }
}

impl std::fmt::Debug for Conversation {
    /// The number of turns, without what was said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("turns", &self.turns.len())
            .field("specials", &self.specials)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content(<{} parts>)", self.0.len())
    }
}

impl std::fmt::Debug for Part {
    /// The length of a text, and the size of an image.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text(<{} bytes>)", text.len()),
            Self::Image(codes) => f.debug_tuple("Image").field(codes).finish(),
        }
    }
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoded").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}
