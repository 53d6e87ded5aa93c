//! What the examples share: arguments, progress, and reading and writing images.
//!
//! - [`ModelArgs`] opens a checkpoint, by default the small model in this repository, and sets the sampling options.
//!   [`ComputeArgs`] selects the compute target.
//! - [`Progress`] shows a progress bar for the rows of an image. [`summary`] formats the statistics of an answer.
//! - [`FineTuneArgs`], [`TokenizerArgs`] and [`RecordProgress`] are arguments and progress of training.
//! - [`small_model`] and [`test_data`] locate files of the repository. [`open_image`] and [`message_parts`] read the
//!   user's input. [`save_image`] writes an image.
//! - [`main`] runs a program: it parses the arguments, and prints the error. [`say!`] and [`note!`] write to the
//!   standard outputs.
//! - [`Result`] is what a program returns: its [`Error`] names flags where the libraries name methods and options.
#![forbid(unsafe_code)]

mod args;
mod errors;
mod files;
mod message;
mod output;
mod progress;
mod scenes;
mod training;

pub use args::{ComputeArgs, ModelArgs, check_instruction, default_size, width_x_height};
pub use errors::{Error, Result};
pub use files::{SCENE_PROMPT, check_output, contact_sheet, open_image, save_image, small_model, test_data};
pub use message::message_parts;
pub use output::{main, write_note, write_output};
pub use progress::{Progress, left_out, summary};
pub use scenes::count_correct_reconstructions;
pub use training::{FineTuneArgs, RecordProgress, TokenizerArgs, read_and_skipped};
