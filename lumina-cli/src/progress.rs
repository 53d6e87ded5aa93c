//! Shows the progress of an answer.

use indicatif::{ProgressBar, ProgressStyle};
use lumina_mgpt::{Event, Lumina, Stats, StopReason};

use crate::errors::with_flags;

/// A progress bar for the rows of an image, on the standard error output. It is hidden if that is not a terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar without an image yet.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} rows, {eta} left");
        let bar = ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar.with_message("prefill"))
    }

    /// Updates the bar.
    pub fn update(&self, event: &Event) {
        match event {
            Event::ImageStarted { size } => {
                self.0.reset();
                self.0.set_message(format!("drawing {size}"));
                self.0.set_length(size.latent_rows().into());
            }
            Event::ImageRow { row, .. } => self.0.set_position(u64::from(*row) + 1),
            Event::Done { .. } => self.0.finish_and_clear(),
            _ => {}
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A progress bar for the bytes of downloads, on the standard error output; where that is not a terminal, a line for
/// each repository.
#[cfg(feature = "hub")]
#[derive(Debug)]
pub(crate) struct DownloadBar {
    bar: ProgressBar,
    /// Of the repository that is downloaded.
    total_bytes: std::cell::Cell<u64>,
}

#[cfg(feature = "hub")]
impl DownloadBar {
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left");
        let bar = ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, total_bytes: std::cell::Cell::new(0) }
    }

    pub(crate) fn update(&self, progress: &lumina_mgpt::DownloadProgress<'_>) {
        let total_bytes = progress.total_bytes;
        if self.total_bytes.replace(total_bytes) != total_bytes && self.bar.is_hidden() {
            crate::note!("downloading {}", indicatif::DecimalBytes(total_bytes.saturating_sub(progress.bytes)));
        }
        self.bar.set_message(progress.file.to_owned());
        self.bar.set_length(total_bytes);
        self.bar.set_position(progress.bytes);
        if progress.bytes >= total_bytes {
            self.bar.finish_and_clear();
        }
    }
}

/// Notes the words of a prompt that the model has not learnt, and those that it knows, if it states them.
pub fn note_unknown_words(model: &Lumina, prompt: &str) {
    if let Some(warning) = model.preset().word_warning(prompt) {
        crate::note!("{warning}");
    }
}

/// What to say of special tokens that the model wrote outside of images, and that are not shown.
pub fn left_out(n_specials: usize) -> Option<String> {
    let tokens = if n_specials == 1 { "a special token".to_owned() } else { format!("{n_specials} special tokens") };
    (n_specials > 0).then(|| format!("the model wrote {tokens} (of images, or reserved) outside of an image; left out"))
}

/// Formats the statistics of an answer in one line: passes and time, and why it ended before its end.
pub fn summary(stats: &Stats) -> String {
    let seconds = (stats.prefill + stats.decode + stats.sampling).as_secs_f64();
    let ending = match stats.stop {
        StopReason::TurnEnd => String::new(),
        other => format!("; stopped by {other}"),
    };
    with_flags(format!("{} tokens in {} passes, {seconds:.2} s{ending}", stats.generated_tokens, stats.passes))
}
