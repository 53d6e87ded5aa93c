//! What happens to a request, and what it took.

use std::time::Duration;

use image::RgbImage;
use lumina_core::{CodeGrid, ImageSize};
use lumina_tokenizer::MalformedImage;

use crate::stop_reason::StopReason;

/// Something that has happened to a request.
#[derive(Clone)]
#[non_exhaustive]
pub enum Event {
    /// More text. The pieces together are the whole text, special tokens and `<|image|>` in the places of images aside.
    Text(String),
    /// A special token in text by its name, such as an image token outside of an image. Models seldom write one, and a
    /// program for people leaves it out; [`Output::text`](crate::Output::text) has it, as the original's text does.
    Special(String),
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
    /// The image so far, as high as its rows. It is approximate: the final image depends on rows still to come.
    Preview(RgbImage),
    /// An image is complete.
    Image {
        /// The image.
        image: RgbImage,
        /// Its codes, to go into the next turn of a conversation.
        codes: CodeGrid,
    },
    /// An image was cut off or is malformed.
    Malformed {
        /// What is wrong.
        malformed: Box<MalformedImage>,
        /// The image of its complete rows.
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
    /// How many the device drew, where it computes the logits: no logits came back for them. Draws outside of images,
    /// and with other steps than top-k and temperature, are made by the processor.
    #[serde(default)]
    pub drawn_on_device: usize,
    /// Passes over the weights.
    pub passes: usize,
    /// Drafts of tokens that passes tried, those that the grammar forced included.
    #[serde(default)]
    pub drafts: usize,
    /// How many of the tokens generated were drafts that came out right, forced ones aside: each saved a pass.
    #[serde(default)]
    pub accepted_drafts: usize,
    /// Time until the first token was drawn.
    pub prefill: Duration,
    /// Time of the passes after that.
    pub decode: Duration,
    /// Time of drawing tokens.
    pub sampling: Duration,
    /// Time of decoding images.
    pub image_decode: Duration,
    /// The most bytes of keys and values at once.
    pub kv_cache_bytes: u64,
    /// The most memory that the process has had resident so far, memory-mapped files included. Filled in by
    /// [`Stream`](crate::Stream), on Linux only.
    pub peak_resident_bytes: Option<u64>,
}

impl Stats {
    /// Tokens generated a second, after the first.
    pub fn tokens_per_second(&self) -> f64 {
        let seconds = (self.decode + self.sampling).as_secs_f64();
        if seconds > 0.0 { self.generated_tokens.saturating_sub(1) as f64 / seconds } else { 0.0 }
    }
}

impl std::fmt::Debug for Event {
    /// Sizes and lengths, without the answer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = |image: &RgbImage| format!("{}x{} pixels", image.width(), image.height());
        match self {
            Self::Text(text) => write!(f, "Text(<{} bytes>)", text.len()),
            Self::Special(name) => write!(f, "Special({name:?})"),
            Self::ImageStarted { size } => f.debug_struct("ImageStarted").field("size", size).finish(),
            Self::ImageRow { row, codes } => write!(f, "ImageRow({row}, <{} codes>)", codes.len()),
            Self::Preview(image) => write!(f, "Preview({})", size(image)),
            Self::Image { image, .. } => write!(f, "Image({})", size(image)),
            Self::Malformed { malformed, partial } => {
                let partial = partial.as_ref().map(size);
                f.debug_struct("Malformed").field("malformed", malformed).field("partial", &partial).finish()
            }
            Self::Done { stats, tokens } => {
                f.debug_struct("Done").field("stats", stats).field("tokens", &tokens.len()).finish()
            }
        }
    }
}
