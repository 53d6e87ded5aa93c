//! What the `lumina` program does, as a library: other programs of the same kind share its arguments and outputs.
//!
//! - [`commands`] has a module for each command.
//! - [`ModelArgs`] opens a checkpoint and sets the sampling options. [`ComputeArgs`] selects the compute target.
//! - [`RankArgs`] says which part of the work this process does: its [`Rank`].
//! - [`Progress`] shows a progress bar for the rows of an image. [`summary`] formats the statistics of an answer.
//!   [`note_unknown_words`] says which words of a prompt the model does not know.
//! - [`open_image`] and [`message_parts`] read the user's input. [`save_image`] writes an image.
//! - [`main()`] runs a program: it parses the arguments, and prints the error. [`say!`] and [`note!`] write to the
//!   standard outputs, and [`Form`] is how results are written.
//! - [`Result`] is what a program returns: its [`Error`] names flags where the libraries name methods and options.
#![forbid(unsafe_code)]

mod args;
pub mod commands;
mod errors;
mod files;
mod interrupt;
mod message;
mod output;
mod progress;
mod rank;

pub use args::{ComputeArgs, ModelArgs, check_instruction, width_x_height};
pub use errors::{Error, Result};
pub use files::{
    SCENE_PROMPT, check_output, contact_sheet, default_model, local_model, open_image, save_image, small_model,
    test_data,
};
pub use message::message_parts;
pub use output::{Form, main, write_note, write_output};
pub use progress::{Progress, left_out, note_unknown_words, summary};
pub use rank::{Rank, RankArgs};
