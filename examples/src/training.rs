//! Arguments and progress of the examples that train.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lumina_tokenizer::UniRep;
use lumina_train::data::{PretokenizeEvent, PretokenizeProgress, SkippedRecord};
use lumina_train::fine_tune::{ActivationMemory, FineTuneOptions};
use lumina_train::optim::EpochSchedule;
use lumina_vq::ImageTokenizer;

use crate::{ComputeArgs, small_model};

/// How a model is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub struct FineTuneArgs {
    /// The highest learning rate
    #[arg(long, value_name = "RATE", alias = "lr", default_value_t = 2e-5)]
    learning_rate: f64,
    /// How many times the data are seen
    #[arg(long, value_name = "N", default_value_t = 2)]
    epochs: u64,
    /// Sequences in a pass: what the memory allows
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch_size: usize,
    /// Passes before the weights are updated
    #[arg(long, value_name = "N", alias = "accumulate", default_value_t = 1)]
    accumulation: usize,
    /// Less memory, a third more time: compute layers again in the backward pass
    #[arg(long)]
    recompute: bool,
}

impl FineTuneArgs {
    /// The options of a run.
    pub fn options(&self) -> FineTuneOptions {
        let (learning_rate, epochs) = (self.learning_rate, self.epochs);
        FineTuneOptions {
            schedule: EpochSchedule { learning_rate, epochs, ..EpochSchedule::default() },
            batch_size: self.batch_size,
            accumulation: self.accumulation,
            activation_memory: if self.recompute { ActivationMemory::Recompute } else { ActivationMemory::Keep },
            ..FineTuneOptions::default()
        }
    }
}

/// The tokenizers of texts and images.
#[derive(Debug, Args)]
pub struct TokenizerArgs {
    /// Folder of tokenizer.json [default: that of the small model]
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
    /// Folder of vqgan.yaml and its weights [default: that of the small model]
    #[arg(long, value_name = "FOLDER")]
    image_tokenizer: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl TokenizerArgs {
    /// Opens both.
    ///
    /// # Errors
    /// Those of [`ImageTokenizer::open`] and [`UniRep::open`].
    pub fn open(&self) -> Result<(ImageTokenizer, UniRep)> {
        let folder = |given: &Option<PathBuf>| given.clone().unwrap_or_else(small_model);
        let images = ImageTokenizer::open(folder(&self.image_tokenizer), &self.compute.open())?;
        Ok((images, UniRep::open(folder(&self.tokenizer))?))
    }
}

/// What became of the records of a rank: how many were read, how many skipped, and why.
///
/// # Errors
/// The same text, if records were skipped and none may be.
pub fn read_and_skipped(done: &PretokenizeProgress, skipped: &[SkippedRecord], strict: bool) -> Result<String> {
    const SHOWN: usize = 10;
    let read = done.done - done.skipped;
    let mut text = format!("{} records: {read} read, {} skipped; {} tokens", done.done, done.skipped, done.tokens);
    for SkippedRecord { index, reason } in skipped.iter().take(SHOWN) {
        text += &format!("\n  record {index} was skipped: {reason}");
    }
    if skipped.len() > SHOWN {
        text += &format!("\n  and {} more, in the list `…-skipped.jsonl`", skipped.len() - SHOWN);
    }
    ensure!(!strict || done.skipped == 0, "{text}");
    Ok(text)
}

/// A bar of pre-tokenised records, on a terminal's error output; elsewhere it shows nothing.
#[derive(Debug)]
pub struct RecordProgress(ProgressBar);

impl RecordProgress {
    /// A bar that waits for the first event.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} records, {per_sec}, {eta} left {msg}");
        Self(ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// Shows an event.
    pub fn show(&self, event: &PretokenizeEvent<'_>) {
        match event {
            PretokenizeEvent::Skipped { index, reason } => {
                self.0.println(format!("record {index} was skipped: {reason}"));
            }
            PretokenizeEvent::Progress(progress) => {
                if self.0.length().is_none() {
                    self.0.set_length(progress.total);
                    // Records of earlier calls do not count as speed.
                    self.0.reset_eta();
                }
                self.0.set_position(progress.done);
                self.0.set_message(format!("{} tokens", progress.tokens));
            }
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Default for RecordProgress {
    fn default() -> Self {
        Self::new()
    }
}
