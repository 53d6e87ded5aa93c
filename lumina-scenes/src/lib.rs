#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod dataset;
pub mod evaluation;

mod arrangement;
mod attributes;
mod caption;
mod caption_parser;
mod description;
mod edit;
mod error;
mod free_prompts;
mod known_words;
mod mask;
mod question;
mod random;
mod render;
mod scene;
mod scenes;
mod split;
mod wording;

pub use attributes::{
    Backdrop, Background, Colour, Fill, MIN_DISTANCE_PX, ObjectKind, ObjectShape, ObjectSize, Position, Relation,
};
pub use caption::{Caption, MAX_OBJECTS, Mention};
pub use description::Description;
pub use edit::Edit;
pub use error::{Error, Result};
pub use free_prompts::{FreePrompt, free_prompts};
pub use known_words::known_words;
pub use question::Question;
pub use render::{BACKGROUND_CLASS_RGB, BACKGROUND_DEPTH};
pub use scene::{GRID_PX, MIN_GAP_PX, Object, Scene};
pub use scenes::{DEFAULT_TARGET_PX, Scenes};
pub use split::Split;
pub use wording::Wording;
