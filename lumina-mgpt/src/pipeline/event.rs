//! What a generation tells while it runs, and what it has been.

use std::time::Duration;

use image::RgbImage;
use lumina_core::{CodeGrid, ImageSize};
use lumina_tokenizer::MalformedImage;

/// Something that has happened in a generation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// More text. The pieces together are the whole text, `<|image|>` in the places of images aside.
    Text(String),
    /// An image has stated its size.
    ImageStarted {
        /// The size.
        size: ImageSize,
    },
    /// A row of an image is whole.
    ImageRow {
        /// Its index, from 0 at the top.
        row: u32,
        /// Its codes, from left to right.
        codes: Vec<u32>,
    },
    /// The picture so far, as high as its rows; a rough one, for the final picture depends on rows still to come.
    Preview(RgbImage),
    /// An image is complete.
    Image {
        /// The picture.
        image: RgbImage,
        /// Its codes, to go into the next turn of a conversation.
        codes: CodeGrid,
    },
    /// An image was cut off or is malformed; the rows that are whole are there.
    Malformed {
        /// What is wrong.
        malformed: Box<MalformedImage>,
        /// The picture of its whole rows.
        partial: Option<RgbImage>,
    },
    /// The generation has ended; the last event.
    Done {
        /// What it took.
        stats: Stats,
        /// The generated tokens, the turn's end included.
        tokens: Vec<u32>,
    },
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The model ended its turn.
    #[default]
    TurnEnd,
    /// `max_new_tokens` was reached.
    MaxNewTokens,
    /// `max_images` was reached.
    MaxImages,
    /// The model's context is full.
    ContextFull,
    /// `deadline_ms` has passed.
    Deadline,
    /// [`Cancel`](crate::Cancel) was used.
    Cancelled,
    /// An error ended it, which the caller has heard of.
    Failed,
}

/// What a generation took. Passes and their seconds are those of the batch that it ran in.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Why it ended.
    pub stop: StopReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, the turn's end included.
    pub generated_tokens: usize,
    /// How many of these the grammar forced: they cost no pass.
    pub forced_tokens: usize,
    /// Passes over the weights.
    pub passes: usize,
    /// Time until the first token was drawn.
    pub prefill: Duration,
    /// Time of the passes after that.
    pub decode: Duration,
    /// Time of drawing tokens.
    pub sampling: Duration,
    /// Time of turning codes into pictures.
    pub image_decode: Duration,
    /// Bytes of keys and values.
    pub kv_cache_bytes: u64,
    /// The most memory that the process has had resident so far, mapped files included; Linux only.
    pub peak_resident_bytes: Option<u64>,
}

impl Stats {
    /// Tokens generated a second, after the first.
    pub fn tokens_per_second(&self) -> f64 {
        let seconds = (self.decode + self.sampling).as_secs_f64();
        if seconds > 0.0 { self.generated_tokens.saturating_sub(1) as f64 / seconds } else { 0.0 }
    }
}

/// The most memory that this process has had resident.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// The text, with `<|image|>` in the place of each image of [`Output::images`].
    pub text: String,
    /// The complete images.
    pub images: Vec<RgbImage>,
    /// Their codes, to go into the next turn of a conversation.
    pub codes: Vec<CodeGrid>,
    /// Images that were cut off or malformed, with the pictures of their whole rows.
    pub malformed: Vec<(MalformedImage, Option<RgbImage>)>,
    /// The generated tokens, the turn's end included.
    pub tokens: Vec<u32>,
    /// What it took.
    pub stats: Stats,
}
