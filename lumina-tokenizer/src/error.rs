//! The errors of this crate.

use std::path::PathBuf;

use lumina_core::ImageSize;

use crate::MalformedImage;

/// The results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in `lumina-tokenizer`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{}: cannot be read; check that the path is right and the file is readable", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A file is not JSON, or not of the form that is needed.
    #[error("{}: not a JSON file of the expected form; is it whole, and the right file?", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The parts of a `tokenizer.json` do not fit together.
    #[error("{}: the tokenizer that it describes cannot be built; is the file whole?", file.display())]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// The error of the `tokenizers` crate.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A `tokenizer.json` of a kind whose result would differ from the original's.
    #[error(
        "{}: `{field}` is {found}, but only {supported} is supported; is this the tokenizer of a Chameleon or \
         Lumina-mGPT model?",
        file.display()
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
        "{}: id {id} belongs to both `{first}` and `{second}`; each token needs an id of its own, and an added \
         one that the vocabulary lacks takes the number of tokens",
        file.display()
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
    #[error("{}: {reason}", file.display())]
    Vocabulary {
        /// The file.
        file: PathBuf,
        /// What is missing.
        reason: Box<lumina_core::Error>,
    },
    /// Two files give one VQ code different tokens.
    #[error(
        "the image token of code {code} is {} in {} but {} in {}; the two files are not of one model",
        id_or_none(*first), first_file.display(), id_or_none(*second), second_file.display()
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
        "{}: token `{name}` has id {id}, but the model's vocabulary ends at {vocab_size}; tokenizer and model are \
         not of one checkpoint",
        file.display()
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
    /// The tokenizer could not encode a text.
    #[error("a text of {length} bytes cannot be encoded")]
    Encode {
        /// Length of the text in bytes.
        length: usize,
        /// The error of the `tokenizers` crate.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image whose sides the stream cannot state.
    #[error(transparent)]
    ImageSize(lumina_core::Error),
    /// An image larger than the vocabulary has size tokens for.
    #[error(
        "an image of {size} pixels needs a size token for {cells} cells of 32 pixels, which the vocabulary lacks; \
         make the image smaller"
    )]
    SizeToken {
        /// The image's size.
        size: ImageSize,
        /// The side that has no token, in cells.
        cells: u32,
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
    Record(#[source] serde_json::Error),
    /// A conversation without turns.
    #[error("the conversation has no turns; begin with a human turn")]
    EmptyConversation,
    /// The roles of a conversation do not alternate.
    #[error("turn {turn} is by `{found}`, expected {expected}: human and assistant take turns, the human first")]
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
    #[error("there is no task `{name}`; the tasks are {}", crate::Task::names())]
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
