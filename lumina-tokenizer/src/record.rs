//! Conversations as training data states them: JSON records whose texts contain `<|image|>`.

use std::path::PathBuf;

use lumina_core::{Cause, CodeGrid, Vocabulary};

use crate::conversation::Role;
use crate::{Encoded, Error, Result, Specials, UniRep};

/// A record `{"conversations":[{"from":"human","value":…},{"from":"gpt","value":…}],"image":[paths]}`.
///
/// The images may also be one path, or under the key `<|image|>`. Other keys are ignored.
///
/// ```
/// let json = r#"{"conversations":[{"from":"human","value":"What? <|image|>"}],"image":"cat.png"}"#;
/// let record = lumina_tokenizer::Record::from_json(json)?;
/// assert_eq!(record.image, [std::path::Path::new("cat.png")]);
/// # Ok::<(), lumina_tokenizer::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "RawRecord")]
pub struct Record {
    /// The turns.
    pub conversations: Vec<RecordTurn>,
    /// The image files, in the order of their placeholders.
    pub image: Vec<PathBuf>,
}

/// A turn of a [`Record`].
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordTurn {
    /// `human`, or `gpt` or `assistant`, in any case.
    pub from: String,
    /// The text; null in an answer that is to be generated. The key is required.
    #[serde(deserialize_with = "Option::deserialize")]
    pub value: Option<String>,
}

#[derive(serde::Deserialize)]
struct RawRecord {
    conversations: Vec<RecordTurn>,
    image: Option<Paths>,
    #[serde(rename = "<|image|>")]
    symbol: Option<Paths>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Paths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl From<RawRecord> for Record {
    fn from(raw: RawRecord) -> Self {
        let image = match raw.symbol.or(raw.image) {
            None => Vec::new(),
            Some(Paths::One(path)) => vec![path],
            Some(Paths::Many(paths)) => paths,
        };
        Self { conversations: raw.conversations, image }
    }
}

impl Record {
    /// Reads a record, for example a line of a JSONL file.
    ///
    /// # Errors
    /// [`Error::Record`] where it is not of this form, for example where a turn lacks `from` or `value`.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| Error::Record(Cause::new(&error)))
    }

    /// The texts of the turns, without an open answer.
    fn texts(&self) -> Result<Vec<&str>> {
        let mut texts = Vec::with_capacity(self.conversations.len());
        for (turn, RecordTurn { from, value }) in self.conversations.iter().enumerate() {
            let role = Role::of_turn(turn);
            let names: &[&str] = match role {
                Role::Human => &["human"],
                Role::Assistant => &["gpt", "assistant"],
            };
            if !names.contains(&from.to_lowercase().as_str()) {
                return Err(Error::Role { turn, found: from.clone(), expected: role.name() });
            }
            match value {
                Some(text) => texts.push(text.as_str()),
                None if role == Role::Assistant && turn + 1 == self.conversations.len() => {}
                None => return Err(Error::OpenTurn { turn }),
            }
        }
        Ok(texts)
    }
}

impl UniRep {
    /// The tokens and labels of a record whose image files were encoded as `images`, exactly as in the original:
    /// names of special tokens in the texts become those tokens, and each `<|image|>` is replaced by the next image.
    /// If no text contains it, it is inserted before the first question, once per image.
    ///
    /// Mirrors `FlexARItemProcessor.process_item` of the original.
    ///
    /// # Errors
    /// [`Error::EmptyConversation`], [`Error::Role`], [`Error::OpenTurn`], [`Error::Placeholders`], and those of
    /// [`UniRep::encode_image`] and [`TextTokenizer::encode`](crate::TextTokenizer::encode).
    pub fn encode_record(&self, record: &Record, images: &[CodeGrid]) -> Result<Encoded> {
        let texts = record.texts()?;
        let none_placed = !texts.iter().any(|text| text.contains(Vocabulary::PLACEHOLDER));
        let mut turns = Vec::with_capacity(texts.len());
        for (index, text) in texts.into_iter().enumerate() {
            let before = if none_placed && index == 0 { images.len() } else { 0 };
            let text = format!("{} ", Vocabulary::PLACEHOLDER).repeat(before) + text;
            let mut tokens = self.text().encode(&text, Specials::Parse)?;
            tokens.push(self.vocabulary().turn_end());
            turns.push(tokens);
        }
        self.assemble(&turns, &images.iter().collect::<Vec<_>>())
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("conversations", &self.conversations.len())
            .field("image", &self.image.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RecordTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordTurn").field("bytes", &self.value.as_ref().map(String::len)).finish_non_exhaustive()
    }
}
