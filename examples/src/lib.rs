//! What the examples share.
//!
//! - [`FineTuneArgs`], [`TokenizerArgs`] and [`RecordProgress`] are arguments and progress of training.
//! - [`scenes_for`] are scenes for a model, [`dataset_for`] records about them, [`count_correct_reconstructions`]
//!   evaluates an image tokenizer.
//! - The rest is that of the program `lumina`: arguments, progress, outputs, and the files of this repository.
#![forbid(unsafe_code)]

mod scenes;
mod training;

pub use lumina_cli::*;
pub use scenes::{count_correct_reconstructions, dataset_for, scenes_for};
pub use training::{FineTuneArgs, RecordProgress, TokenizerArgs, read_and_skipped};
