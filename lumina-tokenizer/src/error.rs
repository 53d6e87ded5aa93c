//! The errors of this crate.

use std::path::PathBuf;

use lumina_core::{Cause, ImageSize, quoted, shown};

use crate::MalformedImage;

/// The results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in `lumina-tokenizer`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or read, an image whose sides the stream cannot state.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
    /// A file is not JSON, or not of the form that is needed.
    #[error("{}: not a JSON file of the expected form; is it whole, and the right file?", shown(file))]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong, with line and column.
        #[source]
        source: Cause,
    },
    /// The parts of a `tokenizer.json` do not fit together.
    #[error("{}: the tokenizer that it describes cannot be built; is the file whole?", shown(file))]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// The error of the `tokenizers` crate.
        #[source]
        source: Cause,
    },
    /// A part of a `tokenizer.json` that would lose text, or take any amount of time or memory, or is not known.
    #[error(
        "{}: the tokenizer cannot be built: its `{part}` {reason}; save the tokenizer with what is supported, {supported}, \
         or use the file of the published checkpoint",
        shown(file)
    )]
    TokenizerPart {
        /// The file.
        file: PathBuf,
        /// The part: `normalizer` or `pre_tokenizer`.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
        /// What is supported there.
        supported: &'static str,
    },
    /// A `tokenizer.json` with more of something than any tokenizer has.
    #[error("{}: {found} {what}, more than the limit of {limit}; is it the right file?", shown(file))]
    TokenizerSize {
        /// The file.
        file: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// The most that there may be.
        limit: usize,
    },
    /// A `tokenizer.json` of a kind whose result would differ from the original's.
    #[error(
        "{}: `{field}` is {found}, but only {supported} is supported; is this the tokenizer of a Chameleon or \
         Lumina-mGPT model?",
        shown(file)
    )]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The field, as a path in the JSON.
        field: &'static str,
        /// Its value.
        found: String,
        /// The supported values.
        supported: &'static str,
    },
    /// Two tokens of a tokenizer have one id.
    #[error(
        "{}: id {id} belongs to both {} and {}; each token needs an id of its own, and an added \
         one that the vocabulary lacks takes the number of tokens",
        shown(file),
        quoted(first),
        quoted(second)
    )]
    DuplicateId {
        /// The file.
        file: PathBuf,
        /// The id.
        id: u32,
        /// One of the names.
        first: String,
        /// The other name.
        second: String,
    },
    /// A tokenizer lacks tokens that the model's stream needs.
    #[error("{}: {reason}", shown(file))]
    Vocabulary {
        /// The file.
        file: PathBuf,
        /// What is missing.
        reason: Box<lumina_core::Error>,
    },
    /// Two files give one VQ code different tokens.
    #[error(
        "the image token of code {code} is {} in {} but {} in {}; the two files are not of one model",
        id_or_none(*first), shown(first_file), id_or_none(*second), shown(second_file)
    )]
    ImageTokens {
        /// The first code on which they disagree.
        code: u32,
        /// One of the files.
        first_file: PathBuf,
        /// Its token for the code.
        first: Option<u32>,
        /// The other file.
        second_file: PathBuf,
        /// Its token for the code.
        second: Option<u32>,
    },
    /// The tokenizer has tokens that the model has no embedding for.
    #[error(
        "{}: token {} has id {id}, but the model's vocabulary ends at {vocab_size}; tokenizer and model are \
         not of one checkpoint",
        shown(file),
        quoted(name)
    )]
    VocabularySize {
        /// The tokenizer's file.
        file: PathBuf,
        /// The token with the largest id.
        name: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// A text of more bytes than may be encoded.
    #[error(
        "a text of {bytes} bytes is longer than the limit of {limit} bytes; shorten it, or encode it in parts or with \
         `TextTokenizer::encode_up_to`"
    )]
    TextTooLong {
        /// Bytes of the text.
        bytes: u64,
        /// The most that may be encoded.
        limit: u64,
    },
    /// A conversation whose text cannot fit the model's context.
    #[error(
        "the conversation has {bytes} bytes of text, and {context} tokens of context hold {limit} at most; shorten \
         it, or leave out turns"
    )]
    ConversationTooLong {
        /// Bytes of all its texts.
        bytes: u64,
        /// The most bytes that so many tokens can stand for.
        limit: u64,
        /// Tokens of the context.
        context: usize,
    },
    /// A text with a byte that no token encodes.
    #[error(
        "{}: the vocabulary has no token for byte {byte:#04X} of the text, which would be left out; use the tokenizer \
         that the model was trained with",
        shown(file)
    )]
    NoToken {
        /// The tokenizer's file.
        file: PathBuf,
        /// The byte.
        byte: u8,
    },
    /// The tokenizer could not encode a text.
    #[error("a text of {length} bytes cannot be encoded")]
    Encode {
        /// Length of the text in bytes.
        length: usize,
        /// The error of the `tokenizers` crate.
        #[source]
        source: Cause,
    },
    /// An image larger than the vocabulary has size tokens for.
    #[error(
        "an image of {size} pixels needs a size token for {cells} cells of 32 pixels, but the vocabulary's end at \
         {largest_px} pixels a side; resize images to the target size that the model was trained with"
    )]
    SizeToken {
        /// The image's size.
        size: ImageSize,
        /// The side that has no token, in cells.
        cells: u32,
        /// The longest side that has a size token, in pixels.
        largest_px: u32,
    },
    /// A VQ code that has no token.
    #[error(
        "code {code} (row {row}, column {column}) has no token: the vocabulary has {n_codes} codes; is the image \
         tokenizer of another model?"
    )]
    Code {
        /// The code.
        code: u32,
        /// Row of the grid.
        row: u32,
        /// Column of the grid.
        column: u32,
        /// Codes that have a token.
        n_codes: usize,
    },
    /// An image that is cut off or does not follow the layout.
    #[error("{0}; decode with `Malformed::Partial` to keep its complete rows")]
    Malformed(Box<MalformedImage>),
    /// A record that is not JSON of the form `{"conversations":[{"from":…,"value":…}],"image":[…]}`.
    #[error("not a conversation record: each turn needs `from` and `value`, and `image` is a path or a list of paths")]
    Record(#[source] Cause),
    /// A conversation without turns.
    #[error("the conversation has no turns; begin with a human turn")]
    EmptyConversation,
    /// The roles of a conversation do not alternate.
    #[error(
        "turn {turn} is by {}, expected {expected}: human and assistant take turns, the human first",
        quoted(found)
    )]
    Role {
        /// Index of the turn, from 0.
        turn: usize,
        /// The role that was found.
        found: String,
        /// The role that was expected.
        expected: &'static str,
    },
    /// A turn without text that is not the last answer.
    #[error("turn {turn} has no text; only the last turn may be open, and only if it is the assistant's")]
    OpenTurn {
        /// Index of the turn, from 0.
        turn: usize,
    },
    /// The number of placeholders in the texts is not the number of images.
    #[error(
        "the conversation has {placeholders} `<|image|>` in its text but {images} images; the numbers must be equal"
    )]
    Placeholders {
        /// Placeholders in the text.
        placeholders: usize,
        /// Images given.
        images: usize,
    },
    /// A training conversation without an answer to learn.
    #[error(
        "the conversation has no answer, so there is nothing to predict; training needs at least one assistant turn"
    )]
    NothingToPredict,
    /// A name that no task has.
    #[error("there is no task {}; the tasks are {}", quoted(name), crate::Task::names())]
    UnknownTask {
        /// The name.
        name: String,
    },
    /// A task was given less or more input than its prompt takes.
    #[error("task `{task}` takes {expected}, got {found}")]
    TaskInput {
        /// The task.
        task: crate::Task,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
}

fn id_or_none(id: Option<u32>) -> String {
    id.map_or_else(|| "absent".to_owned(), |id| id.to_string())
}
