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

pub use attributes::{Background, Colour, Kind, Place, Relation, Shape, Size};
pub use caption::{Description, Mention};
pub use edit::{Edit, Target};
pub use error::{Error, Result};
pub use render::{BACKGROUND_CLASS, BACKGROUND_DEPTH};
pub use scene::{MAX_OBJECTS, MIN_GAP_PX, Object, STEP_PX, Scene};
pub use scenes::{DEFAULT_TARGET_PX, HELD_OUT, Scenes, Split};
