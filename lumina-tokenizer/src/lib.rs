//! Text and image codes to one stream of tokens and back, for Lumina-mGPT and Chameleon checkpoints.
//!
//! Lumina-mGPT (arXiv 2408.02657) reads and writes one stream in which text and images are mixed. An image is VQ codes
//! in a layout that states its size and its rows; a conversation is turns of text and images. This crate encodes such
//! streams and decodes them. It computes nothing: tokens are `u32`, an image is a [`CodeGrid`](lumina_core::CodeGrid),
//! and it does not depend on Burn.
//!
//! # The pipeline
//!
//! ```text
//!   encoding                                         decoding
//!
//!   Task ─▶ Conversation        Record               Decoded, Content
//!               │                 │                        ▲
//!               ▼                 ▼                        │ StreamEvent
//!   UniRep::encode      UniRep::encode_record        StreamDecoder, UniRep::decode
//!               │                 │                    ▲           ▲
//!       ┌───────┴─────────────────┴──────┐             │           │
//!       ▼                                ▼             │           │
//!   TextTokenizer::encode    UniRep::encode_image   TextStream   StreamLayout (lumina-core)
//!       │                                │             ▲           ▲
//!       └───────────▶ tokens ◀───────────┘             └── tokens ─┘
//! ```
//!
//! 1. **Text.** [`TextTokenizer`] is the byte-level BPE of a `tokenizer.json`. [`Specials`] chooses whether the names
//!    of special tokens in a text become those tokens. [`TextStream`] decodes text token by token.
//! 2. **Images.** [`UniRep`] is the whole tokenizer. It finds by name which token has which
//!    [role](lumina_core::TokenRole), and writes the codes of an image in the [layout](lumina_core::layout) of the
//!    stream.
//! 3. **Conversations.** A [`Conversation`] is turns of [`Content`], text and images in order. [`Task`] has the prompts
//!    that the checkpoints were trained on. The result is [`Encoded`]: tokens, and labels for training.
//! 4. **Records.** A [`Record`] is a conversation as training data states it: JSON whose texts contain `<|image|>`.
//! 5. **Decoding.** [`StreamDecoder`] turns tokens into [`StreamEvent`]s one by one: pieces of text, rows of an image,
//!    whole images. [`UniRep::decode`] collects them into [`Decoded`]. An image that does not follow the layout is a
//!    [`MalformedImage`].
//!
//! # Example
//!
//! ```
//! use lumina_core::{CodeGrid, ImageSize};
//! use lumina_tokenizer::{Conversation, Malformed, Task, TaskInput, UniRep};
//!
//! let unirep = UniRep::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/tokenizer"))?;
//!
//! // The prompt.
//! let input = TaskInput::new().text("a dog in a waterfall").size(ImageSize::new(64, 32)?);
//! let conversation = Conversation::new().human(Task::TextToImage.prompt(input)?);
//! let prompt = unirep.encode(&conversation)?.tokens;
//! assert_eq!(prompt.first(), Some(&unirep.vocabulary().bos()));
//!
//! // A possible answer of the model: text, and an image of 2 rows of 4 codes.
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
//! Ids, labels and texts are exactly those of the original Python code, for all input that it accepts. Where it raises
//! an exception, this crate returns a typed [`Error`]. Where it never returns (an image-start as the last token) or
//! silently drops a cut-off image, the image is reported as a [`MalformedImage`] with its complete rows.
//!
//! # Untrusted input
//!
//! - **Text.** Names of special tokens that a user types stay plain text: [`Specials::Plain`], the default, encodes
//!   with a vocabulary without special tokens and without the merges that build them. [`Specials::Parse`] is the
//!   original's behaviour, which a [`Record`] keeps. A [`Conversation`] that is read from JSON is plain. A text is at
//!   most [`Limits::message_bytes`](lumina_core::Limits::message_bytes) long, or as long as a context can hold
//!   ([`UniRep::encode_within`]).
//! - **Streams.** Any tokens decode, in any order and cut anywhere, without a panic and in one pass.
//! - **Files.** A `tokenizer.json` is checked before anything is built from it, and refused where the result would
//!   differ from the original's (another model type or decoder, two tokens with one id), where text would be lost, or
//!   where a text could take any amount of time or memory: [`TextTokenizer::open`] lists what is read.
//!
//! # Memory and speed
//!
//! A tokenizer holds its vocabulary twice, with and without special tokens. [`UniRep`] and [`TextTokenizer`] are
//! `Send + Sync` and cheap to clone. Decoding keeps its state from token to token; an image's codes are kept until
//! it ends.
//!
//! The crate has no features. It compiles for `wasm32-unknown-unknown`, where [`TextTokenizer::from_json`] takes the
//! place of `open`.

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
mod tokenizer_parts;
mod unirep;

pub use conversation::{Content, Conversation, Encoded, IGNORED, Part, Role, Turn};
pub use error::{Error, Result};
pub use record::{Record, RecordTurn};
pub use stream::{MalformedImage, StreamDecoder, StreamEvent};
pub use task::{Task, TaskDefaults, TaskInput, TaskOutput, TaskSpec};
pub use text::{Specials, TextTokenizer};
pub use text_stream::TextStream;
pub use text_tokenizer_json::read_text_tokenizer;
pub use unirep::{Decoded, Malformed, Segment, UniRep};
