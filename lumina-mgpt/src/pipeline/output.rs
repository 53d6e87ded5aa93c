//! A whole answer, and what of it a caller takes.

use image::RgbImage;
use lumina_core::{Cause, CodeGrid, Vocabulary};
use lumina_tokenizer::MalformedImage;

use crate::engine::{Event, Stats};
use crate::{Error, Result};

/// A whole answer.
#[derive(Clone, Default)]
pub struct Output {
    /// The text as the original gives it: with `<|image|>` in the place of each image of [`Output::images`], and with
    /// the names of special tokens that the model wrote outside of images, which [`Event::Special`] tells from text.
    pub text: String,
    /// The complete images.
    pub images: Vec<RgbImage>,
    /// Their codes, to go into the next turn of a conversation.
    pub codes: Vec<CodeGrid>,
    /// Images that were cut off or malformed, with the image of their complete rows.
    pub malformed: Vec<(MalformedImage, Option<RgbImage>)>,
    /// The generated tokens, the turn's end included.
    pub tokens: Vec<u32>,
    /// What it took.
    pub stats: Stats,
}

impl Output {
    /// The text without `<|image|>` in the places of images, and without white space around it: what a model says of
    /// an image that it draws after it.
    pub fn text_without_images(&self) -> String {
        self.text.replace(Vocabulary::PLACEHOLDER, "").trim().to_owned()
    }

    /// Adds an event: all events of a request make its answer.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Text(text) | Event::Special(text) => self.text.push_str(&text),
            Event::Image { image, codes } => {
                self.text.push_str(Vocabulary::PLACEHOLDER);
                self.images.push(image);
                self.codes.push(codes);
            }
            Event::Malformed { malformed, partial } => self.malformed.push((*malformed, partial)),
            Event::Done { stats, tokens } => {
                self.stats = stats;
                self.tokens = tokens;
            }
            Event::ImageStarted { .. } | Event::ImageRow { .. } | Event::Preview(_) => {}
        }
    }
}

/// What an answer can be taken as.
pub trait Answer: Sized {
    /// Takes it from the whole output.
    ///
    /// # Errors
    /// [`Error::Answer`] where the output does not hold it.
    fn from_output(output: Output) -> Result<Self>;
}

impl Answer for Output {
    fn from_output(output: Output) -> Result<Self> {
        Ok(output)
    }
}

impl Answer for String {
    fn from_output(output: Output) -> Result<Self> {
        Ok(output.text)
    }
}

impl Answer for RgbImage {
    /// The first complete image.
    fn from_output(output: Output) -> Result<Self> {
        let Output { images, text, malformed, stats, .. } = output;
        match (images.into_iter().next(), malformed.into_iter().next()) {
            (Some(image), _) => Ok(image),
            (None, Some((malformed, _))) => {
                Err(Error::Malformed { malformed: Box::new(malformed), stop: Some(stats.stop) })
            }
            (None, None) => {
                Err(Error::Answer { expected: "image", found: Cause::new(&text).to_string(), stop: stats.stop })
            }
        }
    }
}

impl std::fmt::Debug for Output {
    /// Numbers and lengths, without the answer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("text_bytes", &self.text.len())
            .field("images", &self.images.len())
            .field("malformed", &self.malformed.len())
            .field("tokens", &self.tokens.len())
            .field("stats", &self.stats)
            .finish()
    }
}
