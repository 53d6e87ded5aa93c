#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod dataset;
pub mod judge;

mod description;
mod draws;
mod edit;
mod error;
mod mask;
mod parse;
mod render;
mod scene;
mod scenes;
mod words;

pub use description::{Description, Mention};
pub use edit::{Edit, Target};
pub use error::{Error, Result};
pub use render::{BACKGROUND_CLASS, BACKGROUND_DEPTH};
pub use scene::{MAX_OBJECTS, MIN_GAP_PX, Object, STEP_PX, Scene};
pub use scenes::{DEFAULT_TARGET_PX, HELD_OUT, Scenes, Split};
pub use words::{Background, Colour, Kind, Place, Relation, Shape, Size};
