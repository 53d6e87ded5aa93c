//! What the examples share: arguments, progress, and writing pictures. Everything else is the library's.
//!
//! - [`ModelArgs`] opens a checkpoint, by default the small one in this repository, and sets how its answers are drawn;
//!   [`ComputeArgs`] says where to compute.
//! - [`Progress`] shows the rows of an image as they come; [`summary`] what an answer took.
//! - [`small_model`] and [`sample`] find what the repository has; [`open_picture`] and [`parts`] read what was given;
//!   [`save_png`] writes a picture that is either there whole or not at all.
#![forbid(unsafe_code)]

mod args;
mod files;
mod progress;
mod scenes;

pub use args::{Careful, ComputeArgs, ModelArgs, SMALL_MODEL_SAMPLING, width_x_height};
pub use files::{open_picture, parts, sample, save_png, small_model};
pub use progress::{Progress, summary};
pub use scenes::given_back_right;
