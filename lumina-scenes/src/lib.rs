#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod dataset;
pub mod evaluation;

mod attributes;
mod caption;
mod caption_parser;
mod edit;
mod error;
mod mask;
mod random;
mod render;
mod scene;
mod scenes;
mod split;

pub use attributes::{Backdrop, Background, Colour, Fill, ObjectKind, ObjectShape, ObjectSize, Position, Relation};
pub use caption::{Caption, MAX_OBJECTS, Mention};
pub use edit::{Edit, EditTarget};
pub use error::{Error, Result};
pub use render::{BACKGROUND_CLASS_RGB, BACKGROUND_DEPTH};
pub use scene::{GRID_PX, MIN_GAP_PX, Object, Scene};
pub use scenes::{DEFAULT_TARGET_PX, Scenes};
pub use split::Split;
