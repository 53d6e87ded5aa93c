//! The token stream of Lumina-mGPT: the roles of tokens, the sizes of images, and the layout of images as tokens.
//!
//! A program that runs a model depends on `lumina-mgpt`, which re-exports what it needs. This crate alone is for
//! programs that read or write token streams. It has no dependency on a tensor library and no features, and compiles
//! for `wasm32-unknown-unknown`.
//!
//! - [`TokenRole`]: what a token does in the stream, and its name in a tokenizer's vocabulary, both ways.
//! - [`Vocabulary`]: which id has which role in one tokenizer.
//! - [`ImageSize`], [`CodeGrid`], [`crop_sizes`]: the sizes that an image can have, and an image as VQ codes.
//! - [`layout`]: which tokens an image consists of, and [`layout::StreamLayout`], the state machine that follows a
//!   stream.
//! - [`mod@file`], [`Limits`]: how all crates open files, and what one input may take.
//! - [`quoted`], [`shown`], [`Cause`]: texts, paths and errors from elsewhere as parts of a message.
//! - [`unwind`]: a panic in code that a program gave becomes a message.
//!
//! ```
//! use lumina_core::layout::{Slot, StreamLayout};
//! use lumina_core::{ImageSize, TokenRole, Vocabulary};
//!
//! // A program reads names and ids from a tokenizer file.
//! let names = ["<s>", "<pad>", "<racm3:break>", "<eoss>"];
//! let reserved = ["<reserved08799>", "<reserved08706>", "<reserved08801>", "IMGIMGAZ"];
//! let vocabulary = Vocabulary::from_tokens(names.into_iter().chain(reserved).zip(0..))?;
//! assert_eq!(vocabulary.role(7), TokenRole::Code(0));
//!
//! // The tokens of an image of 32 × 32 pixels, all of code 0.
//! let size = ImageSize::new(32, 32)?;
//! let token = |slot| match slot {
//!     Slot::ImageStart => Some(vocabulary.image_start()),
//!     Slot::Height => vocabulary.size_token(size.height_cells()),
//!     Slot::Width => vocabulary.size_token(size.width_cells()),
//!     Slot::Code { .. } => vocabulary.token_of_code(0),
//!     Slot::RowEnd { .. } => Some(vocabulary.row_end()),
//!     Slot::ImageEnd => Some(vocabulary.image_end()),
//! };
//! let tokens: Vec<u32> = size.slots().filter_map(token).collect();
//! assert_eq!(tokens, [2, 6, 6, 7, 7, 4, 7, 7, 4, 3]);
//!
//! // The state machine follows them.
//! let mut layout = StreamLayout::strict();
//! tokens.iter().for_each(|&token| drop(layout.push(vocabulary.role(token))));
//! assert_eq!((layout.len(), layout.in_image()), (size.n_tokens(), false));
//! # Ok::<(), lumina_core::Error>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod geometry;
mod json_size;
mod limits;
mod quoted;
mod token_role;
mod vocabulary;

pub mod file;
pub mod layout;
pub mod unwind;

pub use error::{Error, Result};
pub use geometry::{
    CELL_PX, CodeGrid, ImageSize, LATENT_PX, MAX_TARGET_PX, choose_size, crop_size_list, crop_sizes, rank_sizes,
};
pub use limits::Limits;
pub use quoted::{Cause, quoted, shown};
pub use token_role::{TokenRole, is_special_name, reserved_token_name};
pub use vocabulary::Vocabulary;
