//! The token stream of Lumina-mGPT: which token plays which role, and how images lie in it.
//!
//! A program that runs a model depends on `lumina-mgpt` and meets these types there. [`Vocabulary`] finds the roles of
//! tokens by name; [`ImageSize`], [`CodeGrid`] and [`crop_sizes`] are the sizes that an image can have as tokens.
#![forbid(unsafe_code)]

mod error;
mod geometry;
mod token_role;
mod vocabulary;

pub mod layout;

pub use error::{Error, Result};
pub use geometry::{
    CELL_PX, CodeGrid, ImageSize, LATENT_PX, MAX_TARGET_PX, choose_size, crop_size_list, crop_sizes, rank_sizes,
};
pub use token_role::{TokenRole, is_special_name, reserved_token_name};
pub use vocabulary::Vocabulary;
