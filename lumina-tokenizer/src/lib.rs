//! Text and image codes to one stream of tokens and back, for Lumina-mGPT and Chameleon checkpoints.
//!
//! Lumina-mGPT (arXiv 2408.02657) reads and writes one stream in which text and images are mixed. An image is a run
//! of VQ codes in a layout that states its size and its rows; a conversation is turns of both. This crate makes such
//! streams and takes them apart. It computes nothing: tokens are `u32`, an image is a
//! [`CodeGrid`](lumina_core::CodeGrid), and there is no Burn in it.
//!
//! - [`UniRep`] is the whole tokenizer: opened from a checkpoint's folder, it encodes a [`Conversation`] or a
//!   training [`Record`], and decodes what a model has generated, whole or token by token ([`StreamDecoder`]).
//! - [`TextTokenizer`] is its text half, byte-level BPE, with [`TextStream`] for text that arrives in pieces.
//! - [`Task`] is the table of prompts that the checkpoints were trained on.
//!
//! ```
//! use lumina_core::{CodeGrid, ImageSize};
//! use lumina_tokenizer::{Conversation, Malformed, Task, TaskInput, UniRep};
//!
//! let unirep = UniRep::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer"))?;
//!
//! // What the model is asked.
//! let input = TaskInput::new().text("a dog in a waterfall").size(ImageSize::new(64, 32)?);
//! let conversation = Conversation::new().human(Task::TextToImage.prompt(input)?);
//! let prompt = unirep.encode(&conversation)?.tokens;
//! assert_eq!(prompt.first(), Some(&unirep.vocabulary().bos()));
//!
//! // What the model could answer: an image of 2 rows of 4 codes.
//! let image = CodeGrid::new(2, 4, vec![7, 6, 5, 4, 3, 2, 1, 0])?;
//! let mut answer = unirep.text().encode("Here it is: ", Default::default())?;
//! answer.extend(unirep.encode_image(&image)?);
//!
//! let decoded = unirep.decode(&answer, Malformed::Partial)?;
//! assert_eq!(decoded.text(), "Here it is: <|image|>");
//! assert!(decoded.images().eq([&image]));
//!
//! // The conversation goes on.
//! let conversation = conversation.assistant(decoded).human("Make it larger.");
//! assert!(unirep.encode(&conversation)?.tokens.starts_with(&prompt));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Parity
//!
//! Ids, labels and texts are those of the original Python code, exactly, for all that it accepts. Where it raises an
//! exception, this crate returns a typed [`Error`]; where it never returns (an image-start as the last token) or
//! drops a cut-off image in silence, the image is reported as a [`MalformedImage`] with the rows that are whole.
//!
//! # Untrusted input
//!
//! - **Text.** Names of special tokens that a user types stay plain text: [`Specials::Plain`], the default, encodes
//!   with a vocabulary from which special tokens and the merges that build them are taken out. [`Specials::Parse`]
//!   is the original's behaviour, which a [`Record`] keeps.
//! - **Streams.** Any tokens decode, in any order and cut anywhere, without a panic and without looking at a token
//!   twice.
//! - **Files.** A `tokenizer.json` is checked before anything is built from it, and refused where the result would
//!   differ from the original's (another model type or decoder, two tokens with one id).
//!
//! # Memory and speed
//!
//! A tokenizer holds its vocabulary twice, with and without special tokens. [`UniRep`] and [`TextTokenizer`] are
//! `Send + Sync` and cheap to clone. Decoding keeps its state from token to token; an image's codes are kept until
//! it ends.
//!
//! The crate has no features.

#![forbid(unsafe_code)]

mod conversation;
mod error;
mod record;
mod stream;
mod task;
mod text;
mod text_stream;
mod text_tokenizer_json;
mod tokenizer_file;
mod unirep;

pub use conversation::{Content, Conversation, Encoded, IGNORED, Part, Role, Turn};
pub use error::{Error, Result};
pub use record::{Record, RecordTurn};
pub use stream::{MalformedImage, StreamDecoder, StreamEvent};
pub use task::{Output, Task, TaskDefaults, TaskInput, TaskSpec};
pub use text::{Specials, TextTokenizer};
pub use text_stream::TextStream;
pub use text_tokenizer_json::read_text_tokenizer;
pub use unirep::{Decoded, Malformed, Segment, UniRep};
