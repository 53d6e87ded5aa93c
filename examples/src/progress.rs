//! Shows the progress of an answer.

use indicatif::{ProgressBar, ProgressStyle};
use lumina_mgpt::{Event, Stats};

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

/// Formats the statistics of an answer in one line.
pub fn summary(stats: &Stats) -> String {
    let Stats { generated_tokens, forced_tokens, prompt_tokens, passes, stop, .. } = stats;
    let (prefill, speed) = (stats.prefill.as_secs_f64(), stats.tokens_per_second());
    format!(
        "{generated_tokens} tokens ({forced_tokens} forced) in {passes} passes: {speed:.1} tokens/s; \
         prefill of {prompt_tokens} tokens: {prefill:.2} s; stopped by {stop}"
    )
}
