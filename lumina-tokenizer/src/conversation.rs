//! Conversations of text and images, and their tokens and labels.

use lumina_core::CodeGrid;

use crate::{Error, Result, Specials, UniRep};

/// The label of a token that training does not predict.
pub const IGNORED: i64 = -100;

/// Turns of a human and the assistant, the human first.
///
/// Where the last turn is the human's, it is an open prompt: what comes next is the answer. Where the assistant's
/// turns are given, they are what training learns.
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
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Conversation {
    /// The turns, in their order.
    pub turns: Vec<Turn>,
    /// What becomes of special tokens that are spelled out in the texts.
    #[serde(default)]
    pub specials: Specials,
}

/// What one side says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Turn {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

/// A side of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The one who asks.
    Human,
    /// The model.
    #[serde(alias = "gpt")]
    Assistant,
}

impl Role {
    /// Whose turn it is, counted from 0.
    pub(crate) fn of_turn(index: usize) -> Self {
        if index.is_multiple_of(2) { Self::Human } else { Self::Assistant }
    }

    /// As error messages name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Assistant => "assistant",
        }
    }
}

/// Text and images in their order.
///
/// Made from a text, an image, or a list of [`Part`]s.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Content(pub Vec<Part>);

/// A piece of a turn.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Text. Texts that follow each other are one text.
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

    /// Sets what becomes of special tokens that are spelled out in the texts.
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

/// The tokens of a conversation, and what training predicts of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens, from `<s>` on.
    pub tokens: Vec<u32>,
    /// For each token itself where it belongs to the assistant, [`IGNORED`] where not. Not shifted.
    pub labels: Vec<i64>,
}

impl Encoded {
    /// Passes it on if training has something to learn from it.
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
    /// [`Specials::Parse`] spells out the placeholder, which no image is there for.
    pub fn encode(&self, conversation: &Conversation) -> Result<Encoded> {
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
                        tokens.extend(self.text().encode(&std::mem::take(&mut text), conversation.specials)?);
                        tokens.push(self.vocabulary().placeholder());
                        images.push(image);
                    }
                }
            }
            tokens.extend(self.text().encode(&text, conversation.specials)?);
            tokens.push(self.vocabulary().turn_end());
            turns.push(tokens);
        }
        self.assemble(&turns, &images)
    }

    /// Joins turns whose images are still placeholders: the human's at even indices, the assistant's at odd ones.
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
            let said = &encoded.tokens[begin..];
            match Role::of_turn(index) {
                Role::Human => encoded.labels.extend(said.iter().map(|_| IGNORED)),
                Role::Assistant => encoded.labels.extend(said.iter().map(|&token| i64::from(token))),
            }
        }
        Ok(encoded)
    }
}
