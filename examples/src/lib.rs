//! What the examples share: arguments, progress, and writing pictures. Everything else is the library's.
//!
//! - [`ModelArgs`] opens a checkpoint, by default the small one in this repository, and sets how its answers are drawn;
//!   [`ComputeArgs`] says where to compute.
//! - [`Progress`] shows the rows of an image as they come; [`summary`] what an answer took.
//! - [`open_picture`] and [`sample`] find what the tests have; [`parts`] reads a message; [`save_png`] writes a picture that is either there whole or not at all.
#![forbid(unsafe_code)]

mod args;
mod files;
mod progress;

pub use args::{ComputeArgs, ModelArgs, width_x_height};
pub use files::{note, open_picture, parts, sample, save_png};
pub use progress::{Progress, summary};
